"""A step leaves nothing behind: however many are taken, no more is held in memory than after the first few."""

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from torch import Tensor, nn

from nas.bilevel import (
    BilevelOptimiser,
    BilevelProblem,
    ByKind,
    ConjugateGradient,
    Exact,
    FiniteDifference,
    ForwardAccumulation,
    Hypergradient,
    LastStep,
    NeumannSeries,
    Report,
)
from nas.data.batches import Batch
from tests.problems import ADAM


@dataclass(frozen=True)
class Hoarding(Hypergradient):
    """As exact, but every loss is kept with its graph, as a list of losses for a curve keeps them."""

    losses: list[Tensor] = field(default_factory=list, compare=False)

    def gradients(
        self, problem: BilevelProblem, training: Batch, validation: Batch, targets: Sequence[nn.Parameter]
    ) -> Report:
        loss, _ = problem.validation_loss(problem.weights(), validation)
        self.losses.append(loss)
        return Exact().gradients(problem, training, validation, targets)


class Mark:
    """Hangs on a node of a graph, and lives as long as it."""

    def __call__(self, *_: Any) -> None: ...


def graphs_after_each_step(
    architecture: Hypergradient,
    hypergradient: Hypergradient,
    problem: BilevelProblem,
    make_batch: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> list[int]:
    """How many nodes of the graphs of all losses live after each of a few steps."""
    marks: weakref.WeakSet[Mark] = weakref.WeakSet()

    def marking(loss_of: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
        def marked(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
            loss, logits = loss_of(*arguments, **named)
            seen, waiting = set(), [loss.grad_fn]
            while waiting:
                node = waiting.pop()
                if node is None or node in seen or node.name() == "torch::autograd::AccumulateGrad":
                    continue
                seen.add(node)
                mark = Mark()
                marks.add(mark)
                node.register_hook(mark)
                waiting.extend(following for following, _ in node.next_functions)
            return loss, logits

        return marked

    for name in ("training_pass", "validation_loss"):
        monkeypatch.setattr(problem, name, marking(getattr(problem, name)))
    bilevel = BilevelOptimiser(problem, architecture, hypergradient, ADAM)
    counts = []
    for number in range(3):
        bilevel.step(make_batch(number), make_batch(10 + number), bilevel.requests(True, number % 2 == 0))
        gc.collect()
        counts.append(len(marks))
    return counts


@pytest.mark.parametrize(
    "hypergradient",
    [
        Exact(),
        LastStep(),
        ForwardAccumulation(horizon=3),
        ForwardAccumulation(horizon=None),
        NeumannSeries(),
        ConjugateGradient(),
        FiniteDifference(),
        ByKind(Exact(), NeumannSeries()),
    ],
    ids=lambda one: type(one).__name__,
)
def test_no_step_leaves_a_graph_or_a_tensor_behind(
    hypergradient: Any, make_problem: Any, make_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = hypergradient if "architecture" in hypergradient.reaches else Exact()
    hyperparameters = hypergradient if "loss" in hypergradient.reaches else Exact()
    counts = graphs_after_each_step(architecture, hyperparameters, make_problem(), make_batch, monkeypatch)
    # The layers keep the value of dropout that they were given last, with its way from the raw parameter.
    assert max(counts) <= 3, counts


def test_a_graph_that_is_kept_would_be_seen(
    make_problem: Any, make_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypergradient = Hoarding()
    counts = graphs_after_each_step(hypergradient, hypergradient, make_problem(), make_batch, monkeypatch)
    assert 0 < counts[0] < counts[1] < counts[2]
