"""ruocwang/darts-pt: which operations and edges are kept, by loss and by accuracy, in both implementations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from nas.data.batches import Batch
from nas.errors import UnusableInput
from nas.evaluation.shared_weights import relaxed_weights, supernet_metrics
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.search.discretisation import Trained
from nas.search.removal import Decisions, Removal, RemovalOrder
from nas.spaces.darts.choices import CELLS, cell_edges, edge_name
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.supernet import DartsSupernet
from nas.spaces.space import Rivals
from replays.packed_darts import searched_darts
from replays.reference import (
    FORWARD,
    LARGEST_STEPS,
    ArrayFile,
    Comparison,
    Configuration,
    compared_absolutely,
    compared_equal,
)

Criterion = Literal["loss", "accuracy"]
CRITERIA: tuple[Criterion, ...] = ("loss", "accuracy")
OF_PLAIN = 2  # decisions: it is slow, and gives the same numbers


def replay_darts_pt(file: ArrayFile) -> Iterator[Comparison]:
    """Every number that the original compared, and what it chose; the first of them in the plain implementation too."""
    configuration = Configuration(file.json("config"))
    images, labels = file.tensor("x", dimensions=5).double(), file.tensor("y", dimensions=2)
    recorded: list[Criterion] = [criterion for criterion in CRITERIA if file.has(f"{criterion}/order")]
    queue = [Batch(*pair) for pair in zip(images, labels, strict=True)]
    for implementation in ("plain", "fast"):
        supernet = searched_darts(file, images.shape[2:], Softmax(Temperature()), implementation=implementation)
        relaxed = supernet_metrics(supernet, queue, relaxed_weights(supernet))
        found = torch.tensor([100 * relaxed["accuracy"], relaxed["loss"]], dtype=torch.float64)
        yield compared_absolutely(f"{implementation}/relaxed", found, file.tensor("relaxed_accuracy_and_loss"), FORWARD)
        ours, theirs = supernet.space.genotype(supernet.discretise()), _genotype(file, "alpha_genotype")
        yield compared_equal(f"{implementation}/alpha_genotype", _edges(ours), _edges(theirs))
        for criterion in recorded[:1] if implementation == "plain" else recorded:
            label, most = f"{implementation}/{criterion}", OF_PLAIN if implementation == "plain" else None
            order = _order(file.json(f"{criterion}/order"), configuration.whole("steps", LARGEST_STEPS))
            yield from _removed(file, label, supernet, queue, criterion, order, most)


def _removed(
    file: ArrayFile,
    label: str,
    supernet: DartsSupernet,
    queue: Sequence[Batch],
    criterion: Criterion,
    order: RemovalOrder,
    most: int | None,
) -> Iterator[Comparison]:
    """The first ``most`` decisions, or all and the genotype."""
    space = supernet.space
    harm = Removal(images=2, criterion=criterion).harm(Trained(supernet, supernet.space, lambda most: queue))
    measured: list[float] = []

    def noting(weights: Mapping[str, torch.Tensor]) -> float:
        measured.append(harm(weights))
        return measured[-1]

    decisions = Decisions(supernet, space, noting)
    names = _operations(file, criterion, space.operations)
    if most is None:
        genotype = space.genotype(decisions.made_in(order))
        theirs = _genotype(file, f"{criterion}/genotype")
        yield compared_equal(f"{label}/genotype", _edges(genotype), _edges(theirs))
    else:
        names = {row: names[row] for row in order.rows[:most]}
        for row in names:
            decisions.choose_option(row)
    yield compared_equal(f"{label}/operations", decisions.operations, names)
    reference = list(_compared_by_the_original(file.json(f"{criterion}/steps")[:most], criterion))
    found = torch.tensor(measured, dtype=torch.float64)
    yield compared_absolutely(f"{label}/numbers", found, torch.tensor(reference, dtype=torch.float64), FORWARD)


def _order(order: Any, steps: int) -> RemovalOrder:
    edges = cell_edges(steps)
    rows: list[str] = []
    rivals: list[Rivals] = []
    try:
        for position in range(len(edges)):
            rows += [edge_name(cell, *edges[order[cell]["edges"][position]]) for cell in CELLS]
        for position in range(len(order["normal"]["nodes"])):
            for cell in CELLS:
                node = order[cell]["nodes"][position]
                rivals.append(Rivals(tuple(edge_name(cell, node, source) for source in range(node)), 2))
    except (KeyError, IndexError, TypeError) as error:
        raise UnusableInput("it holds no order of edges and nodes.") from error
    return RemovalOrder(rows, rivals)


def _operations(file: ArrayFile, criterion: str, names: Sequence[str]) -> dict[str, str]:
    edges = cell_edges(Configuration(file.json("config")).whole("steps", LARGEST_STEPS))
    kept = file.json(f"{criterion}/operations")
    return {edge_name(cell, *edges[int(edge)]): names[place] for cell in CELLS for edge, place in kept[cell].items()}


def _genotype(file: ArrayFile, name: str) -> Genotype:
    return Genotype.from_mapping(file.json(name))


def _edges(genotype: Genotype) -> list[list[tuple[str, int]]]:
    """Per node its two edges, whichever comes first."""
    both = [genotype.normal, genotype.reduce]
    return [sorted(cell[place : place + 2]) for cell in both for place in range(0, len(cell), 2)]


def _compared_by_the_original(steps: list[Any], criterion: str) -> Iterator[float]:
    """The numbers in our order: of an edge's options, and once per edge of a node, which it measures several times."""
    for step in steps:
        numbers = step["accuracy_and_loss_without_each"]
        if step["kind"] == "edges":
            numbers = numbers[: step["node"]]
        for accuracy, loss in numbers:
            yield loss if criterion == "loss" else -accuracy / 100
