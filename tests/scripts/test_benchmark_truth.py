"""The instrument on a made-up truth whose right answers are known, and once on a live one."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nas.candidate import Architecture, Candidate, Hyperparameters, Range
from nas.errors import InvalidValue
from nas.evaluation.truth import RESULTS, Truth, TruthRow
from nas.signature import Signature
from nas.spaces.macro.space import Macro

LAYERS = [{"type": "conv", "filters": [4, 8], "kernel_size": 3}, {"type": "dense", "units": [8, 16]}]
RANGES = {"learning_rate": Range(1e-4, 0.5, "log"), "dropout": Range(0.0, 0.9)}
ENTRIES = {"learning_rate": {"initial": 0.01, "cap": None}, "dropout": {"initial": 0.3, "cap": 0.9}}


@pytest.fixture
def script(script: Callable[[str], ModuleType]) -> SimpleNamespace:
    """The names of the benchmark and of its parts."""
    parts = [script(name) for name in ("truth_runs", "truth_report", "truth_instrument", "benchmark_truth")]
    return SimpleNamespace(**{name: value for part in parts for name, value in vars(part).items()})


@pytest.fixture
def truth() -> Truth:
    """A hundred candidates: number n has a test accuracy of n % and a loss of 1 - n / 100, in both splits."""
    space = Macro(LAYERS, ["relu"], signature=Signature((1, 8, 8), 10), ranges=RANGES)
    rows = []
    for number in range(100):
        filters, units = "4" if number % 2 else "8", "8" if number % 4 < 2 else "16"
        options = {"layer1.filters": filters, "layer2.units": units}
        architecture = Architecture(
            "macro", {choice.name: options.get(choice.name, choice.options[0]) for choice in space.choices}
        )
        values = Hyperparameters({"learning_rate": 0.01, "dropout": number / 120})
        score = {"loss": 1 - number / 100, "accuracy": number / 100}
        results = {f"{part}_{name}": value for part in ("validation", "test") for name, value in score.items()}
        results |= {"samples": 100.0, "multiply_adds": 1000.0, "parameters": 5.0, "cpu_seconds": 2.0}
        curve = (score["loss"],), (score["accuracy"],)
        rows.append(TruthRow(number, 0, Candidate(architecture, values), number, results, *curve))
    assert set(rows[0].results) == set(RESULTS)
    return Truth({"final": {"epochs": 1}, "hyperparameters": ENTRIES}, space, rows)


def found(script: SimpleNamespace, arm: Any, seed: int, accuracy: float) -> Any:
    score = script.Score(accuracy, 1 - accuracy, 1 - accuracy)
    cost = {"samples": 125.0, "multiply_adds": 6000.0, "seconds": 8.0}
    return script.Found(arm, "b", seed, "{}", cost, score)


def test_percentile_regret_and_worth_of_a_known_truth(
    script: SimpleNamespace, truth: Truth, script_of: Callable[[str], ModuleType]
) -> None:
    ours, random = script.Arm("joint", "default"), script.Arm("random", "wide")
    all_found = [found(script, ours, seed, 0.9) for seed in range(8)]
    all_found += [found(script, random, seed, 0.6 + seed / 100) for seed in range(8)]
    report = script_of("truth_report").Report(truth, all_found, ours, (0.95, 0.05))
    name, runs, accuracy, worst, loss, percentile, regret, needed, spent = report.row(ours, "b")
    assert (name, runs, accuracy, worst) == ("joint", "8", "90.00 ± 0.00", "90.00")
    assert loss == "0.1000 ± 0.0000"
    assert percentile == "90.5 / 90.5"  # better than 0 to 89 of 0 to 99, level with one
    assert regret == "5.00 / 0.0500"
    # The best of N of the numbers 0 to 99 is 100 - 101 / (N + 1) on average: 90 with N = 9.1
    assert needed == "9 / 9"
    assert spent == "1.25 / 6.00 / 4.00"
    words, reached = report.in_words("b")
    assert reached
    assert words == "b: joint 90.00 %, ahead of random (wide)"
    (comparison,) = report.tests("b").values()
    assert comparison[0].mean == pytest.approx(26.5)
    assert comparison[0].p == 2 / 2**8


def test_who_is_not_ahead_of_random_search_is_told_so(
    script: SimpleNamespace, truth: Truth, script_of: Callable[[str], ModuleType]
) -> None:
    ours, random = script.Arm("joint", "default"), script.Arm("random", "wide")
    all_found = [found(script, ours, seed, 0.90 + (-1) ** seed / 100) for seed in range(6)]
    all_found += [found(script, random, seed, 0.895) for seed in range(6)]
    words, reached = script_of("truth_report").Report(truth, all_found, ours, (1.0, 0.0)).in_words("b")
    assert not reached
    assert "not told apart from random (wide)" in words


@pytest.fixture
def script_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Another script's module; ``script`` has put the folder on the path."""
    import importlib

    return importlib.import_module


def evaluation(number: int, loss: float, samples: float) -> list[Any]:
    return [{"number": number}, loss, {"samples": samples, "multiply_adds": 10 * samples, "seconds": samples / 50}]


def test_a_black_box_search_is_cut_where_the_budget_ends(script: SimpleNamespace, truth: Truth) -> None:
    instrument = script.Instrument(truth, (), None)
    arm, evaluations = (
        script.Arm("random", "wide"),
        [evaluation(0, 0.5, 60), evaluation(1, 0.4, 60), evaluation(2, 0.1, 60)],
    )
    budgets = [script.Budget("samples", one) for one in (0.5, 1.0, 1.5, 1.8)]  # of 100 samples
    results = {(arm, budget): {"evaluations": evaluations} for budget in budgets}
    chosen = [instrument._within(arm, budget, results) for budget in budgets]
    assert [None if one is None else json.loads(one[0])["number"] for one in chosen] == [None, 0, 1, 2]
    assert chosen[2][1] == {"samples": 120.0, "multiply_adds": 1200.0, "seconds": 2.4}
    # AutoHAS has none to be cut after: its policy's candidate is what it found.
    policy = {"candidate": {"number": 5}, "cost": {"samples": 70.0}, "evaluations": []}
    place = script.Arm("autohas", "wide"), budgets[2]
    assert instrument._within(*place, {place: policy})[0] == '{"number": 5}'
    # Another evaluation of 60 would not have fitted into 1.8 trainings; into 2.5 it would.
    assert instrument._reaches({"evaluations": evaluations}, script.Budget("samples", 1.8))
    assert not instrument._reaches({"evaluations": evaluations}, script.Budget("samples", 2.5))


def test_a_black_box_search_that_has_not_spent_its_seconds_is_made_anew_and_longer(
    script: SimpleNamespace, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrument, arm, asked = script.Instrument(truth, (), None), script.Arm("random", "wide"), []

    def results(runs: list[Any], what: str) -> list[dict[str, Any]]:
        for run in runs:
            (limit,) = [float(one.split("=")[1]) for one in run.overrides if one.startswith("budget.multiply_adds")]
            asked.append(limit)
        # An evaluation of a tenth of a training in multiply-adds takes a hundredth of one in seconds.
        training = {unit: truth.mean_training(column) for unit, column in script.COLUMNS.items()}
        each = {unit: training[unit] * (0.01 if unit == "seconds" else 0.1) for unit in training}
        count = int(asked[-1] / each["multiply_adds"])
        return [{"evaluations": [[{"number": one}, 1.0, each] for one in range(count)]} for _ in runs]

    monkeypatch.setattr(instrument, "results", results)
    budgets = [script.Budget("multiply_adds", 1.0), script.Budget("seconds", 0.3)]
    found = instrument._searched([arm], budgets, 0)
    assert [limit / asked[0] for limit in asked] == pytest.approx([1, 1, 2, 4], rel=1e-4)
    assert [len(found[arm, budget]["evaluations"]) for budget in budgets] == [10, 40]


@pytest.mark.parametrize("name", ["truth_many", "truth_cells", "truth_mnist"])
def test_the_truths_that_are_kept_are_of_the_experiments_of_their_names(script: SimpleNamespace, name: str) -> None:
    path = script.located(name)
    kept = script.read_truth(path)
    assert script.problem_overrides(kept, path, ())[0] == f"experiment={name}"
    with pytest.raises(
        InvalidValue, match=r"^final\.epochs=3 is not allowed: the truth .* was made with final.epochs=10"
    ):
        script.problem_overrides(kept, path, ("final.epochs=3",))


def test_both_kinds_are_told_the_same(
    script: SimpleNamespace, truth: Truth, script_of: Callable[[str], ModuleType]
) -> None:
    runs = script_of("truth_runs")
    black_box = runs.overrides_of(script.Arm("tpe", "expert"), truth, 0, {})
    assert "method.enqueue=initial" in black_box
    assert {"hyperparameters.learning_rate.low=0.003", "hyperparameters.learning_rate.high=0.3"} <= set(black_box)
    assert "hyperparameters.dropout.cap=0.5" in black_box
    wide = runs.overrides_of(script.Arm("tpe", "wide"), truth, 0, {})
    assert not any(one.startswith("hyperparameters") for one in wide)

    drawn = set()
    for seed in range(40):
        for prior, domain in (("expert", Range(0.003, 0.3, "log")), ("wide", RANGES["learning_rate"])):
            overrides = runs.overrides_of(script.Arm("joint", prior), truth, seed, {})
            (start,) = [float(one.split("=")[1]) for one in overrides if "learning_rate.initial" in one]
            assert domain.contains(start)
            drawn.add(start)
    assert len(drawn) == 80
    assert not any("initial" in one for one in runs.overrides_of(script.Arm("joint", "default"), truth, 0, {}))


def test_arms_that_make_sense(script: SimpleNamespace) -> None:
    arms = script.arms_of(["joint", "fixed", "random", "random@wide", "tpe@wide"], ["default", "expert", "wide"])
    names = [
        "joint",
        "joint (expert start)",
        "joint (random start)",
        "fixed",
        "random (expert)",
        "random (wide)",
        "tpe (wide)",
    ]
    assert [str(arm) for arm in arms] == names


def test_texts_of_the_command_line(script: SimpleNamespace) -> None:
    budgets = script.parsed_budgets(["samples=1.25", "multiply_adds=6,20"])
    assert [(one.unit, one.trainings) for one in budgets] == [
        ("samples", 1.25),
        ("multiply_adds", 6),
        ("multiply_adds", 20),
    ]
    assert script.parsed_seeds(["3..5", "9", "4"]) == [3, 4, 5, 9]
    nested = "+starts=[{learning_rate:0.01,dropout:0.1},{learning_rate:0.1}]"
    assert script.parsed_variants([f"a={nested},seed=1"]) == {"a": (nested, "seed=1")}
    assert script.parsed_variants(["a=search.epochs=3,evaluation.rungs=[1,2]"]) == {
        "a": ("search.epochs=3", "evaluation.rungs=[1,2]")
    }
    for parse, text in (
        (script.parsed_budgets, "hours=3"),
        (script.parsed_budgets, "samples=0"),
        (script.parsed_seeds, "5..3"),
        (script.parsed_variants, "random=method=tpe"),
    ):
        with pytest.raises(InvalidValue, match="is not allowed"):
            parse([text])


SMALL = (
    "experiment=debug",
    "data.split.train=64",
    "data.split.validation=40",
    "data.split.test=40",
    "final.epochs=2",
    "search.epochs=1",
)


@pytest.mark.slow
def test_a_live_run_is_kept_and_reported_on(
    script: SimpleNamespace,
    script_of: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "tiny.csv"
    made = ["make_truth.py", *SMALL, "--rows", "6", "--repeats", "2x1", "--output", str(file)]
    monkeypatch.setattr("sys.argv", made)
    assert script_of("make_truth").main() == 0
    command = [
        *("--truth", str(file), *SMALL, "--methods", "joint", "random_short", "--priors", "default", "wide"),
        *("--budgets", "multiply_adds=30", "--seeds", "1", "--folder", str(tmp_path / "kept")),
    ]
    assert script.main(command) == 1
    told = capsys.readouterr().out
    assert told.splitlines()[-1].startswith("truth: tiny, 1 seeds, joint not compared with random search")
    assert "surrogate of 6 candidates, cross-validated" in told
    first = (tmp_path / "kept" / "results.csv").read_text()
    rows = list(csv.DictReader(first.splitlines()))
    assert [(row["method"], row["prior"]) for row in rows] == [
        ("joint", "default"),
        ("joint", "wide"),
        ("random_short", "wide"),
    ]
    assert (tmp_path / "kept" / "anytime.png").stat().st_size > 0
    assert script.main([*command, "--known"]) == 1  # nothing is run again
    assert (tmp_path / "kept" / "results.csv").read_text() == first

    capsys.readouterr()
    other = [*command, "final.epochs=3"]
    assert script.main(other) == 2
    assert "final.epochs=3 is not allowed" in capsys.readouterr().err
