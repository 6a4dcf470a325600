"""liamcli/gaea_release: exponentiated gradient on the simplex, for operations and edges, with and without entropy."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nas.bilevel.exponentiated_gradient import ExponentiatedGradient, exponentiated
from nas.bilevel.regulariser import Entropy
from nas.errors import UnusableInput
from nas.relaxations.simplex import Simplex
from replays.reference import (
    FORWARD,
    LARGEST_DEPTH,
    LARGEST_STEPS,
    ArrayFile,
    Comparison,
    Configuration,
    compared_absolutely,
)

CELLS = ("normal", "reduce")


def replay_gaea(file: ArrayFile) -> Iterator[Comparison]:
    """Every step of the update, and the floor before and after the division."""
    configuration = Configuration(file.json("config"))
    for prefix, weight in (("", 0.0), ("entropy_", configuration.number("entropy_weight"))):
        yield from _steps(file, configuration, prefix, weight)
    rows = file.tensor("floor/input", 2)
    rule, still = ExponentiatedGradient(), torch.zeros_like(rows)
    before = exponentiated(rows, still, rule.rate, rule.floor, "before")
    yield compared_absolutely("floor/clamp_then_normalise", before, file.tensor("floor/clamp_then_normalise"), FORWARD)
    after = exponentiated(rows, still, rule.rate, rule.floor, "after")
    yield compared_absolutely("floor/normalise_then_clamp", after, file.tensor("floor/normalise_then_clamp"), FORWARD)


def _steps(file: ArrayFile, configuration: Configuration, prefix: str, weight: float) -> Iterator[Comparison]:
    nodes = [node + 2 for node in range(configuration.whole("nodes", LARGEST_DEPTH))]
    rule = ExponentiatedGradient(configuration.number("lr"), configuration.number("edge_lr"))
    alphas = {}
    for cell in CELLS:
        alphas[cell] = nn.Parameter(file.tensor(f"{prefix}initial/alphas_{cell}", 2))
        edges = _of_nodes(file.tensor(f"{prefix}initial/edges_{cell}", 1), nodes)
        alphas |= {_edges(cell, node): nn.Parameter(edge) for node, edge in zip(nodes, edges, strict=True)}
    optimiser, entropy = rule.over(alphas), Entropy(weight, weight)
    for step in range(configuration.whole("steps", LARGEST_STEPS)):
        for cell in CELLS:
            alphas[cell].grad = file.tensor(f"{prefix}gradients/alphas_{cell}", 3)[step]
            slopes = _of_nodes(file.tensor(f"{prefix}gradients/edges_{cell}", 2)[step], nodes)
            for node, slope in zip(nodes, slopes, strict=True):
                alphas[_edges(cell, node)].grad = slope
        if weight:
            added = torch.autograd.grad(entropy(alphas, Simplex(), 0.0), list(alphas.values()), materialize_grads=True)
            for alpha, slope in zip(alphas.values(), added, strict=True):
                assert alpha.grad is not None
                alpha.grad = alpha.grad + slope
        optimiser.step()
        for cell in CELLS:
            edges = torch.cat([alphas[_edges(cell, node)] for node in nodes])
            for name, ours in ((f"alphas_{cell}", alphas[cell]), (f"edges_{cell}", edges)):
                reference = file.tensor(f"{prefix}after/{name}")
                yield compared_absolutely(f"{prefix}after/{name}, step {step + 1}", ours, reference[step], FORWARD)


def _edges(cell: str, node: int) -> str:
    return f"{cell}_node{node}_edges"


def _of_nodes(edges: Tensor, nodes: list[int]) -> tuple[Tensor, ...]:
    if len(edges) != sum(nodes):
        raise UnusableInput(f"it has {len(edges)} edges, and its nodes have {sum(nodes)}.")
    return edges.split(nodes)
