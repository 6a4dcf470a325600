"""Cross-validation: the folds, what is tried in which order, and a search of a table that ends in it."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

import train_final
import train_search
from nas.candidate import Architecture, Candidate
from nas.data.dataset import ArrayDataset
from nas.errors import InvalidValue
from nas.evaluation.evaluation import Cost, Evaluation, EvaluationCache
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.training_setup import TrainingSetup
from nas.run.implied_arguments import implied_arguments
from nas.search.coarse_to_fine import CoarseToFine
from nas.search.cross_validation import FoldTrainer, fold_indices, fold_setups
from nas.search.parts import SearchParts
from nas.search.result import SearchResult
from tests.killing import killed_before_a_training

CONF = Path(__file__).resolve().parents[2] / "conf"
LAYERS = "[{type: dense, units: [2, 4], optional: true}, {type: dense, units: [2, 4], optional: true}]"
TYPED = ["data=table", "data.file=own.csv", "data.target=y"]
QUICK = ["data.epoch_samples=40", "search.epochs=1", "search.warmup_epochs=0", "final.epochs=1", "method.trials=5"]
QUIET = ["tracking.console=quiet", "tracking.tensorboard=false", "device=cpu", "training.batch_size=8"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    rows[:, 3] = rows[:, 0] - rows[:, 1] + 0.1 * rows[:, 3]
    with open("own.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["a", "b", "day", "y"], *rows.tolist()])
    return tmp_path


def composed(*more: str) -> DictConfig:
    typed = [*TYPED, "space=macro_table", f"space.layers={LAYERS}", *QUICK, *QUIET, *more]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train_search", [*typed, *implied_arguments(typed, CONF)])


def searched(folder: Path, *more: str) -> tuple[SearchResult, SearchParts]:
    found, _, parts = train_search.search(composed(*more), folder)
    return found, parts


@pytest.mark.parametrize(
    "targets", [torch.arange(23) % 5 // 4, torch.randn(23, 1, generator=torch.Generator().manual_seed(1))]
)
def test_every_sample_is_left_out_once_and_classes_in_proportion(targets: Tensor) -> None:
    folds = fold_indices(targets, 3)
    assert torch.cat(folds).sort().values.tolist() == list(range(23))
    assert [len(fold) for fold in folds] == [8, 8, 7]
    if targets.dim() == 1:
        assert {int(targets[fold].sum()) for fold in folds} <= {1, 2}  # of four
    assert all(torch.equal(one, other) for one, other in zip(folds, fold_indices(targets, 3), strict=True))


@pytest.mark.parametrize("exchangeable", [True, False])
def test_what_is_left_out_is_not_trained_on_and_groups_stay_where_they_are(exchangeable: bool) -> None:
    numbers = torch.arange(11.0)[:, None]
    train, validation = ArrayDataset(numbers[:7], numbers[:7]), ArrayDataset(numbers[7:], numbers[7:])
    empty: dict[str, Any] = dict.fromkeys(TrainingSetup.__dataclass_fields__)
    setup = TrainingSetup(**{**empty, "train": train, "validation": validation, "seed": 5})
    folds = fold_setups(setup, 3, exchangeable)
    assert [fold.seed for fold in folds] == [5, 6, 7]
    for fold in folds:
        both = torch.cat([fold.train.targets, fold.validation.targets]).flatten()
        assert both.sort().values.tolist() == numbers.flatten().tolist()
        assert exchangeable or (fold.train, fold.validation) == (train, validation)


def test_of_many_samples_nothing_is_done_and_the_mean_is_that_of_all(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated(trainer: TrainedFromScratch, candidates: list[Candidate]) -> list[Evaluation]:
        setup = trainer.setup
        metrics = {"loss": float(setup.validation.targets.mean() ** 2), "samples": float(len(setup.train))}
        return [Evaluation(candidates[0], metrics, Cost(3, 2.0, 1, 0.5))]

    found, parts = searched(own / "run", "method.most=31")  # of 32
    assert not (own / "run" / "cross_validation.jsonl").exists()
    assert found.candidate.hyperparameters["weight_decay"] == 3e-4, "the usual one, and not that of few rows"
    monkeypatch.setattr(TrainedFromScratch, "evaluate", evaluated)
    trainer = FoldTrainer(1, 3, parts)
    known = parts.splits.train_and_validation().targets
    squares = [len(fold) * known[fold].mean() ** 2 for fold in fold_indices(known, 3)]
    evaluation = trainer.train(found.candidate)
    assert evaluation.metrics["loss"] == pytest.approx(float(sum(squares)) / len(known), rel=1e-5)
    assert evaluation.cost == Cost(9, 6.0, 1, 1.5)


def activations(candidate: Candidate) -> set[str]:
    architecture = candidate.architecture
    layers = [layer for layer in ("layer1", "layer2") if architecture[f"{layer}.type"] == "dense"]
    return {architecture[f"{layer}.activation"] for layer in layers}


def made_up(candidate: Candidate, best: float, shorter: float) -> float:
    """A loss that is lowest at the weight decay ``best`` and with tanh, and ``shorter`` less without any layer."""
    values, used = candidate.hyperparameters, activations(candidate)
    others = len(used - {"tanh"}) - shorter * (not used)
    return 9 + others + abs(math.log10(values["weight_decay"] / best)) + values["dropout"]


def test_without_anything_to_step_in_what_was_found_is_still_compared(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(trainer: FoldTrainer, candidate: Candidate) -> Evaluation:
        return Evaluation(candidate, {"loss": made_up(candidate, 3e-4, -3.0)}, Cost(1, evaluations=1))

    monkeypatch.setattr(FoldTrainer, "train", made)
    held = [f"hyperparameters.{name}.learn=false" for name in ("dropout", "weight_decay")]
    found, _ = searched(own / "run", "method.alike=[]", *held)
    tried = [one.candidate for one in EvaluationCache(own / "run" / "cross_validation.jsonl")]
    assert [one.architecture["layer1.type"] for one in tried] == [tried[0].architecture["layer1.type"], "skip"]
    assert found.candidate == tried[0]


@pytest.mark.parametrize(("best", "shorter", "linear"), [(1.0, 3.0, False), (0.05, -3.0, False), (0.05, -3.0, True)])
def test_it_finds_the_weight_decay_and_whether_layers_are_needed(
    best: float, shorter: float, linear: bool, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(trainer: FoldTrainer, candidate: Candidate) -> Evaluation:
        return Evaluation(candidate, {"loss": made_up(candidate, best, shorter)}, Cost(evaluations=1))

    searched_first = CoarseToFine.search

    def without_layers(method: CoarseToFine) -> SearchResult:
        found = searched_first(method)
        options = {name: "skip" if name.endswith("type") else one for name, one in found.candidate.architecture.items()}
        return replace(found, candidate=replace(found.candidate, architecture=Architecture("macro", options)))

    monkeypatch.setattr(FoldTrainer, "train", made)
    if linear:
        monkeypatch.setattr(CoarseToFine, "search", without_layers)
    found, _ = searched(own / "run", "method.trials=20", "method.inner.trials=2")
    values, architecture = found.candidate.hyperparameters, found.candidate.architecture
    assert abs(math.log(values["weight_decay"] / best)) < math.log(5.0) / 2 + 1e-9
    assert ((architecture["layer1.type"], architecture["layer2.type"]) == ("skip", "skip")) == (shorter > 0)
    told = found.remarks["cross-validation"]
    assert ("without optional layers" in told) == (shorter > 0)
    assert found.settled["weight_decay"] is None
    tried = [one.candidate for one in EvaluationCache(own / "run" / "cross_validation.jsonl")]
    assert len(tried) == len(set(tried)) <= 16
    base = tried[linear]  # a linear model is first tried with its layers
    assert (activations(tried[0]) == set(), "with optional layers" in told) == (linear, linear)
    alike = [activations(one) for one in tried[linear + 1 : linear + 4] if one.hyperparameters == base.hyperparameters]
    assert alike == [{option} for option in ("relu", "gelu", "tanh") if activations(base) != {option}]
    assert activations(found.candidate) == (set() if shorter > 0 else {"tanh"})
    assert ("activation tanh" in told) == (shorter < 0 and activations(base) != {"tanh"})
    assert sum(one.architecture["layer1.type"] == "skip" for one in tried) >= 1


def test_killed_between_two_candidates_it_goes_on_to_the_same_bytes_and_is_retrained(own: Path) -> None:
    whole = killed_before_a_training(lambda folder: searched(folder)[0], 3, own, FoldTrainer)
    assert len(list(EvaluationCache(own / "whole" / "cross_validation.jsonl"))) == 5
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train_final", [f"candidate={own / 'whole'}", *TYPED, *QUICK[:1], "final.epochs=1", *QUIET])
    again, result = train_final.retrain(config, own / "final")
    assert again.candidate == whole.candidate
    assert math.isfinite(result["test_rmse"])
    assert whole.metrics["samples"] == whole.cost.samples


def test_rows_of_a_group_are_not_exchangeable(own: Path) -> None:
    assert train_search.built_parts(composed(), own / "run").splits.exchangeable
    assert not train_search.built_parts(composed("data.split.by=day"), own / "run").splits.exchangeable


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("method.folds=1", "method.folds=1 is not allowed: it must be at least 2"),
        ("method.most=-1", "method.most=-1 is not allowed: it must be a number of samples, at least 0"),
        ("method.trials=0", "method.trials=0"),
        ("method.steps.weight_decay=0.5", "method.steps.weight_decay=0.5"),
        ("method.shorter.dropout=0.9", "method.shorter.dropout=0.9 is not allowed: it must be from 0 to 0.5"),
    ],
)
def test_refused_settings(override: str, sentence: str, own: Path) -> None:
    with pytest.raises(InvalidValue) as caught:
        train_search.search(composed(override), own / "run")
    assert str(caught.value).startswith(sentence)
    assert not (own / "run").exists()
