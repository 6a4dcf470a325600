"""A trained network as a file for other programs: ONNX or PyTorch's exported program, checked against the network."""

import copy
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.data.data_splits import DataSplits
from nas.errors import InvalidValue, RunFailed, UnusableInput
from nas.evaluation.network_cost import as_used
from nas.interop.standalone import standalone_source
from nas.run.checkpoint import write_atomically
from nas.spaces.space import SearchSpace
from nas.tasks.task import Task
from nas.training.retraining import ExportKind, missing_packages

log = logging.getLogger(__name__)

FILES: dict[str, str] = {"onnx": "network.onnx", "torch_export": "network.pt2"}
CHECKED_IMAGES = 64  # on which an exported network is run
TOLERANCE = 1e-5  # of the logits, as a share of the largest where that is above 1


class ExportDiffers(Exception):  # noqa: N818 - it names what happened
    """The exported file does not compute what the network computes; told in one sentence."""


def write_for_other_programs(
    network: nn.Module,
    space: SearchSpace,
    architecture: Architecture,
    splits: DataSplits,
    task: Task,
    folder: Path,
    title: str,
    kind: ExportKind | None,
    quiet: bool,
) -> None:
    """Write ``network`` as a Python file that needs torch only, and as the file that ``kind`` names.

    Args:
        network: Trained; it has ``architecture``, of ``space``.
        splits: The data it was trained on; the export is run on test images.
        task: What its outputs mean.
        folder: Where the files go.
        title: The first line of the Python file.
        kind: None exports nothing.
        quiet: Whether an export is not worth a message.

    Raises:
        RunFailed: The exported file does not compute what the network computes.
    """
    try:
        source = standalone_source(
            space, architecture, splits.mean, splits.std, title, splits.class_names, splits.preparation, task.to_json()
        )
        write_atomically(folder / "network.py", source.encode())
    except InvalidValue as error:
        log.info(f"no network.py: {error}")
    if kind is None:
        return
    images = next(iter(splits.test.evaluation_batches(CHECKED_IMAGES, splits.mean, splits.std))).inputs
    try:
        exported, difference = export_network(network, kind, folder, images, splits.class_names)
    except ExportDiffers as error:
        raise RunFailed(f"{error}; the result is in {folder}") from error
    if not quiet:
        what = "images" if images.dim() == 4 else "samples"
        log.info(f"exported, logits within {difference:.1g} on {len(images)} test {what}: {exported}")


def export_network(
    network: nn.Module, kind: ExportKind, folder: Path, images: Tensor, class_names: Sequence[str] | None = None
) -> tuple[Path, float]:
    """Write ``network`` into ``folder`` and run the file on ``images``.

    The file takes images (batch, channels, height, width) of any batch size, named ``images``, and gives ``logits``;
    other inputs are named ``inputs``. A network with an attribute ``dynamic`` (axis to name and largest size) takes
    other sizes along these axes, too.
    The names of the classes are a JSON list: ONNX's metadata ``class_names``, or ``class_names.json`` among the extra
    files of ``torch.export``.

    Args:
        network: Trained; it stays as it is.
        kind: ``onnx`` is run with onnxruntime, ``torch_export`` with ``torch.export.load``.
        folder: The folder of the file.
        images: At least two real images, normalised as in training.
        class_names: What the classes are called, in the order of the logits; None leaves the file without them.

    Returns:
        The file, and the largest difference of its logits.

    Raises:
        ExportDiffers: The file's logits are not the network's; there is no file then.
        UnusableInput: A package is missing.
    """
    lacking = missing_packages(kind)
    if lacking:
        raise UnusableInput(f"Exporting to {kind} needs {', '.join(lacking)}: pip install -e .[export]")
    network = copy.deepcopy(as_used(network)).cpu().eval()
    images = images.cpu().float() if images.is_floating_point() else images.cpu()
    with torch.no_grad():
        expected = network(images)
    path = folder / FILES[kind]
    names = {} if class_names is None else {"class_names": json.dumps(list(class_names))}
    export = _onnx if kind == "onnx" else _torch_export
    logits = export(network, path, images, **names)
    difference = float((logits - expected).detach().abs().max())
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= limit:
        path.unlink()
        raise ExportDiffers(
            f"the {kind} file's logits differ from the network's by {difference:.2g}, more than {limit:.2g}"
        )
    return path, difference


def _dynamic(network: nn.Module) -> dict[int, torch.export.Dim]:
    further: Mapping[int, tuple[str, int]] = getattr(network, "dynamic", {})
    named = {axis: torch.export.Dim(name, min=1, max=largest) for axis, (name, largest) in further.items()}
    return {0: torch.export.Dim("batch"), **named}


def _onnx(network: nn.Module, path: Path, images: Tensor, class_names: str | None = None) -> Tensor:
    import onnx
    import onnxruntime

    inputs = "images" if images.dim() == 4 else "inputs"

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (images[:2],),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=[inputs],
            output_names=["logits"],
            dynamic_shapes=(_dynamic(network),),
            verbose=False,
        )
    if class_names is not None:
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {"class_names": class_names})
        onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {inputs: images.numpy()})
    return torch.from_numpy(logits)


def _torch_export(network: nn.Module, path: Path, images: Tensor, class_names: str | None = None) -> Tensor:
    program = torch.export.export(network, (images[:2],), dynamic_shapes=(_dynamic(network),))
    torch.export.save(program, path, extra_files=None if class_names is None else {"class_names.json": class_names})
    with torch.no_grad():
        logits = torch.export.load(path).module()(images)
    assert isinstance(logits, Tensor)
    return logits
