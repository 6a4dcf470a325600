"""Every search method through the configuration that a user has: budgets, costs and what is held fixed."""

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import train_search
from nas.errors import InvalidValue
from nas.evaluation.evaluation import EvaluationCache
from nas.run.candidate_file import CandidateFile
from nas.search.gradient_search import GradientSearch
from nas.search.result import SearchResult

CONF = Path(__file__).resolve().parent.parent / "conf"
BLACK_BOX = sorted(
    path.stem
    for path in (CONF / "method").glob("*.yaml")
    if "black_box" in path.read_text() or "reinforce" in path.stem
)
SMALL = (
    "experiment=[debug,exact]",  # every pass of a step at its whole price
    "data.split={train:128,validation:64,test:300}",
    "training.batch_size=32",
    "evaluation.epochs=1",
    "tracking.console=quiet",
    "tracking.tensorboard=false",
)


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train_search", overrides=[*SMALL, *overrides])


def searched(folder: Path, *overrides: str) -> tuple[SearchResult, CandidateFile]:
    result, found, _ = train_search.search(composed(*overrides), folder)
    return result, found


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Holds the gradient search that the test runs, as ``search``."""
    found: dict[str, Any] = {}
    original = GradientSearch.search

    def noting(search: GradientSearch) -> SearchResult:
        found["search"] = search
        return original(search)

    monkeypatch.setattr(GradientSearch, "search", noting)
    return found


def tags(folder: Path) -> set[str]:
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        return {row["tag"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("method", BLACK_BOX)
def test_every_competitor_searches_and_writes_the_same_run_folder(method: str, tmp_path: Path) -> None:
    overrides = (f"method={method}", "budget.evaluations=3", "hyperparameters=with_batch_size")
    rungs = ("evaluation.epochs=2", "evaluation.rungs=[1]") if method == "hyperband" else ()
    result, found = searched(tmp_path, *overrides, *rungs)
    assert result.cost.evaluations == 3
    assert result.cost.samples <= 3 * (2 if rungs else 1) * (128 + 64)
    ranges = found.space.ranges
    assert set(ranges) == {"learning_rate", "dropout", "batch_size"}
    assert all(domain.contains(found.candidate.hyperparameters[name]) for name, domain in ranges.items())
    assert "weight_decay" in found.candidate.hyperparameters
    assert {"best/score", "best/accuracy", "population/score_mean", "budget/samples"} <= tags(tmp_path)
    assert ("policy/entropy" in tags(tmp_path)) == (method == "reinforce")  # the LSTM learns from batches of ten
    assert (tmp_path / "candidate.json").exists()


@pytest.mark.parametrize("limit", ["budget.samples=3000", "budget.multiply_adds=6e8"])
def test_the_gradient_search_is_held_to_its_budget(limit: str, tmp_path: Path, made: dict[str, Any]) -> None:
    result, _ = searched(tmp_path, limit, "search.epochs=1000")
    name, _, value = limit.removeprefix("budget.").partition("=")
    spent = getattr(result.cost, name)
    per_image = made["search"].meter.per_image
    one_step = 6 * 32 * (1 if name == "samples" else 3 * per_image)
    assert float(value) - 2 * one_step < spent <= float(value)
    # The untrained supernet's loss on the validation images, and the measurement at the end, went forward only.
    measured = 64 + 64
    by_hand = per_image * (3 * (result.cost.samples - measured) + measured)
    assert result.cost.multiply_adds == pytest.approx(by_hand)
    assert result.cost.evaluations == 0
    assert "train/loss" in tags(tmp_path), "an epoch that the budget has cut is recorded"
    assert made["search"].problem.schedule_factor < 0.01, "the schedule has come to its end with the budget"


@pytest.mark.parametrize("limit", ["samples", "multiply_adds"])
def test_a_budget_below_one_step_is_refused(limit: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=rf"budget\.{limit}=300 is not allowed: a search of one step costs up to"):
        searched(tmp_path, f"budget.{limit}=300")
    assert not (tmp_path / "checkpoints").exists()


def test_an_unlimited_gradient_search_counts_its_passes(tmp_path: Path, made: dict[str, Any]) -> None:
    result, _ = searched(tmp_path, "hyperparameters=fixed", "search.epochs=3", "search.warmup_epochs=1")
    steps = 128 // 32
    assert result.cost.samples == 64 + 3 * steps * 32 + 2 * steps * 32 + 64
    assert made["search"].problem.schedule_factor > 0.01


def test_size_costs_what_cost_weight_says(tmp_path: Path) -> None:
    overrides = (
        "search.epochs=12",
        "search.warmup_epochs=0",
        "search.architecture.rate=0.1",
        "objective.cost_weight=3",
    )
    _, found = searched(tmp_path / "dear", *overrides)
    chosen = found.candidate.architecture
    assert (chosen["layer1.filters"], chosen["layer4.units"]) == ("8", "32")
    assert chosen["layer3.type"] == "skip"
    result, _ = searched(tmp_path / "dear_tpe", "method=tpe", "objective.cost_weight=3", "budget.evaluations=12")
    evaluations = EvaluationCache(tmp_path / "dear_tpe" / "evaluations.jsonl")
    sizes = sorted(one.metrics["parameters"] for one in evaluations)
    assert len(sizes) == 12
    assert result.metrics["best/parameters"] <= sizes[2]


def test_what_has_no_gradient_is_held_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, made: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO, "nas")
    _, found = searched(tmp_path, "hyperparameters=with_batch_size", "search.epochs=1")
    assert "batch_size has no gradient: held at 32" in caplog.messages
    assert found.candidate.hyperparameters["batch_size"] == 32
    assert made["search"].training.batch_size == 32


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("method=random", "budget.evaluations=null"), "budget"),
        (("method=random", "budget.samples=100"), "budget.samples"),
        (("method=random", "method.patience=0"), "method.patience"),
        (("method=random", "method.strategy.batch=0"), "method.strategy.batch"),
        (("method=tpe", "+method.strategy.startups=3"), "method.strategy.startups"),
        (("budget.samples=-1",), "budget.samples"),
        (("objective.cost_weight=-1",), "objective.cost_weight"),
        (("objective=multi_task",), "objective"),
        (("method=random", "evaluation.rungs=[5]"), "evaluation.rungs"),
        (("method=hyperband",), "method.strategy.rungs"),
        (("method=random", "method.enqueue=defaults"), "method.enqueue"),
        (("evaluation.jobs=0",), "evaluation.jobs"),
    ],
)
def test_a_mistake_names_its_key_before_anything_is_written(
    overrides: tuple[str, ...], key: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidValue) as caught:
        searched(tmp_path / "run", *overrides)
    assert caught.value.key == key
    assert not (tmp_path / "run").exists()
