"""The benchmark of the black-box methods: its statistics, its targets, and what it prints."""

import importlib.util
import itertools
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nas.signature import Signature
from nas.spaces.nasbench201.choices import OPERATIONS, architecture_text
from nas.spaces.nasbench201.space import NasBench201

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark_nasbench201.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("benchmark_nasbench201", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made_up_table() -> dict[str, tuple[float, float]]:
    """Every cell, the better the later its operations stand in the list; the test accuracy is half a point lower."""
    space = NasBench201(signature=Signature((3, 8, 8), 10))
    table = {}
    for indices in itertools.product(range(len(OPERATIONS)), repeat=6):
        validation = 50 + sum(indices) + 0.01 * math.sin(sum(7**place * index for place, index in enumerate(indices)))
        table[architecture_text(space.decode(list(map(float, indices))).architecture)] = (validation, validation - 0.5)
    return table


@pytest.mark.parametrize("method", ["random", "genetic", "evolution, aging", "reinforce", "tpe"])
def test_a_run_reports_the_best_so_far(
    script: ModuleType, made_up_table: dict[str, tuple[float, float]], method: str
) -> None:
    budgets = [5, 20, 60]
    found = script.searched(method, made_up_table, 1, budgets).best
    assert list(found) == budgets
    values = [found[budget].validation for budget in budgets]
    assert values == sorted(values)
    assert all(one.test == one.validation - 0.5 for one in found.values())
    assert found == script.searched(method, made_up_table, 1, budgets).best
    assert found != script.searched(method, made_up_table, 2, budgets).best


def test_differences_in_standard_errors(script: ModuleType) -> None:
    assert script.standard_errors((3.0, 2.0), 4, (1.0, 0.0), 100) == pytest.approx(2.0)
    assert script.standard_errors((1.0, 3.0), 9, (3.0, 4.0), 16) == pytest.approx(-2 / math.sqrt(2))
    assert script.standard_errors((3.0, 0.0), 5, (1.0, 0.0), 5) == math.inf
    assert script.standard_errors((3.0, 0.0), 5, (3.0, 0.0), 5) == 0.0


def cells(script: ModuleType, shifts: dict[str, float]) -> dict:
    """As many runs as the reference has, with its means and deviations, each method's shifted."""
    made = {}
    for method in script.METHODS:
        known = script.REFERENCE.get(method, script.REFERENCE["evolution, aging"])
        for budget, spreads in known.items():
            columns = []
            for mean, deviation in spreads:
                spread = deviation * math.sqrt(199 / 200)
                columns.append([mean + shifts.get(method, 0.0) + sign * spread for sign in (-1, 1) * 100])
            made[method, budget] = script.Cell(*columns, seconds=[1.0])
    return made


def test_the_reference_itself_reaches_every_target(script: ModuleType) -> None:
    outcome = script.targets(cells(script, {}), "cifar10")
    assert len(outcome) == 6 * 2 + 3 * 3 * 2
    assert all(outcome.values())
    assert len(script.targets(cells(script, {}), "cifar100")) == 6 * 2


@pytest.mark.parametrize(
    ("shifts", "missed"),
    [
        ({"random": 0.2}, "random agrees"),  # better than random can be: a leak
        ({"random": -0.2}, "random agrees"),
        ({"reinforce": -0.2}, "reinforce agrees"),
        ({"tpe": -0.7}, "tpe beats"),
        ({"genetic": -0.6}, "genetic beats"),
    ],
)
def test_what_is_off_is_missed(script: ModuleType, shifts: dict[str, float], missed: str) -> None:
    outcome = script.targets(cells(script, shifts), "cifar10")
    assert any(sentence.startswith(missed) for sentence, reached in outcome.items() if not reached)


def test_evolution_may_be_better_than_the_reference(script: ModuleType) -> None:
    assert all(script.targets(cells(script, {"evolution, aging": 0.1}), "cifar10").values())


def written(path: Path, table: dict[str, tuple[float, float]]) -> Path:
    lines = ["arch,cifar100_valid,cifar100_test", *(f"{arch},{one},{other}" for arch, (one, other) in table.items())]
    path.write_text("\n".join(lines))
    return path


def test_the_command_ends_with_its_summary(
    script: ModuleType,
    made_up_table: dict[str, tuple[float, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "REPORTED", (60,))
    monkeypatch.setattr(script, "BEATEN_AT", (60,))
    monkeypatch.setattr(script, "METHODS", {name: script.METHODS[name] for name in ("random", "evolution, aging")})
    arguments = ["--table", str(written(tmp_path / "table.csv", made_up_table)), "--dataset", "cifar100", "--jobs", "1"]
    assert script.main([*arguments, "--runs", "5", "--evaluations", "30"]) == 0
    printed = capsys.readouterr().out
    assert "best after 30 evaluations" in printed
    assert "best after 60 evaluations" in printed
    assert printed.splitlines()[-1] == "nasbench201 cifar100: 1 of 1 targets reached"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--dataset", "mnist"], "dataset=mnist is not allowed"),
        (["--table", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_bad_input_ends_in_a_sentence(
    script: ModuleType, tmp_path: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    table = written(tmp_path / "table.csv", {cell: (1.0, 1.0)})
    assert script.main(["--table", str(table), *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--runs", "1"], ["--evaluations", "0"], ["--jobs", "0"], []])
def test_impossible_arguments_are_refused(script: ModuleType, arguments: list[str]) -> None:
    table = ["--table", "table.csv"] if arguments else []
    with pytest.raises(SystemExit) as caught:
        script.main([*table, *arguments])
    assert caught.value.code == 2
