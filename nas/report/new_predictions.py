"""``python -m nas.report predict``: what a trained network says of new samples, whose truth may be known or not."""

import io
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from nas.configuration import build
from nas.data.data_splits import DataSplits
from nas.data.new_samples import NewSamples, TakesNewSamples
from nas.data.own_files import path_of
from nas.errors import InvalidValue, UnusableInput, keys_below, listed, require
from nas.interop.places_source import values_of_masks
from nas.interop.trained_network import FILE, WEIGHTS, TrainedNetwork
from nas.report.outcome import samples_in_words
from nas.report.predictions import write_predictions
from nas.run.checkpoint import make_folder, write_atomically
from nas.run.environment import checked_device
from nas.run.overrides import parse_override
from nas.run.recorded import command_for, recorded_configuration
from nas.tasks import Prediction, Task, restored_task
from nas.training.memory import outputs_and_targets

log = logging.getLogger(__name__)
BATCH = 256  # samples, as the test part is read: the same rows get the same digits
READ_BY = ("data.csv.", "data.text_column", "data.x", "data.y")  # what settings of new data begin with
PLACES_BATCH = 4  # samples with outputs as large as they are


def write_new_predictions(
    folder: Path, data: str, output: Path | None = None, overwrite: bool = False, settings: Sequence[str] = ()
) -> str:
    """Write what the network that was retrained in ``folder`` says of the samples in ``data``.

    Nothing is fitted: the samples are prepared by what was measured on the training part. Targets that the data have
    stand beside the predictions, and are measured on.

    Args:
        folder: A run folder whose candidate was retrained, or the folder of the retraining.
        data: A file or a folder of the kind of the run's own data.
        output: What is written: a CSV file; for masks of pictures a folder, for other places an ``.npz`` file. None
            names it after the data, in the working directory.
        overwrite: Whether it may be there already.
        settings: How the new data are read where they differ from the run's own, such as ``data.csv.separator=;``.

    Returns:
        How much was written where, as a sentence.

    Raises:
        InvalidValue: ``folder`` has no retraining, or ``output`` is there.
        UnusableInput: The data cannot be read, or are not like those of the training.
    """
    folder, path = _retraining(folder), path_of(data)
    trained = TrainedNetwork.read(folder)
    found = trained.found
    task = restored_task(found.task, found.space.signature)
    source = build(_as_read(folder, settings).data, "data")
    if not isinstance(source, TakesNewSamples):
        own = "data=table, images, arrays, time_series and text"
        raise UnusableInput(f"New samples are read as {own} read theirs, and {folder} was trained on {found.data}.")
    if not path.exists():
        raise UnusableInput(f"{data} is not there.")
    of_places, masks = task.signature.head == "dense", found.preparation.get("mask_values") is not None
    ending = "" if masks else ".npz" if of_places else ".csv"
    stem = path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem
    output = output or Path(f"{stem}_predictions{ending}")
    require(output.resolve() != path.resolve(), "--output", output, "it is the new data")
    require(overwrite or not output.exists(), "--output", output, "it is there: name another one, or say --overwrite")
    require(output.parent.is_dir(), "--output", output, "its folder is not there")
    require(output.is_dir() == masks or not output.exists(), "--output", output, "it is no file, or no folder")
    with keys_below("data"):
        new = source.new_samples(path, found.preparation)
    _refuse_other_shape(path, new, task)
    splits = _as_splits(trained, new)
    device = checked_device("auto")
    network = trained.network(folder).to(device).eval()
    told = ""
    if of_places:
        (_write_masks if masks else _write_arrays)(output, _places(network, task, splits, device), splits)
    else:
        rows, told = _predicted(network, task, _with_targets(task, new, splits), device)
        write_predictions(output, rows)
    words, count = samples_in_words(task.signature), len(new.samples)
    return f"predicted {count:,} {words.removesuffix('s') if count == 1 else words}{told}: {output}"


def _retraining(folder: Path) -> Path:
    """``folder``, or ``final`` in it: where a trained network is.

    Raises:
        InvalidValue: It is in neither.
    """
    for one in (folder, folder / "final"):
        if (one / WEIGHTS).is_file() and (one / FILE).is_file():
            return one
    allowed = "it must be a run folder whose candidate train_final.py has retrained"
    if any((one / WEIGHTS).is_file() for one in (folder, folder / "final")):
        allowed = f"its network was trained when there was no {FILE} yet: retrain its candidate into another folder"
    elif (folder / "final" / ".hydra").is_dir():
        allowed = f"its retraining has not ended: {command_for('train_final.py', 'resume', folder / 'final')}"
    elif (folder / "candidate.json").is_file():
        allowed = f"its candidate is not retrained yet: {command_for('train_final.py', 'candidate', folder)}"
    raise InvalidValue("run folder", folder, allowed)


def _as_read(folder: Path, settings: Sequence[str]) -> DictConfig:
    """The configuration of the run in ``folder`` with ``settings`` of how its data are read."""
    config = recorded_configuration(folder)
    for one in settings:
        override = parse_override(one)
        name, value = override.get_key_element(), override.value()
        allowed = "only data.csv.*, data.text_column, data.x and data.y say how new data are read"
        require(name.startswith(READ_BY) and not override.is_sweep_override(), name, value, allowed)
        OmegaConf.update(config, name, value)
    return config


def _refuse_other_shape(path: Path, new: NewSamples, task: Task) -> None:
    own, wanted = ("x".join(map(str, one)) for one in (new.dataset.input_shape, task.signature.input_shape))
    if own != wanted:
        raise UnusableInput(f"{path.name} has samples of {own}, and the network takes {wanted}, its channels first.")


def _as_splits(trained: TrainedNetwork, new: NewSamples) -> DataSplits:
    """The new samples as the test part of data that are called as those of the training were."""
    found, data = trained.found, new.dataset
    names = {"class_names": found.class_names, "target_names": trained.target_names, "test_samples": new.samples}
    return DataSplits(found.data, data, data, data, trained.mean, trained.std, **names)  # type: ignore[arg-type]


def _with_targets(task: Task, new: NewSamples, splits: DataSplits) -> DataSplits:
    """``splits`` with the targets that the new data have; what the task has no word for is told, and is not known."""
    names = task.output_names(splits)
    columns = 1 if task.output == "class" else len(names)
    cells = new.cells if new.cells is not None and len(new.cells) == columns else [[""] * len(new.samples)] * columns
    targets = task.read_targets(cells, names)
    known = _known(targets).view(len(targets), -1).T.tolist()
    pairs = [pair for column, there in zip(cells, known, strict=True) for pair in zip(column, there, strict=True)]
    if strange := [str(cell) for cell, there in pairs if not there and str(cell).strip()]:
        what = f"{len(strange):,} target{'s' * (len(strange) > 1)} that the training has no word for"
        log.info(f"{what}, taken as not known: {listed(list(dict.fromkeys(strange)))}")
    data = new.dataset.with_targets(targets)
    return replace(splits, train=data, validation=data, test=data)


def _known(targets: Tensor) -> Tensor:
    """Which of ``targets``, class numbers or other numbers, are known."""
    return targets.isfinite() if targets.is_floating_point() else targets >= 0


@torch.no_grad()
def _predicted(
    network: nn.Module, task: Task, splits: DataSplits, device: torch.device
) -> tuple[list[tuple[str | int, Prediction]], str]:
    """What is said of each sample, and how well, as a part of a sentence; nothing of that where no truth is known."""
    rows: list[tuple[str | int, Prediction]] = []
    seen: list[tuple[Tensor, Tensor]] = []
    samples = iter(splits.test_samples)
    batches = splits.test.to(device).evaluation_batches(BATCH, splits.mean, splits.std)
    for outputs, targets in outputs_and_targets(network, batches, device):
        found = task.predictions(outputs, targets, splits)
        rows += [(sample, one) for several, sample in zip(found, samples, strict=False) for one in several]
        known = _known(targets).flatten(1).all(1) if targets.dim() > 1 else _known(targets)
        seen.append((outputs[known], targets[known]))
    count = sum(len(targets) for _, targets in seen)
    if not count:
        return rows, ""
    metrics = task.metrics(device)
    metrics.update(*(torch.cat(one) for one in zip(*seen, strict=True)))
    measured = metrics.compute()
    if not all(map(math.isfinite, measured.values())):  # R2 of one row, precision of a label that is nowhere there
        return rows, f", too few to measure on the {count:,} whose target is known"
    return rows, f", {task.told(measured)} on the {count:,} whose target is known"


@torch.no_grad()
def _places(network: nn.Module, task: Task, splits: DataSplits, device: torch.device) -> Iterator[Tensor]:
    """What is said of the places of each sample: classes, or numbers in their own units."""
    batches = splits.test.to(device).evaluation_batches(PLACES_BATCH, splits.mean, splits.std)
    for outputs, targets in outputs_and_targets(network, batches, device):
        found = task.places(outputs, targets)
        assert found is not None
        yield from found[1].cpu()


def _write_masks(folder: Path, places: Iterator[Tensor], splits: DataSplits) -> None:
    """A picture for each, of the same name, with the values or colours that the masks of the training have."""
    values = _values(splits.class_names or ())
    names = [Path(str(name)) for name in splits.test_samples]
    alike = Counter(name.with_suffix("") for name in names)  # a.png and a.tif are two pictures
    for name, classes in zip(names, places, strict=True):
        single = alike[name.with_suffix("")] == 1
        file = folder / (name.with_suffix(".png") if single else name.with_name(f"{name.name}.png"))
        make_folder(file.parent)
        content = io.BytesIO()
        Image.fromarray(np.asarray(values[classes.numpy()])).save(content, "PNG")
        write_atomically(file, content.getvalue())


def _values(names: Sequence[str]) -> np.ndarray[Any, Any]:
    """(classes,) grey values or (classes, 3) colours; the numbers of classes that are called otherwise."""
    values = np.array(values_of_masks(names) or [(number,) for number in range(len(names))])
    kind = np.uint8 if values.min() >= 0 and values.max() <= 255 else np.uint16 if values.min() >= 0 else np.int32
    return values.astype(kind) if values.shape[1] > 1 else values[:, 0].astype(kind)


def _write_arrays(file: Path, places: Iterator[Tensor], splits: DataSplits) -> None:
    """All in one ``.npz`` file: ``prediction``, ``sample`` and, of classes, their ``names``."""
    content, names = io.BytesIO(), {} if splits.class_names is None else {"names": np.array(splits.class_names)}
    arrays = {"prediction": torch.stack([*places]).numpy(), "sample": np.array(splits.test_samples), **names}
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_atomically(file, content.getvalue())
