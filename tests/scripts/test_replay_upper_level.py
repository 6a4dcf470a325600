"""The replays of beta-DARTS, GAEA and SDARTS: the originals' numbers, and files that are not what they should be."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FILES = ["beta_darts.npz", "gaea.npz", "sdarts_rs.npz"]
ATTACK = "sdarts_adv_c4_l3.npz"


@pytest.fixture
def main(script: Callable[[str], ModuleType]) -> Callable[[list[str]], int]:
    return script("check_reference").main


def altered(source: Path, target: Path, **changes: np.ndarray | None) -> str:
    with np.load(source, allow_pickle=False) as archive:
        content = {name: archive[name] for name in archive.files}
    content |= {name.replace("__", "/"): array for name, array in changes.items()}
    np.savez(target, **{name: array for name, array in content.items() if array is not None})
    return str(target)


def test_the_originals_are_reproduced(main, reference_folder, capsys):
    files = [str(reference_folder / "one_shot" / name) for name in FILES]
    assert main(files) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "66 of 66 quantities within tolerance"


@pytest.mark.slow
def test_the_attack_and_the_step_there_are_reproduced_by_both_implementations(main, reference_folder, capsys):
    assert main([str(reference_folder / "one_shot" / ATTACK)]) == 0
    printed = capsys.readouterr().out
    assert "plain/case0_random_start/perturbed_normal" in printed
    assert "fast/case1_no_random_start/grad_weight/classifier.weight" in printed


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("beta_darts.npz", "nasbench201__epoch10_grad_alpha"),
        ("gaea.npz", "entropy_after__edges_reduce"),
        ("sdarts_rs.npz", "case1__perturbed_reduce"),
    ],
)
def test_another_number_is_past_its_tolerance(name, entry, main, reference_folder, tmp_path):
    source = reference_folder / "one_shot" / name
    moved = np.load(source)[entry.replace("__", "/")] + 1e-8
    assert main([altered(source, tmp_path / name, **{entry: moved})]) == 1


@pytest.mark.parametrize(
    ("name", "entry", "array"),
    [
        ("beta_darts.npz", "weight_schedule", None),
        ("beta_darts.npz", "config", np.array('{"method": "OLES"}')),
        ("gaea.npz", "initial__edges_normal", np.full(13, 0.1)),
        ("sdarts_rs.npz", "case0__noise_normal", None),
        ("sdarts_rs.npz", "clip__output", np.zeros((2, 2))),
        (ATTACK, "alphas_normal", np.zeros((3, 7))),
        (ATTACK, "x", np.array("images")),
        (ATTACK, "state_index", np.array("[[1, 2]]")),
        (ATTACK, "config", np.array('{"method": "SDARTS-ADV"}')),
    ],
)
def test_what_cannot_be_replayed_is_told_in_one_line(name, entry, array, main, reference_folder, tmp_path, capsys):
    file = altered(reference_folder / "one_shot" / name, tmp_path / name, **{entry: array})
    assert main([file]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{file} cannot be replayed: ")
    assert told.count("\n") == 1
