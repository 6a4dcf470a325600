"""Coarse to fine: which candidates are tried, who leads, and a search that ends in it."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import train_search
from nas.candidate import Architecture, Candidate, Hyperparameters, Range
from nas.errors import InvalidValue
from nas.evaluation.evaluation import Evaluation, EvaluationCache
from nas.search.coarse_to_fine import Lead, Steps
from nas.search.trainings import Trainer, Trainings
from tests.killing import killed_before_a_training

RATE = "learning_rate"
RANGES = {RATE: Range(1e-4, 0.5, "log"), "dropout": Range(0.0, 0.9, "logit")}
STEPS = Steps({RATE: 0.01, "dropout": 0.3}, coarse=6.0, fine=2.0, margin=0.1)
CONF = Path(__file__).resolve().parents[2] / "conf"
Loss = Callable[[Candidate], float]


def at(rate: float, dropout: float) -> Candidate:
    return Candidate(Architecture("macro", {}), Hyperparameters({RATE: rate, "dropout": dropout}))


def bowl(rate: float, dropout: float, width: float = 1.0) -> Loss:
    """A loss that is 1 at the optimum and grows with the distance from it, of the learning rate on a log scale."""

    def loss(candidate: Candidate) -> float:
        values = candidate.hyperparameters
        return 1 + (math.log(values[RATE] / rate) / width) ** 2 + 4 * (values["dropout"] - dropout) ** 2

    return loss


def tried(
    loss: Loss, found: Candidate, most: int = 99, steps: Steps = STEPS, ranges: dict[str, Range] = RANGES
) -> tuple[Lead, list[Candidate]]:
    trials: list[Candidate] = []

    def measured(candidate: Candidate) -> float | None:
        if len(trials) == most:
            return None
        trials.append(candidate)
        return loss(candidate)

    return steps.lead(found, ranges, measured), trials


@pytest.mark.parametrize("rate", [1e-4, 2e-3, 0.05, 0.45, 0.5])
@pytest.mark.parametrize("dropout", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("optimum", [0.001, 0.03, 0.1])
def test_a_rate_that_is_decades_off_is_repaired(rate: float, dropout: float, optimum: float) -> None:
    lead, trials = tried(bowl(optimum, 0.2), at(rate, dropout))
    assert (
        abs(math.log(lead.candidate.hyperparameters[RATE] / optimum)) < math.log(6.0) / 2 + 0.1
    )  # half a coarse step, and the margin
    assert abs(lead.candidate.hyperparameters["dropout"] - 0.2) <= 0.25
    assert len(trials) == len(set(trials)) <= 10  # nothing is trained twice
    assert not lead.cut_short


def test_the_order_from_a_start_that_is_far_too_low() -> None:
    lead, trials = tried(bowl(0.05, 0.3), at(2e-4, 0.7))
    rates = [one.hyperparameters[RATE] for one in trials]
    assert rates == pytest.approx([2e-4, 0.01, 0.06, 0.36, 0.06, 0.12, 0.03])
    dropouts = [one.hyperparameters["dropout"] for one in trials]
    assert dropouts == pytest.approx([0.7, 0.3, 0.3, 0.3, 0.5, 0.3, 0.3])  # the fifth goes back half the way
    assert lead.candidate == trials[2]


def test_good_learned_values_stay_and_cost_little() -> None:
    lead, trials = tried(
        bowl(0.08, 0.25, width=3.0), at(0.04, 0.3)
    )  # the optimum of short trainings is a little higher
    assert lead.candidate == trials[0] == at(0.04, 0.3)
    rates = [one.hyperparameters[RATE] for one in trials]
    assert rates == pytest.approx([0.04, 0.01, 0.24])


def test_all_others_move_together() -> None:
    names = [f"rate_factor_{kind}" for kind in ("convolution", "dense", "normalisation")]
    ranges = {**RANGES, **{name: Range(0.1, 10.0, "log") for name in names}}
    steps = replace(STEPS, usual={**STEPS.usual, **dict.fromkeys(names, 1.0)})
    found = Candidate(
        Architecture("macro", {}), Hyperparameters({RATE: 0.03, "dropout": 0.3, **dict.fromkeys(names, 9.0)})
    )
    lead, trials = tried(lambda one: 1 + abs(math.log(one.hyperparameters[names[0]])), found, 99, steps, ranges)
    assert {tuple(one.hyperparameters[name] for name in names) for one in trials} == {
        (9.0,) * 3,
        (1.0,) * 3,
        (3.0,) * 3,
    }
    assert lead.candidate.hyperparameters[names[2]] == 1.0


@pytest.mark.parametrize(("best", "expected"), [(0.1, 0.1), (0.0, 0.0)])
def test_what_is_left_to_trainings_is_tried_once(best: float, expected: float) -> None:
    found = Candidate(Architecture("macro", {}), Hyperparameters({RATE: 0.03, "dropout": 0.3, "label_smoothing": 0.0}))
    ranges = {**RANGES, "label_smoothing": Range(0.0, 0.4)}
    trials: list[Candidate] = []

    def measured(candidate: Candidate) -> float:
        trials.append(candidate)
        return (
            1
            + abs(math.log(candidate.hyperparameters[RATE] / 0.03))
            + 3 * abs(candidate.hyperparameters["label_smoothing"] - best)
        )

    lead = STEPS.lead(found, ranges, measured, {"label_smoothing": 0.1})
    assert lead.candidate.hyperparameters["label_smoothing"] == expected
    assert [one.hyperparameters["label_smoothing"] for one in trials].count(0.1) >= 1
    assert trials[0] == found


def test_the_defaults_are_kept_inside_the_ranges() -> None:
    steps = replace(STEPS, usual={RATE: 3.0, "dropout": 0.3})
    _, trials = tried(bowl(0.1, 0.3), at(0.01, 0.3), 2, steps)
    assert trials[1] == at(0.5, 0.3)


def test_what_breaks_off_never_leads_and_a_broken_start_is_left() -> None:
    lead, _ = tried(lambda one: math.inf if one.hyperparameters[RATE] > 0.02 else 1.0, at(0.45, 0.3))
    assert lead.candidate == at(0.01, 0.3)
    lead, _ = tried(lambda one: math.inf, at(0.45, 0.3))
    assert lead.candidate == at(0.45, 0.3)


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_with_few_trainings_the_best_so_far_leads(most: int) -> None:
    lead, trials = tried(bowl(0.06, 0.3), at(1e-3, 0.3), most)
    expected = [at(1e-3, 0.3), at(1e-3, 0.3), at(0.01, 0.3), trials[-1] if trials else None]
    assert lead.candidate == expected[most]
    assert lead.cut_short


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"usual": {}}, "usual="),
        ({"usual": {RATE: math.nan}}, "usual.learning_rate="),
        ({"fine": 1.0}, "fine="),
        ({"coarse": 1.5}, "coarse="),
        ({"margin": 1.0}, "margin="),
    ],
)
def test_refused_settings(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{sentence}"):
        replace(STEPS, **change)  # type: ignore[arg-type]


def small_search(*more: str) -> DictConfig:
    overrides = ["experiment=debug", "method=coarse_to_fine", "method.epochs=1", "method.trials=3", "search.epochs=1"]
    overrides += ["search.warmup_epochs=0", "hypergradient@hyperparameters.gradient=last_step"]
    overrides += ["data.split={train:64,validation:32,test:300}", "training.batch_size=16"]
    overrides += ["hyperparameters.learning_rate.initial=1e-4"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        quiet = ("tracking.console=quiet", "tracking.tensorboard=false", "device=cpu")
        return compose("train_search", [*overrides, *more, *quiet])


def test_a_search_ends_in_it_within_its_budget_and_goes_on_between_two_trainings(tmp_path: Path) -> None:
    whole, found, _ = train_search.search(small_search(), tmp_path / "rich")
    kept = list(EvaluationCache(tmp_path / "rich" / "coarse_to_fine.jsonl"))
    assert len(kept) == 3
    assert whole.candidate == found.candidate
    assert whole.remarks["coarse to fine"].endswith("after 3 short trainings")
    assert whole.metrics["samples"] == whole.cost.samples > sum(trial.cost.samples for trial in kept)

    limit = whole.cost.samples - kept[-1].cost.samples  # pays for two of the three trainings
    config = small_search(f"budget.samples={limit}")
    poor = killed_before_a_training(lambda folder: train_search.search(config, folder)[0], 2, tmp_path)
    assert len(list(EvaluationCache(tmp_path / "whole" / "coarse_to_fine.jsonl"))) == 2
    assert poor.cost.samples <= limit
    assert poor.settled[RATE] == "its short trainings ended before all steps were tried"


@pytest.mark.parametrize(
    ("rate", "more", "made"),
    [(0.01, (), 0), (1e-4, (), 3), (0.01, ("method.from_usual=true",), 3), (0.01, ("method.usual.dropout=0.8",), 3)],
)
def test_it_can_leave_alone_what_began_at_the_usual_values(
    rate: float, more: tuple[str, ...], made: int, tmp_path: Path
) -> None:
    config = small_search("method.from_usual=false", *more, f"hyperparameters.learning_rate.initial={rate}")
    result = train_search.search(config, tmp_path)[0]
    assert len(list(EvaluationCache(tmp_path / "coarse_to_fine.jsonl"))) == made
    assert ("coarse to fine" in result.remarks) == (made > 0)


@pytest.mark.parametrize(("start", "trials"), [(0.8, [0.3, 0.8]), (0.31, [0.3])])
def test_what_is_doubted_has_its_usual_value_unless_trainings_prefer_the_learned_one(
    start: float, trials: list[float], tmp_path: Path
) -> None:
    more = ["method.doubted=[dropout]", "method.trials=8", f"hyperparameters.dropout.initial={start}"]
    config = small_search(*more, "method.usual={dropout:0.3}", "method.margin=0.99", "hyperparameters.dropout.cap=0.9")
    result = killed_before_a_training(lambda folder: train_search.search(config, folder)[0], 1, tmp_path)
    kept = list(EvaluationCache(tmp_path / "whole" / "coarse_to_fine.jsonl"))
    dropouts = [one.candidate.hyperparameters["dropout"] for one in kept]
    assert list(dict.fromkeys(round(one, 1) for one in dropouts)) == trials
    assert dropouts[0] == result.candidate.hyperparameters["dropout"] == 0.3
    assert result.remarks["usual values"].startswith("dropout 0.3 instead of the learned 0.")
    assert result.settled["dropout"] is None

    poor = small_search(*more, f"budget.samples={result.cost.samples - sum(one.cost.samples for one in kept)}")
    unpaid = train_search.search(poor, tmp_path / "poor")[0]
    assert unpaid.candidate.hyperparameters["dropout"] == 0.3, "no training is paid for, and none is needed"


def test_to_be_surer_of_few_samples_takes_no_lead() -> None:
    def surer(candidate: Candidate) -> float:
        """Of samples that are all right: a high learning rate has the lower loss."""
        return 1e-4 / candidate.hyperparameters[RATE]

    found = at(0.01, 0.3)
    assert tried(surer, found)[0].candidate.hyperparameters[RATE] > 0.1
    assert tried(surer, found, steps=replace(STEPS, least=0.069))[0].candidate == found
    assert replace(STEPS, least=0.069).is_lower(0.93, math.inf)


def losses_told(
    monkeypatch: pytest.MonkeyPatch, short: Callable[[float], float], whole: Callable[[float], float]
) -> list[float]:
    """Losses of short and of whole trainings by their learning rate; returns the rates of the short ones, as made."""
    train, rates = Trainer.train, []

    def told(trainer: Trainer, candidate: Candidate) -> Evaluation:
        found, rate = train(trainer, candidate), candidate.hyperparameters[RATE]
        is_whole = trainer.name == "coarse_to_fine_whole"
        rates.extend([] if is_whole else [rate])
        return replace(found, metrics={**found.metrics, "loss": whole(rate) if is_whole else short(rate)})

    monkeypatch.setattr(Trainer, "train", told)
    return rates


@pytest.mark.parametrize(("mistake", "leads"), [(0.0, 2), (10.0, 0)])
def test_a_whole_training_that_is_surer_of_few_samples_leaves_what_was_learned(
    mistake: float, leads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_told(monkeypatch, short=lambda rate: 1 / rate, whole=lambda rate: 0.01 - rate / 100)
    result = train_search.search(small_search("method.whole_epochs=2", f"method.mistake={mistake}"), tmp_path)[0]
    whole = [one.candidate for one in EvaluationCache(tmp_path / "coarse_to_fine_whole.jsonl")]
    assert len(whole) == 3
    assert result.candidate == whole[leads]


def test_what_is_doubted_has_a_usual_value(tmp_path: Path) -> None:
    config = small_search("method.doubted=[drop_paths]")
    with pytest.raises(InvalidValue, match=r"^method\.doubted=drop_paths is not allowed: it must be one of usual: "):
        train_search.search(config, tmp_path)


def test_a_whole_training_decides_between_learned_and_other_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_rates = losses_told(monkeypatch, short=lambda rate: 1 / rate, whole=lambda rate: 1 + rate)
    config = small_search("method.whole_epochs=2")
    result = killed_before_a_training(lambda folder: train_search.search(config, folder)[0], 5, tmp_path)
    whole = list(EvaluationCache(tmp_path / "whole" / "coarse_to_fine_whole.jsonl"))
    rates = [one.candidate.hyperparameters[RATE] for one in whole]
    assert rates == [short_rates[0], 0.01, max(short_rates)], "the usual one is tried, whatever short trainings prefer"
    assert result.candidate == whole[0].candidate, "the learned values stay"
    assert (
        "the learned values stay, after 3 short trainings and whole ones of all three"
        in result.remarks["coarse to fine"]
    )
    all_of_it = EvaluationCache(tmp_path / "whole" / "coarse_to_fine.jsonl"), whole
    assert result.cost.samples > sum(one.cost.samples for kept in all_of_it for one in kept)

    lacking = {1: [short_rates[0], max(short_rates)], 1 + whole[0].cost.samples: []}  # one alone would tell nothing
    for samples, rates in lacking.items():
        poor = small_search("method.whole_epochs=2", f"budget.samples={result.cost.samples - samples}")
        train_search.search(poor, tmp_path / f"poor{samples}")
        made = EvaluationCache(tmp_path / f"poor{samples}" / "coarse_to_fine_whole.jsonl")
        assert [one.candidate.hyperparameters[RATE] for one in made] == pytest.approx(rates, rel=0.1)


def test_a_leader_stays_whose_whole_training_the_time_cuts_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses_told(monkeypatch, short=lambda rate: 1 / rate, whole=lambda rate: rate)
    train, made = Trainings.train, []

    def cut(trainings: Trainings, trainer: Trainer, candidate: Candidate) -> Evaluation | None:
        made.append(trainer.name)
        return None if made.count("coarse_to_fine_whole") == 3 else train(trainings, trainer, candidate)

    monkeypatch.setattr(Trainings, "train", cut)
    result = train_search.search(small_search("method.whole_epochs=2"), tmp_path)[0]
    short = list(EvaluationCache(tmp_path / "coarse_to_fine.jsonl"))
    assert made.count("coarse_to_fine_whole") == 3
    assert result.candidate == max((one.candidate for one in short), key=lambda one: one.hyperparameters[RATE])
    assert result.remarks["coarse to fine"].endswith(f"after {len(short)} short trainings")


def test_many_validation_samples_decide_without_the_usual_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses_told(monkeypatch, short=lambda rate: 1e-4 / rate, whole=lambda rate: 1e-4 / rate)
    train_search.search(small_search("method.whole_epochs=2", "method.few=32"), tmp_path)
    rates = [one.candidate.hyperparameters[RATE] for one in EvaluationCache(tmp_path / "coarse_to_fine_whole.jsonl")]
    assert len(rates) == 2
    assert 0.01 not in rates


def test_from_any_start_the_search_begins_at_a_usual_learning_rate(tmp_path: Path) -> None:
    overrides = ["experiment=debug", "method=any_start", "method.trials=2", "search.epochs=1", "search.warmup_epochs=0"]
    overrides += ["data.split={train:64,validation:32,test:300}", "training.batch_size=16", "final.epochs=1"]
    overrides += ["hyperparameters.learning_rate.initial=1e-4", "tracking.console=quiet", "tracking.tensorboard=false"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train_search", [*overrides, "device=cpu"])
    result, found, _ = train_search.search(config, tmp_path)
    assert len(result.remarks["validation loss by start"].split(", ")) == 2
    assert result.remarks["coarse to fine"].endswith("after 2 short trainings")
    assert found.candidate.hyperparameters[RATE] > 1e-3, "so few steps from 1e-4 do not lead there"
    kept = EvaluationCache(tmp_path / "coarse_to_fine.jsonl")
    assert result.cost.samples > sum(one.cost.samples for one in kept) + 3 * 64, "two short searches and a long one"
