"""The searches of ``benchmark_truth.py``: which methods there are, what each is told beforehand, how they are run.

Every method runs live, in this code and on the problem's own data. Prior knowledge is the same for both kinds:

- a black-box method searches in the *wide* ranges, those of the truth, or in those that an *expert* would write; its
  first candidate has the configuration's initial hyperparameters, which is what the gradient search begins with;
- a gradient search begins at these (*default*), or at random values of the wide or of the expert ranges.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from cached_runs import SEARCH_SOURCES, TRAINING_SOURCES, Run, Search, composed, plain
from make_truth import Problem, problem_of, trained_row

import train_search
from nas.candidate import Candidate, Domain, Range
from nas.errors import RunFailed, UnusableInput
from nas.evaluation.evaluation import Cost, EvaluationCache
from nas.evaluation.truth import Truth
from nas.run.randomness import Randomness

Prior = Literal["default", "expert", "wide"]
PRIORS: tuple[Prior, ...] = ("default", "expert", "wide")
Unit = Literal["samples", "multiply_adds", "seconds"]
COLUMNS: dict[Unit, str] = {"samples": "samples", "multiply_adds": "multiply_adds", "seconds": "cpu_seconds"}
"""What a truth calls a training's cost in each unit."""

# What somebody writes who knows such networks; by the beginning of a hyperparameter's name.
EXPERT: dict[str, tuple[float, float]] = {
    "learning_rate": (0.003, 0.3),
    "weight_decay": (1e-5, 1e-3),
    "momentum": (0.7, 0.95),
    "rate_factor": (1 / 3, 3.0),
    "dropout_layer": (0.0, 0.3),
    "dropout": (0.0, 0.5),
    "drop_path": (0.0, 0.3),
    "label_smoothing": (0.0, 0.1),
    "cutout": (0.0, 0.4),
    "mixing": (0.0, 0.4),
}
CAPS = {"dropout": 0.5, "drop_path": 0.4, "dropout_layer": 0.5}  # of conf/hyperparameters: what candidates may carry

FULL, SHORT = "evaluation.epochs=${final.epochs}", "evaluation.epochs=2"
COMMON = ("objective=minus_loss", "method.enqueue=initial", "budget.evaluations=null")
BLACK_BOXES: dict[str, tuple[str, ...]] = {
    "random": ("method=random", "method.strategy.batch=1", FULL),
    "genetic": ("method=genetic", "method.strategy.population=8", "method.strategy.elite=1", FULL),
    "evolution": ("method=evolution", "method.strategy.population=8", FULL),
    "mu_plus_lambda": ("method=mu_plus_lambda", "method.strategy.parents=3", "method.strategy.children=6", FULL),
    "reinforce": ("method=reinforce", "method.strategy.batch=2", FULL),
    "tpe": ("method=tpe", "method.strategy.startup=6", "method.strategy.storage=null", FULL),
    "random_short": ("method=random", "method.strategy.batch=1", SHORT),
    "tpe_short": ("method=tpe", "method.strategy.startup=6", "method.strategy.storage=null", SHORT),
    "evolution_short": ("method=evolution", "method.strategy.population=8", SHORT),
    "autohas": ("method=autohas", "method.steps=1000000"),
    "hyperband": ("method=hyperband", FULL, "evaluation.rungs=[1,3]"),
}
WHOLE = (
    "discretisation=alone",
    "search.architecture_every=1",
    "search.half_resolution=0",
    "search.architecture.rate=0.03",
)
LAST_STEP = ("method=gradient", "hypergradient@hyperparameters.gradient=last_step", *WHOLE)
MIXTURES = (
    "hyperparameters.learning_rate.basis=8",
    "hyperparameters.learning_rate.update={_target_:nas.hyperparameters.AdamUpdate,rate:0.1}",
    "hyperparameters.dropout.basis=8",
)
GRADIENTS: dict[str, tuple[str, ...]] = {
    "joint": (),  # the configuration's own
    "fixed": ("hypergradient@hyperparameters.gradient=none", "method=gradient"),
    "exact": ("method=tuned", "hypergradient@hyperparameters.gradient=exact", *WHOLE, "search.epochs=10"),
    "last_step": (*LAST_STEP, "search.epochs=10"),
    "short": (*LAST_STEP, "search.epochs=3", "discretisation.images=200"),
    "neighbours": ("method=neighbours",),
    "autohas_mixture": (*LAST_STEP, "search.epochs=10", *MIXTURES),  # AutoHAS in its differentiable form
}


@dataclass(frozen=True)
class Arm:
    """A method with what it is told beforehand."""

    method: str
    prior: Prior

    @property
    def is_gradient(self) -> bool:
        return self.method not in BLACK_BOXES

    @property
    def is_cut(self) -> bool:
        """Whether one long search serves all budgets, cut where each of them ends: its candidates stand in a row."""
        return not self.is_gradient and self.method != "autohas"

    def __str__(self) -> str:
        told = {"default": "", "expert": " (expert start)", "wide": " (random start)"}
        ranges = {"expert": " (expert)", "wide": " (wide)"}
        return self.method + (told[self.prior] if self.is_gradient else ranges[self.prior])


def arms_of(names: Sequence[str], priors: Sequence[Prior]) -> list[Arm]:
    """Every method with every prior that makes sense for it: ranges have no defaults, fixed values no random start.

    ``method@prior`` is that one arm.
    """
    found = []
    for name in names:
        method, _, only = name.partition("@")
        own = [prior for prior in priors if prior != "default"] if method in BLACK_BOXES else list(priors)
        if method == "fixed":
            own = ["default"]
        found += [Arm(method, prior) for prior in ([one for one in PRIORS if one == only] if only else own)]
    return list(dict.fromkeys(found))


def expert_range(name: str, domain: Domain) -> tuple[float, float] | None:
    """The range that an expert would write, within the wide one; None where nothing is known of ``name``."""
    known = [one for one in EXPERT if name.startswith(one)]
    if not known or not isinstance(domain, Range):
        return None
    low, high = EXPERT[max(known, key=len)]
    return max(low, domain.low), min(high, domain.high)


def overrides_of(arm: Arm, truth: Truth, seed: int, more: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What makes this method of the problem's own configuration.

    Args:
        more: Further gradient searches by name.
    """
    ranges = {name: one for name, one in truth.space.ranges.items() if isinstance(one, Range)}
    entries = truth.configuration["hyperparameters"]
    if not arm.is_gradient:
        narrow = expert_overrides(ranges, entries) if arm.prior == "expert" else ()
        return (*BLACK_BOXES[arm.method], *COMMON, *narrow)
    own = {**GRADIENTS, **more}[arm.method]
    if arm.method == "fixed":
        own = (*own, *(f"hyperparameters.{name}.learn=false" for name in ranges))
    if arm.prior == "wide":
        return (*own, *start_overrides({name: (one.low, one.high) for name, one in ranges.items()}, ranges, seed))
    caps = tuple(
        f"hyperparameters.{name}.cap={CAPS[known]}"
        for name in ranges
        for known in [max((one for one in CAPS if name.startswith(one)), key=len, default="")]
        if known and entries[name].get("cap") is not None
    )
    if arm.prior == "default":
        return (*own, *caps)
    narrow_ranges = {name: expert_range(name, one) or (one.low, one.high) for name, one in ranges.items()}
    return (*own, *caps, *start_overrides(narrow_ranges, ranges, seed))


def expert_overrides(ranges: Mapping[str, Range], entries: Mapping[str, Any]) -> tuple[str, ...]:
    found: list[str] = []
    for name, wide in ranges.items():
        narrow = expert_range(name, wide)
        if narrow is not None:
            end = "high" if entries[name].get("cap") is None else "cap"
            found += [f"hyperparameters.{name}.low={narrow[0]}", f"hyperparameters.{name}.{end}={narrow[1]}"]
    return tuple(found)


def start_overrides(
    bounds: Mapping[str, tuple[float, float]], ranges: Mapping[str, Range], seed: int
) -> tuple[str, ...]:
    """Initial values drawn by ``seed``, uniformly on each scale: what a black-box method's first candidate would be."""
    generator = Randomness(seed, torch.device("cpu")).on_cpu("start")
    found = []
    for name, (low, high) in bounds.items():
        place = float(torch.rand((), generator=generator, dtype=torch.float64))
        found.append(f"hyperparameters.{name}.initial={Range(low, high, ranges[name].scale).from_unit(place)!r}")
    return tuple(found)


@cache
def problem(overrides: tuple[str, ...]) -> Problem:
    """Read once in each process."""
    return problem_of(composed(overrides, 0))


@dataclass(frozen=True)
class LiveSearch(Search):
    """One search with its cost; of a black-box method every evaluation with its own."""

    sources = (*SEARCH_SOURCES, "baselines")

    def computed(self, folder: Path) -> dict[str, Any]:
        clock, processor = time.perf_counter(), time.process_time()
        try:
            result, found, _ = train_search.search(composed(self.overrides, self.seed), folder)
        except (RunFailed, FloatingPointError, UnusableInput) as error:  # or the budget pays for no evaluation
            return {"failure": str(error)}
        # A search keeps the clock; what others do on the machine is none of its cost.
        share = (time.process_time() - processor) / (time.perf_counter() - clock)

        def priced(cost: Cost, seconds: float) -> dict[str, float]:
            return {"samples": cost.samples, "multiply_adds": cost.multiply_adds, "seconds": share * seconds}

        evaluations = [
            [one.candidate.to_json(), one.metrics["loss"], priced(one.cost, one.cost.seconds)]
            for one in EvaluationCache(folder / "evaluations.jsonl")
        ]
        cost = priced(result.cost, result.seconds)
        return {"candidate": found.candidate.to_json(), "cost": cost, "evaluations": evaluations}


@dataclass(frozen=True)
class Row(Run):
    """A candidate trained as a row of the truth is.

    Args:
        overrides: Those of the truth's own configuration.
        candidate: The candidate's JSON text.
    """

    sources = (*TRAINING_SOURCES, "evaluation")
    overrides: tuple[str, ...]
    candidate: str
    seed: int

    def depends_on(self) -> Any:
        settings = plain(composed(self.overrides, 0))
        return [self.candidate, {group: settings[group] for group in ("data", "space", "training", "final")}, self.seed]

    def computed(self, folder: Path) -> dict[str, Any]:
        candidate = Candidate.from_json(json.loads(self.candidate))
        own = problem(self.overrides)
        row = trained_row(own, candidate, 0, 0, self.seed, own.epochs)  # nobody reads its curve
        return dict(row.results)
