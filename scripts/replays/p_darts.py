"""chenxin061/pdarts: which operations go on from stage to stage, and the cells with at most so many skips."""

import math
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch

from nas.errors import UnusableInput
from nas.search.few_skips import with_few_skips
from nas.search.staged import kept_options
from nas.signature import Signature
from nas.spaces.darts.choices import CELLS, cell_edges, edge_name
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.space import Darts
from replays.reference import Comparison, compared_equal

STEPS = 4


def is_p_darts(content: Mapping[str, Any]) -> bool:
    return {"stages", "operations", "num_to_keep"} <= content.keys()


def replay_p_darts(content: Mapping[str, Any]) -> Iterator[Comparison]:
    """Every stage's choice from its recorded alphas."""
    try:
        operations, stages = content["operations"], content["stages"]
        for stage, keep in zip(stages, content["num_to_keep"], strict=True):
            probabilities = _probabilities(stage, operations)
            if "kept" in stage:
                ours = kept_options(probabilities, keep)
                theirs = {row: tuple(operations[place] for place in kept) for row, kept in _rows(stage["kept"]).items()}
                yield compared_equal(f"stage {stage['stage']}/kept", ours, theirs)
            for found in stage.get("genotypes", []):
                yield _genotype(found, probabilities, operations)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise UnusableInput("it holds no stages of P-DARTS.") from error


def _rows(of_cells: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What is listed edge by edge, by the names of alpha's rows."""
    edges = cell_edges(STEPS)
    named = [(edge_name(cell, *edge), of_cells[cell][row]) for cell in CELLS for row, edge in enumerate(edges)]
    return dict(named)


def _probabilities(stage: Mapping[str, Any], operations: Sequence[str]) -> dict[str, dict[str, float]]:
    live, alphas = _rows(stage["live_operations"]), _rows(stage["alphas"])
    found = {}
    for row, places in live.items():
        shares = torch.tensor(alphas[row], dtype=torch.float64).softmax(0).tolist()
        found[row] = {operations[place]: share for place, share in zip(places, shares, strict=True)}
    return found


def _genotype(
    found: Mapping[str, Any], probabilities: Mapping[str, Mapping[str, float]], operations: Sequence[str]
) -> Comparison:
    space = Darts(operations=operations, steps=STEPS, signature=Signature((3, 32, 32), 10))
    most = found["max_skips"] if isinstance(found["max_skips"], int) else math.inf
    ours = space.genotype(with_few_skips(space, _ranked(probabilities), most))
    theirs = [[(name, source) for name, source in found[cell]] for cell in CELLS]
    return compared_equal(f"genotype/{found['max_skips']} skips", _nodes(ours), _sorted_nodes(theirs))


def _ranked(probabilities: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Instead of each probability its rank among all, the later of equal ones behind; only the order counts here.

    Of equal edges, and of equal operations, the original keeps the later one; the package keeps the earlier one.
    """
    named = [(share, row, name) for row, options in probabilities.items() for name, share in options.items()]
    ranked: dict[str, dict[str, float]] = {row: dict.fromkeys(options, 0.0) for row, options in probabilities.items()}
    for rank, (_, row, name) in enumerate(sorted(named, key=itemgetter(0)), start=1):  # it leaves equals in their order
        ranked[row][name] = float(rank)
    return ranked


def _nodes(genotype: Genotype) -> list[list[tuple[str, int]]]:
    return _sorted_nodes([genotype.normal, genotype.reduce])


def _sorted_nodes(cells: Sequence[Sequence[tuple[str, int]]]) -> list[list[tuple[str, int]]]:
    """Per node its two edges, whichever comes first."""
    return [sorted(cell[place : place + 2]) for cell in cells for place in range(0, len(cell), 2)]
