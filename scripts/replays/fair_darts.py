"""FairDARTS, of xiaomi-automl/FairDARTS: a supernet of sigmoids, the zero-one losses, and the ways to read a cell."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.bilevel.regulariser import ZeroOne
from nas.errors import UnusableInput
from nas.relaxations.sigmoid import Sigmoid
from nas.search.discretisation import Trained
from nas.search.threshold import Threshold, at_least
from nas.spaces.darts.choices import CELLS
from nas.spaces.darts.supernet import DartsSupernet
from nas.spaces.space import Probabilities
from replays.packed_darts import searched_darts
from replays.packed_nasbench201 import batch_of
from replays.reference import FORWARD, ArrayFile, Comparison, compared_absolutely, compared_equal


def replay_fair_darts(file: ArrayFile) -> Iterator[Comparison]:
    """The plain and the fast supernet with both losses, and the cells."""
    images, labels = batch_of(file)
    for implementation in ("plain", "fast"):
        way = f" ({implementation})"
        relaxation = Sigmoid()
        supernet = searched_darts(file, images.shape[1:], relaxation, implementation=implementation)
        alphas = dict(supernet.alpha.items())

        def against(entry: str, ours: Tensor, way: str = way) -> Comparison:
            return compared_absolutely(f"{entry}{way}", ours, file.tensor(entry), FORWARD)

        def gradients(
            entry: str, of: Tensor, alphas: dict[str, torch.nn.Parameter] = alphas, way: str = way
        ) -> Iterator[Comparison]:
            found = torch.autograd.grad(of, list(alphas.values()), retain_graph=True, materialize_grads=True)
            for name, gradient in zip(alphas, found, strict=True):
                key = f"{entry}/alphas_{name}"
                yield compared_absolutely(f"{key}{way}", gradient, file.tensor(key), FORWARD)

        logits = supernet(images)
        loss = F.cross_entropy(logits, labels)
        yield against("logits", logits)
        yield against("cross_entropy", loss)
        yield from gradients("grad_cross_entropy", loss)
        for norm in ("l2", "l1"):
            weight = float(file.tensor(f"{norm}/weight", 0))
            zero_one = ZeroOne(1.0, 1.0, norm)(alphas, relaxation, 0.0)  # type: ignore[arg-type]
            total = loss + ZeroOne(weight, weight, norm)(alphas, relaxation, 0.0)  # type: ignore[arg-type]
            yield against(f"{norm}/zero_one_loss", zero_one)
            yield against(f"{norm}/total_loss", total)
            yield from gradients(f"{norm}/grad_total", total)
            yield from gradients(f"{norm}/grad_zero_one", weight * zero_one)  # the file has it at its weight
    yield from _cells(file, supernet)
    yield from _cells_at_thresholds(file, searched_darts(file, images.shape[1:], Sigmoid(), optional_edges=True))


def _cells(file: ArrayFile, supernet: DartsSupernet) -> Iterator[Comparison]:
    """The cells of DARTS' own rule."""
    genotype = supernet.space.genotype(supernet.discretise())
    for entry in sorted(name for name in file.arrays if name.startswith("genotype/darts_")):
        theirs = file.json(entry)
        if not isinstance(theirs, dict):
            raise UnusableInput(f"its entry {entry} is no object.")
        ours = {cell: [list(edge) for edge in getattr(genotype, cell)] for cell in CELLS}
        yield compared_equal(entry, ours, {cell: theirs.get(cell) for cell in CELLS})


def _cells_at_thresholds(file: ArrayFile, supernet: DartsSupernet) -> Iterator[Comparison]:
    """The cells of both rules that keep what is at least a threshold."""
    probabilities = supernet.probabilities()
    for entry in sorted(name for name in file.arrays if name.startswith("genotype/threshold_")):
        way, threshold = entry.removeprefix("genotype/threshold_").split("_")
        if way == "sparse":
            architecture = Threshold(float(threshold)).choose(Trained(supernet, supernet.space, lambda _: []))
            genotype = supernet.space.genotype(architecture)
            cells = {
                cell: [
                    [operation, place // 2 + 2, source]
                    for place, (operation, source) in enumerate(getattr(genotype, cell))
                    if operation != "none"
                ]
                for cell in CELLS
            }
        else:
            cells = {cell: _of_every_edge(probabilities, cell, float(threshold)) for cell in CELLS}
        yield compared_equal(entry, cells, {cell: file.json(entry).get(cell) for cell in CELLS})


def _of_every_edge(probabilities: Probabilities, cell: str, threshold: float) -> list[list[object]]:
    """Up to two operations of every edge, the larger one last; the file's other way, which no network here has."""
    found: list[list[object]] = []
    for row, options in probabilities.items():
        kind, node, source = row.split(".")
        if kind == cell:
            kept = {name: weight for name, weight in at_least(options, threshold, 2).items() if weight > 0}
            places = int(node.removeprefix("node")), int(source.removeprefix("from"))
            found += [[name, *places] for name in sorted(kept, key=kept.__getitem__)]
    return found
