"""A trained network as a file for other programs: ONNX or PyTorch's exported program, checked against the network."""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.candidate import Architecture
from nas.configuration import is_own
from nas.data.data_splits import DataSplits
from nas.errors import InvalidValue, RunFailed, UnusableInput
from nas.evaluation.network_cost import as_used
from nas.interop.recurrent_export import OneStep, loop_in_cells
from nas.interop.standalone import standalone_source
from nas.operations.memory import Remembers
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
            space, architecture, splits.mean, splits.std, title, splits.class_names, splits.preparation, task
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
    except UnusableInput:
        raise
    except Exception as error:  # a user's own network may have what cannot be traced
        if not is_own(type(space)):
            raise
        reason = " ".join(str(error).split())[:200]
        told = f"{type(network).__name__} cannot be exported to {kind} ({type(error).__name__}: {reason})"
        raise RunFailed(f"{told}; the result is in {folder}") from error
    if not quiet:
        what = "images" if images.dim() == 4 else "samples"
        log.info(f"exported, logits within {difference:.1g} on {len(images)} test {what}: {exported}")


def export_network(
    network: nn.Module, kind: ExportKind, folder: Path, images: Tensor, class_names: Sequence[str] | None = None
) -> tuple[Path, float]:
    """Write ``network`` into ``folder`` and run the file on ``images``.

    The file takes images (batch, channels, height, width) of any batch size, named ``images``, and gives ``logits``;
    other inputs are named ``inputs``. A network with an attribute ``dynamic`` (axis to name and largest size) takes
    other sizes along these axes, too. Of a network with a memory one step is written, to be called token by token:
    ``token`` (batch,) and ``state`` (batch, width), zeros in front of a text, to ``logits`` (batch, vocabulary) and
    ``next_state``.

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
    if isinstance(network, Remembers):
        logits = _by_steps(network, kind, path, images)
    else:
        loop_in_cells(network)
        logits = (_onnx if kind == "onnx" else _torch_export)(network, path, images, **names)
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


Run = Callable[..., Sequence[Tensor]]
Shapes = Sequence[Mapping[int, torch.export.Dim]]


def _onnx(network: nn.Module, path: Path, images: Tensor, class_names: str | None = None) -> Tensor:
    inputs = "images" if images.dim() == 4 else "inputs"
    run = _onnx_file(network, path, {inputs: images[:2]}, ["logits"], (_dynamic(network),), class_names)
    return run(images)[0]


def _torch_export(network: nn.Module, path: Path, images: Tensor, class_names: str | None = None) -> Tensor:
    return _torch_file(network, path, {"inputs": images[:2]}, ["logits"], (_dynamic(network),), class_names)(images)[0]


def _by_steps(network: Remembers, kind: ExportKind, path: Path, tokens: Tensor) -> Tensor:
    """Write one step of ``network``, and run the file over ``tokens`` (batch, length)."""
    write = _onnx_file if kind == "onnx" else _torch_file
    state = network.initial_state(len(tokens))
    example, batch = {"token": tokens[:2, 0], "state": state[:2]}, {0: torch.export.Dim("batch")}
    run = write(OneStep(network), path, example, ["logits", "next_state"], (batch, batch))
    logits = []
    for token in tokens.unbind(1):
        found, state = run(token, state)
        logits.append(found)
    return torch.stack(logits, 1)


def _onnx_file(
    network: nn.Module,
    path: Path,
    example: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Shapes,
    class_names: str | None = None,
) -> Run:
    """Write the file, and give what runs it.

    Args:
        network: What is exported.
        path: Of the file.
        example: Inputs of two samples by the names that they get.
        outputs: What is called what.
        dynamic: Of each input the axes that may have other sizes.
        class_names: Kept in the file.
    """
    import onnx
    import onnxruntime

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(example.values()),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_shapes=tuple(dynamic),
            verbose=False,
        )
    if class_names is not None:
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {"class_names": class_names})
        onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> list[Tensor]:
        given = {name: one.numpy() for name, one in zip(example, inputs, strict=True)}
        return [torch.from_numpy(one) for one in session.run(list(outputs), given)]

    return run


def _torch_file(
    network: nn.Module,
    path: Path,
    example: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Shapes,
    class_names: str | None = None,
) -> Run:
    """As :func:`_onnx_file`; inputs and outputs have places and no names."""
    program = torch.export.export(network, tuple(example.values()), dynamic_shapes=tuple(dynamic))
    extra_files = None if class_names is None else {"class_names.json": class_names}
    with warnings.catch_warnings():  # of kernels with the channels innermost; the logits of the file are checked
        warnings.filterwarnings("ignore", "No complete tensor found in the group")
        torch.export.save(program, path, extra_files=extra_files)
    module = torch.export.load(path).module()

    @torch.no_grad()
    def run(*inputs: Tensor) -> Sequence[Tensor]:
        found = module(*inputs)
        return (found,) if isinstance(found, Tensor) else found

    return run
