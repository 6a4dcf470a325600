"""Why this architecture: what each decision was up against, when it fell for good, and what it is worth when measured.

Margins and times come from the recorded probabilities. What a decision is worth is measured in the supernet: the rows
of alpha in which the found architecture and the one with the runner-up differ are set to either, all others stay
relaxed as the search left them, and both are measured on the same validation images. Batch norm uses each batch's
statistics, as in the search's upper level: its running ones belong to the mixture.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from nas.candidate import Architecture
from nas.data.batch import Batch, first_images
from nas.data.dataset import DataSplits
from nas.evaluation.shared_weights import relaxed_weights, supernet_metrics
from nas.report.recorded_run import RecordedRun, number
from nas.run.atomic_write import write_atomically
from nas.spaces.space import Probabilities, RunnerUp, SearchSpace
from nas.spaces.supernet import Supernet

SCHEMA = 1
MOST_IMAGES = 2000


@dataclass(frozen=True)
class Decision:
    """One choice of the found architecture.

    Attributes:
        choice, option: What was chosen.
        runner_up: What would have been next, or None where the record does not say.
        margin: The probability of the option minus that of the runner-up.
        decided: The step since which it has not changed, or None where the record does not say.
        effect: The validation accuracy with the runner-up minus the one without, in the supernet, or None.
        loss_effect: The same of the validation loss.
        retrained_effect: The same of the accuracy after a short retraining of both, or None.
    """

    choice: str
    option: str
    runner_up: str | None = None
    margin: float | None = None
    decided: int | None = None
    effect: float | None = None
    loss_effect: float | None = None
    retrained_effect: float | None = None


def decisions(run: RecordedRun) -> list[Decision]:
    """Every choice of the run's candidate, with what is on record about it; none without a candidate."""
    if run.found is None:
        return []
    space, found = run.found.space, run.found.candidate.architecture
    history = list(run.probability_history())
    alternatives = runner_ups(space, found, history[-1][1]) if history else {}
    since = decided_since(space, found, history)
    measured = run.explanation.get("choices")
    measured = measured if isinstance(measured, dict) else {}
    rows = []
    for choice in space.choices:
        other = alternatives.get(choice.name)
        effects = measured.get(choice.name)
        # What was measured against another runner-up, say before the search went on, is no longer the answer.
        known = isinstance(effects, dict) and other is not None and effects.get("runner_up") == other.option
        values = effects if known else {}
        assert isinstance(values, dict)
        rows.append(
            Decision(
                choice.name,
                found[choice.name],
                other.option if other else None,
                other.margin if other else None,
                since.get(choice.name),
                number(values.get("accuracy_effect")),
                number(values.get("loss_effect")),
                number(values.get("retrained_accuracy_effect")),
            )
        )
    return rows


@dataclass(frozen=True)
class ObservedOption:
    """An option among the candidates that a black-box search has evaluated: how many had it, their mean accuracy."""

    option: str
    count: int
    accuracy: float


def observed_options(run: RecordedRun) -> dict[str, list[ObservedOption]]:
    """Per choice of the run's candidate the options that were evaluated with an accuracy, best first."""
    if run.found is None:
        return {}
    observed: dict[str, list[ObservedOption]] = {}
    for choice in run.found.space.choices:
        accuracies: dict[str, list[float]] = {}
        for one in run.evaluations:
            option = one.options.get(choice.name)
            if option in choice.options and "accuracy" in one.metrics:
                accuracies.setdefault(option, []).append(one.metrics["accuracy"])
        options = [ObservedOption(option, len(some), fmean(some)) for option, some in accuracies.items()]
        observed[choice.name] = sorted(options, key=lambda one: -one.accuracy)
    return observed


def runner_ups(space: SearchSpace, architecture: Architecture, probabilities: Probabilities) -> dict[str, RunnerUp]:
    """Per choice what would have been next; none where there is no other, or where the table is of another space."""
    found = {}
    for choice in space.choices:
        try:
            other = space.runner_up(choice.name, architecture, probabilities)
        except KeyError:
            continue
        if other is not None:
            found[choice.name] = other
    return found


def decided_since(
    space: SearchSpace, architecture: Architecture, history: Iterable[tuple[int, Probabilities]]
) -> dict[str, int]:
    """Per choice the first recorded step since which the preferred architecture agrees with ``architecture``."""
    since: dict[str, int] = {}
    for step, probabilities in history:
        try:
            then = space.preferred(probabilities)
        except KeyError:
            return {}
        for choice in space.choices:
            if space.agree(choice.name, architecture, then):
                since.setdefault(choice.name, step)
            else:
                since.pop(choice.name, None)
    return since


def discretisation_gap(
    supernet: Supernet, architecture: Architecture, batches: Callable[[], Iterable[Batch]]
) -> dict[str, Any]:
    """The relaxed supernet against ``architecture`` inside it, before any retraining, on the same images."""
    return {
        "schema": SCHEMA,
        "supernet": supernet_metrics(supernet, batches(), relaxed_weights(supernet)),
        "discretised": supernet_metrics(supernet, batches(), supernet.architecture_weights(architecture)),
    }


def write_discretisation_gap(folder: Path, supernet: Supernet, architecture: Architecture, splits: DataSplits) -> None:
    """Measure :func:`discretisation_gap` on at most :data:`MOST_IMAGES` validation images, into the run folder."""
    device = next(supernet.parameters()).device
    gap = discretisation_gap(supernet, architecture, lambda: validation_batches(splits, MOST_IMAGES, device))
    write_atomically(folder / "discretisation.json", (json.dumps(gap, indent=2) + "\n").encode())


def validation_batches(splits: DataSplits, images: int, device: torch.device) -> Iterator[Batch]:
    """The first batches of the validation split, up to ``images`` images."""
    return first_images(splits.validation.to(device).evaluation_batches(256, splits.mean, splits.std), images)


def swap_effects(
    supernet: Supernet,
    architecture: Architecture,
    alternatives: Mapping[str, RunnerUp],
    batches: Callable[[], Iterable[Batch]],
    progress: Callable[[str], None] = lambda choice: None,
) -> dict[str, dict[str, Any]]:
    """Per choice the validation metrics in the supernet with the option and with its runner-up.

    Args:
        supernet: As the search left it.
        architecture: What was found.
        alternatives: Per choice its runner-up.
        batches: Gives the same validation batches at every call.
        progress: Told each choice before it is measured.
    """
    relaxed, chosen = relaxed_weights(supernet), supernet.architecture_weights(architecture)
    effects: dict[str, dict[str, Any]] = {}
    for choice, other in alternatives.items():
        progress(choice)
        swapped = supernet.architecture_weights(other.architecture)
        with_option, with_other = {}, {}
        for name, weights in relaxed.items():
            differs = (chosen[name] != swapped[name]).any(-1, keepdim=True)
            with_option[name] = torch.where(differs, chosen[name], weights)
            with_other[name] = torch.where(differs, swapped[name], weights)
        option_metrics = supernet_metrics(supernet, batches(), with_option)
        other_metrics = supernet_metrics(supernet, batches(), with_other)
        effects[choice] = {
            "runner_up": other.option,
            "option": option_metrics,
            "swapped": other_metrics,
            "accuracy_effect": other_metrics["accuracy"] - option_metrics["accuracy"],
            "loss_effect": other_metrics["loss"] - option_metrics["loss"],
        }
    return effects
