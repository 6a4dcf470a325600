"""Why this architecture: the runner-up of each decision, the time of the decision, and the effect of a swap.

Margins and times come from the recorded probabilities. The effect is measured in the supernet: the found architecture
and the architecture with the runner-up differ in some rows of alpha. These rows are set to the one and to the other,
all other rows stay relaxed as the search left them, and both are measured on the same validation images. Batch norm
uses the statistics of each batch, as in the search's upper level, since its running statistics belong to the mixture.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from nas.candidate import Architecture
from nas.data.batches import Batch, first_images
from nas.data.data_splits import DataSplits
from nas.evaluation.shared_weights import relaxed_weights, supernet_metrics
from nas.report.recorded_run import RecordedRun, number
from nas.run.checkpoint import write_atomically
from nas.spaces.space import Probabilities, RunnerUp, SearchSpace
from nas.spaces.supernet import Supernet
from nas.tasks import Measure, Task

SCHEMA = 1
MOST_IMAGES = 2000


@dataclass(frozen=True)
class Decision:
    """A choice of the found architecture.

    Attributes:
        choice, option: The choice and its chosen option.
        runner_up: The next best option, or None if unknown.
        margin: The probability of the option minus the probability of the runner-up, or None if unknown.
        decided: The step since which the choice has not changed, or None if unknown.
        effect: The change of the supernet's main measure on the validation split if the runner-up replaces the option,
            or None if not measured.
        retrained_effect: The same change after a short retraining of both.
    """

    choice: str
    option: str
    runner_up: str | None = None
    margin: float | None = None
    decided: int | None = None
    effect: float | None = None
    retrained_effect: float | None = None


def decisions(run: RecordedRun) -> list[Decision]:
    """Every choice of the run's candidate with the records about it; empty without a candidate."""
    if run.found is None:
        return []
    space, found = run.found.space, run.found.candidate.architecture
    history = list(run.probability_history())
    alternatives = runner_ups(space, found, history[-1][1]) if history else {}
    since = decided_since(space, found, history)
    measured, main = run.explanation.get("choices"), run.task.main.name
    rows = []
    for choice in space.choices:
        other = alternatives.get(choice.name)
        effects = measured.get(choice.name) if isinstance(measured, dict) else None
        # A measurement against another runner-up is out of date: the search has gone on since.
        if not isinstance(effects, dict) or other is None or effects.get("runner_up") != other.option:
            effects = {}
        rows.append(
            Decision(
                choice.name,
                found[choice.name],
                other.option if other else None,
                other.margin if other else None,
                since.get(choice.name),
                number(effects.get(f"{main}_effect")),
                number(effects.get(f"retrained_{main}_effect")),
            )
        )
    return rows


def change_in_words(measure: Measure, change: float) -> str:
    """``change`` of a measure with its sign: in points of a share, in the measure's unit otherwise."""
    return f"{100 * change:+z.2f}" if measure.unit == "%" else f"{'+' if change >= 0 else ''}{measure.told(change)}"


@dataclass(frozen=True)
class ObservedOption:
    """An option in a black-box search: the number of evaluated candidates with it, the mean of their main measure."""

    option: str
    count: int
    mean: float


def observed_options(run: RecordedRun) -> dict[str, list[ObservedOption]]:
    """The options of each choice in candidates that were evaluated with the main measure, best first."""
    if run.found is None:
        return {}
    main = run.task.main
    observed: dict[str, list[ObservedOption]] = {}
    for choice in run.found.space.choices:
        found: dict[str, list[float]] = {}
        for one in run.evaluations:
            option = one.options.get(choice.name)
            if option in choice.options and main.name in one.metrics:
                found.setdefault(option, []).append(one.metrics[main.name])
        options = [ObservedOption(option, len(some), fmean(some)) for option, some in found.items()]
        observed[choice.name] = sorted(options, key=lambda one: one.mean, reverse=main.better == "higher")
    return observed


def runner_ups(space: SearchSpace, architecture: Architecture, probabilities: Probabilities) -> dict[str, RunnerUp]:
    """The runner-up of each choice that has one; none if the probabilities belong to another space."""
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
    """The first recorded step of each choice since which the preferred architecture agrees with ``architecture``."""
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
    supernet: Supernet, architecture: Architecture, batches: Callable[[], Iterable[Batch]], task: Task
) -> dict[str, Any]:
    """The metrics of the relaxed supernet and of ``architecture`` inside it, without retraining, on the same images."""
    return {
        "schema": SCHEMA,
        "supernet": supernet_metrics(supernet, batches(), relaxed_weights(supernet), task, measures=True),
        "discretised": supernet_metrics(
            supernet, batches(), supernet.architecture_weights(architecture), task, measures=True
        ),
    }


def write_discretisation_gap(
    folder: Path, supernet: Supernet, architecture: Architecture, splits: DataSplits, task: Task
) -> None:
    """Write :func:`discretisation_gap` on at most :data:`MOST_IMAGES` validation images into the run folder."""
    device = next(supernet.parameters()).device
    gap = discretisation_gap(supernet, architecture, lambda: validation_batches(splits, MOST_IMAGES, device), task)
    write_atomically(folder / "discretisation.json", (json.dumps(gap, indent=2) + "\n").encode())


def validation_batches(splits: DataSplits, images: int, device: torch.device) -> Iterator[Batch]:
    """The first batches of the validation split, up to ``images`` images."""
    return first_images(splits.validation.to(device).evaluation_batches(256, splits.mean, splits.std), images)


def swap_effects(
    supernet: Supernet,
    architecture: Architecture,
    alternatives: Mapping[str, RunnerUp],
    batches: Callable[[], Iterable[Batch]],
    task: Task,
    progress: Callable[[str], None] = lambda choice: None,
) -> dict[str, dict[str, Any]]:
    """The supernet's validation metrics for each choice with its option and with its runner-up.

    Args:
        supernet: The supernet as the search left it.
        architecture: The found architecture.
        alternatives: The runner-up of each choice.
        batches: A function that gives the same validation batches at every call.
        task: What the outputs mean.
        progress: A function that is called with each choice before the measurement.
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
        option_metrics = supernet_metrics(supernet, batches(), with_option, task, measures=True)
        other_metrics = supernet_metrics(supernet, batches(), with_other, task, measures=True)
        effects[choice] = {
            "runner_up": other.option,
            "option": option_metrics,
            "swapped": other_metrics,
            **{
                f"{name}_effect": other_metrics[name] - option_metrics[name] for name in (task.measures[0].name, "loss")
            },
        }
    return effects
