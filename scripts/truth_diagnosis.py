"""Where a gradient search loses it: what alpha, ``alone`` and ``removal`` choose against what is truly best.

The truth of one choice is its marginal effect: the surrogate's mean log validation loss over the truth's own candidates
with each option in turn. What a rule *gives away* is the effect of its first option less that of the best. Chance gives
away the mean over the options. All numbers come from the supernet at the end of a search.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cached_runs import composed
from scipy.stats import spearmanr
from surrogate_optimum import predicted, proposals
from truth_instrument import Budget, Instrument
from truth_runs import Arm, LiveSearch

import train_search
from nas.candidate import Candidate, Hyperparameters, Range
from nas.data.batches import Batch, first_images
from nas.data.data_splits import DataSplits
from nas.errors import RunFailed
from nas.evaluation.shared_weights import relaxed_weights, supernet_metrics
from nas.evaluation.surrogate import Surrogate
from nas.report.tables import comparison_table, mean_and_deviation, print_table
from nas.search.discretisation import alpha_places, has_own_rows, with_row
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet

IMAGES = 500  # validation images per option
NETWORKS = 150  # random architectures whose one-hot losses are ranked
RULES = ("alpha", "alone", "removal")
HYPERPARAMETERS = 2000  # random values, among which the best for a network is looked for


@dataclass(frozen=True)
class DiagnosedSearch(LiveSearch):
    """A gradient search, and what its supernet says of every option and of random architectures."""

    def computed(self, folder: Path) -> dict[str, Any]:
        try:
            result, found, parts = train_search.search(composed(self.overrides, self.seed), folder)
            splits = parts.splits
        except (RunFailed, FloatingPointError) as error:
            return {"failure": str(error)}
        supernet, space = result.supernet, found.space
        if supernet is None or not has_own_rows(supernet, space):
            return {"candidate": found.candidate.to_json(), "options": {}, "one_hot": []}
        options = losses_of_options(supernet, space, lambda: validation_batches(splits))
        one_hot = [
            supernet_metrics(supernet, validation_batches(splits), supernet.architecture_weights(one.architecture))
            for one in random_architectures(space)
        ]
        losses = [one["loss"] for one in one_hot]
        return {"candidate": found.candidate.to_json(), "options": options, "one_hot": losses}


def validation_batches(splits: DataSplits) -> list[Batch]:
    """The first ``IMAGES`` validation images."""
    return list(first_images(splits.validation.evaluation_batches(250, splits.mean, splits.std), IMAGES))


def random_architectures(space: SearchSpace) -> list[Candidate]:
    generator = torch.Generator().manual_seed(0)
    return [space.sample(generator) for _ in range(NETWORKS)]


def losses_of_options(
    supernet: Supernet, space: SearchSpace, batches: Callable[[], list[Batch]]
) -> dict[str, dict[str, list[float]]]:
    """By choice and option: minus alpha's probability, the loss with the option alone, minus the loss without it.

    Each is lowest for the option that its rule takes. All other choices stay relaxed; without an option the others keep
    their weights (Wang et al., 2021).
    """
    weights, rows, probabilities = relaxed_weights(supernet), alpha_places(supernet), supernet.probabilities()
    found: dict[str, dict[str, list[float]]] = {}
    for choice in space.choices:
        place, one_hot = rows[choice.name], torch.eye(len(choice.options))
        present = weights[place[0]].view(-1, len(choice.options))[place[1]]
        found[choice.name] = {}
        for index, option in enumerate(choice.options):
            alone = with_row(weights, place, one_hot[index])
            without = with_row(weights, place, present * (1 - one_hot[index]))
            found[choice.name][option] = [
                -probabilities[choice.name][option],
                supernet_metrics(supernet, batches(), alone)["loss"],
                -supernet_metrics(supernet, batches(), without)["loss"],
            ]
    return found


def given_away(effects: Mapping[str, float], ranked: Mapping[str, float]) -> tuple[bool, float]:
    """Whether the option that ``ranked`` puts first (lowest) is truly best, and what it gives away."""
    chosen = min(ranked, key=ranked.__getitem__)
    return chosen == min(effects, key=effects.__getitem__), effects[chosen] - min(effects.values())


def diagnose(
    instrument: "Instrument",
    surrogate: Surrogate,
    arms: Sequence[Arm],
    budgets: Sequence["Budget"],
    seeds: Sequence[int],
) -> None:
    """Print the tables, for the largest of the budgets that are counted in passes."""
    budget = max(budgets, key=lambda one: (one.unit != "seconds", one.unit == "multiply_adds", one.trainings))
    space = surrogate.truth.space
    effects = {
        choice.name: surrogate.partial_dependence(choice.name) for choice in space.choices if len(choice.options) > 1
    }
    optimum = float(predicted(surrogate, proposals(surrogate, 1))[0])
    for arm in arms:
        runs = [
            DiagnosedSearch(one.overrides, one.seed) for one in (instrument.search(arm, seed, budget) for seed in seeds)
        ]
        results = instrument.results(runs, f"{arm}: diagnosis")
        known = [one for one in results if one is not None and "failure" not in one]
        if not known:
            continue
        if not known[0]["options"]:
            print(f"{arm}: the choices of {space.name} share their alphas: what its rules choose is not compared")
        else:
            print_table(choice_table(f"{arm}: choices, {len(known)} searches, {budget}", effects, known))
            print(rank_line(surrogate, known))
        print(hyperparameter_line(surrogate, known, optimum))


def choice_table(title: str, effects: Mapping[str, Mapping[str, float]], results: Sequence[Mapping[str, Any]]) -> Any:
    rows = []
    sums: dict[str, list[float]] = {rule: [0.0] * len(results) for rule in RULES}
    chance = 0.0
    for choice, effect in effects.items():
        cells = []
        for place, rule in enumerate(RULES):
            ranked = [{option: values[place] for option, values in one["options"][choice].items()} for one in results]
            outcomes = [given_away(effect, one) for one in ranked]
            sums[rule] = [sum_ + lost for sum_, (_, lost) in zip(sums[rule], outcomes, strict=True)]
            right = statistics.fmean(good for good, _ in outcomes)
            cells.append(f"{right:.2f} / {statistics.fmean(lost for _, lost in outcomes):.3f}")
        mean = statistics.fmean(effect.values()) - min(effect.values())
        chance += mean
        best = min(effect, key=effect.__getitem__)
        rows.append((choice, best, f"{max(effect.values()) - min(effect.values()):.3f}", *cells, f"{mean:.3f}"))
    total = [mean_and_deviation(sums[rule], 3) for rule in RULES]
    rows.append(("all choices", "", "", *total, f"{chance:.3f}"))
    columns = ("", "truly best", "spread", *(f"{rule}: right / gives away" for rule in RULES), "chance gives away")
    return comparison_table(title, columns, rows)


def rank_line(surrogate: Surrogate, results: Sequence[Mapping[str, Any]]) -> str:
    """How the supernet's losses of single architectures rank what the surrogate says of them."""
    correlations = []
    for one in results:
        values = whole(surrogate, one["candidate"]).hyperparameters
        candidates = [Candidate(each.architecture, values) for each in random_architectures(surrogate.truth.space)]
        correlations.append(float(spearmanr(one["one_hot"], predicted(surrogate, candidates)).statistic))
    return f"rank correlation of {NETWORKS} one-hot losses with the truth: {mean_and_deviation(correlations, 2)}"


def hyperparameter_line(surrogate: Surrogate, results: Sequence[Mapping[str, Any]], optimum: float) -> str:
    """What the learned hyperparameters give away for their network, and what the network does at its best ones."""
    space = surrogate.truth.space
    generator = torch.Generator().manual_seed(1)
    drawn = [space.sample(generator).hyperparameters for _ in range(HYPERPARAMETERS)]
    by_values, by_network = [], []
    for one in results:
        found = whole(surrogate, one["candidate"])
        (own,) = predicted(surrogate, [found])
        best = float(predicted(surrogate, [Candidate(found.architecture, values) for values in drawn]).min())
        by_values.append(float(own) - min(best, float(own)))
        by_network.append(min(best, float(own)) - optimum)
    values = [whole(surrogate, one["candidate"]).hyperparameters for one in results]
    learned = ", ".join(
        f"{name} {geometric(domain, [one[name] for one in values]):.3g}" for name, domain in space.ranges.items()
    )
    return (
        f"log loss given away by the hyperparameters {mean_and_deviation(by_values, 3)}, by the architecture "
        f"{mean_and_deviation(by_network, 3)}; learned on average: {learned}"
    )


def whole(surrogate: Surrogate, content: Mapping[str, Any]) -> Candidate:
    """The candidate with the initial value of what it does not carry because it is at rest."""
    found, entries = Candidate.from_json(content), surrogate.truth.configuration["hyperparameters"]
    initial = {name: float(entries[name]["initial"]) for name in surrogate.truth.space.ranges}
    return Candidate(found.architecture, Hyperparameters(initial | dict(found.hyperparameters)))


def geometric(domain: Any, values: Sequence[float]) -> float:
    """The mean on the hyperparameter's own scale."""
    if isinstance(domain, Range):
        return domain.from_unit(statistics.fmean(domain.to_unit(value) for value in values))
    return statistics.fmean(values)
