"""The replays of what a search keeps, of when it ends and of its stages."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

Main = Callable[[list[str]], int]


@pytest.fixture
def main(script: Callable[[str], ModuleType]) -> Main:
    found: Main = script("check_reference").main
    return found


def test_the_stages_of_p_darts_are_reproduced(main: Main, reference_folder: Path, tmp_path: Path) -> None:
    source = reference_folder / "one_shot" / "p_darts_stages.json"
    assert main([str(source)]) == 0
    content = json.loads(source.read_text())
    content["stages"][0]["kept"]["normal"][0] = content["stages"][0]["kept"]["normal"][0][::-1]
    (tmp_path / "altered.json").write_text(json.dumps(content))
    assert main([str(tmp_path / "altered.json")]) == 1
    del content["stages"][1]["alphas"]
    (tmp_path / "incomplete.json").write_text(json.dumps(content))
    assert main([str(tmp_path / "incomplete.json")]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "entry"),
    [("darts_pt_c4_l3.npz", "relaxed_accuracy_and_loss"), ("robust_darts_s3_c4_l3.npz", "hessian")],
)
def test_files_are_reproduced_and_what_is_altered_is_found(
    name: str, entry: str, main: Main, reference_folder: Path, tmp_path: Path
) -> None:
    source = reference_folder / "one_shot" / name
    assert main([str(source)]) == 0
    with np.load(source, allow_pickle=False) as archive:
        content = {key: archive[key] for key in archive.files}
    np.savez(tmp_path / name, **{**content, entry: content[entry] * (1 + 1e-8)})
    assert main([str(tmp_path / name)]) == 1
