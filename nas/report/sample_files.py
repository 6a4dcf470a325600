"""What is kept of single test samples while a network is tested: predictions, or scores and a few to be looked at."""

import math
from collections.abc import Iterator
from heapq import nlargest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.report.drawing import save_drawing
from nas.report.predictions import PredictionsFile, evenly_spread, write_csv
from nas.report.sample_drawing import sample_sheets
from nas.report.shown_samples import MOST_CHANNELS, SAMPLES, ShownSamples, read_shown_samples, thinned
from nas.tasks import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = "scores.csv"
SPREAD, WORST = 4, 2  # samples that are shown


def sample_files(task: Task, splits: DataSplits) -> "PredictionsFile | PlacesFiles":
    """What keeps what ``task`` tells of single samples of the test part of ``splits``."""
    return PlacesFiles(task, splits) if task.signature.head == "dense" else PredictionsFile(task, splits)


def drawn_samples(folder: Path) -> Iterator[tuple[str, "Figure"]]:
    """The drawings, with a name each, of the samples of places that were kept in ``folder``; none where none were.

    Raises:
        ValueError: The file of samples cannot be read.
    """
    shown = read_shown_samples(folder / SAMPLES)
    return iter(()) if shown is None else sample_sheets(shown)


class PlacesFiles:
    """Takes in what a network says of the places of the test part, in its order, and writes how well it did.

    Every sample gets a row in :data:`SCORES`. Of the places themselves only those of a few samples are kept: of
    :data:`SPREAD` that are spread evenly over the test part, and of the :data:`WORST` with the worst main measure.

    Args:
        task: What the outputs mean.
        splits: The data, with targets as the task has them.
    """

    def __init__(self, task: Task, splits: DataSplits) -> None:
        self._task, self._splits = task, splits
        self._names = splits.test_samples or range(len(splits.test))
        self._spread, self._worst = evenly_spread(len(splits.test), SPREAD), list[int]()
        self._scores: list[list[float]] = []
        self._places: dict[int, tuple[Tensor, Tensor]] = {}
        self._spacing = 1

    def see(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in the next batch of the test part."""
        begin = len(self._scores)
        rows = zip(outputs.split(1), targets.split(1), strict=True)
        self._scores += [self._measured(output, target) for output, target in rows]
        self._worst = nlargest(WORST, [*self._worst, *range(begin, len(self._scores))], key=self._badness)
        chosen = [*self._spread, *self._worst]
        self._places = {place: kept for place, kept in self._places.items() if place in chosen}
        for place in chosen:
            row = slice(place - begin, place - begin + 1)
            found = self._task.places(outputs[row], targets[row]) if begin <= place < len(self._scores) else None
            if found is not None:
                self._places[place] = (self._kept(found[0]), self._kept(found[1]))

    def _measured(self, output: Tensor, target: Tensor) -> list[float]:
        """The measures of one sample; a measure of a user's own may need more of them, and is not known then."""
        metrics = self._task.metrics(target.device)
        try:
            metrics.update(output, target)
            values = metrics.compute()
        except Exception:
            return [math.nan] * len(self._task.measures)
        return [values[one.name] for one in self._task.measures]

    def _badness(self, place: int) -> float:
        value = self._scores[place][0]
        good = value if self._task.measures[0].better == "higher" else -value
        return -good if math.isfinite(value) else math.inf

    def _kept(self, places: Tensor) -> Tensor:
        kept, self._spacing = thinned(places[0], self._task.signature.rank)
        numbers = kept.is_floating_point()
        return kept[:MOST_CHANNELS].float().cpu() if numbers else kept.int().cpu()

    def write(self, folder: Path) -> list[tuple[str, "Figure"]]:
        """Write the scores into ``folder``, the samples that are shown, and drawings of these, which it returns."""
        told = ([f"{value:.6g}" if math.isfinite(value) else "" for value in values] for values in self._scores)
        rows = ((name, *values) for name, values in zip(self._names, told, strict=True))
        write_csv(folder / SCORES, ("sample", *(one.name for one in self._task.measures)), rows)
        if not self._places:
            return []
        shown = self._shown()
        shown.write(folder / SAMPLES)
        drawings = list(sample_sheets(shown))
        for name, figure in drawings:
            save_drawing(figure, folder / "figures" / name)
        return drawings

    def _shown(self) -> ShownSamples:
        order = [*self._spread, *(place for place in self._worst if place not in self._spread)]
        true, said = (torch.stack(pair).numpy() for pair in zip(*map(self._places.__getitem__, order), strict=True))
        main, names, channels = self._task.measures[0], self._task.output_names(self._splits), self._splits.input_shape
        plain = (0.0,) * channels[0], (1.0,) * channels[0]  # inputs as the data have them, with white at 1
        batches = self._splits.test.select(torch.tensor(order)).evaluation_batches(len(order), *plain)
        inputs = torch.cat([batch.inputs for batch in batches])
        # Three channels are red, green and blue; of two, the second is no colour.
        first = inputs[:, : MOST_CHANNELS if channels[0] >= MOST_CHANNELS or self._task.signature.rank == 1 else 1]
        classes = true.dtype == np.int32
        return ShownSamples(
            sample=np.array([str(self._names[place]) for place in order]),
            score=np.array([f"{main.words} {main.told(self._scores[place][0])}" for place in order]),
            worst=np.array([place in self._worst for place in order]),
            input=thinned(first, self._task.signature.rank)[0].float().numpy(),
            target=true,
            prediction=said,
            names=np.array(names if classes else names[:MOST_CHANNELS]),
            channels=channels[0],
            targets=1 if classes else len(names),
            spacing=self._spacing,
        )
