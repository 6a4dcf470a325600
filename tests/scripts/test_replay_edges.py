"""The replays of PC-DARTS and DARTS-: the originals' numbers, and files that are not what they should be."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.scripts.test_replay_upper_level import altered

PARTIAL, MINUS = "pc_darts_c8_l3.npz", "darts_minus_c4_l3.npz"


@pytest.fixture
def main(script: Callable[[str], ModuleType]) -> Callable[[list[str]], int]:
    return script("check_reference").main


@pytest.mark.slow
@pytest.mark.parametrize(("name", "quantities"), [(PARTIAL, 52), (MINUS, 37)])
def test_the_originals_are_reproduced_by_both_implementations(name, quantities, main, reference_folder, capsys):
    assert main([str(reference_folder / "one_shot" / name)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"{quantities} of {quantities} quantities within tolerance"
    assert "plain/" in printed
    assert "fast/" in printed


@pytest.mark.parametrize(
    ("name", "entry", "array"),
    [
        (PARTIAL, "init__betas_normal", np.zeros(13)),
        (PARTIAL, "y", np.zeros((4, 3), dtype=np.int64)),
        (PARTIAL, "config", np.array('{"method": "PC-DARTS"}')),
        (MINUS, "schedule__linear", None),
        (MINUS, "epoch0__beta", np.zeros(2)),
        (MINUS, "state_index", np.array("[[1, 2]]")),
    ],
)
def test_what_cannot_be_replayed_is_told_in_one_line(
    name: str, entry: str, array: np.ndarray | None, main, reference_folder: Path, tmp_path: Path, capsys
) -> None:
    file = altered(reference_folder / "one_shot" / name, tmp_path / name, **{entry: array})
    assert main([file]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{file} cannot be replayed: ")
    assert told.count("\n") == 1
