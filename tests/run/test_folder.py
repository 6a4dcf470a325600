"""Whose a run folder is: an occupied one is refused to another run."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from nas.errors import InvalidValue, UnusableInput
from nas.run.folder import RunFolder, refuse_occupied_folder
from nas.run.overrides import typed_script
from nas.run.recorded import meant_instead


def test_an_occupied_folder_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    (tmp_path / "candidate.json").touch()
    for arguments, default in [
        ([f"hydra.run.dir={tmp_path}"], None),
        ([f"hydra.run.dir='{tmp_path}'"], "elsewhere"),
        (["seed=1"], str(tmp_path)),
    ]:
        with pytest.raises(InvalidValue) as caught:
            refuse_occupied_folder(arguments, default)
        assert caught.value.key == "hydra.run.dir"
        assert f"resume={tmp_path}" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["candidate.json"]


def test_a_free_folder_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "candidate.json").touch()
    refuse_occupied_folder([])
    refuse_occupied_folder([f"hydra.run.dir={tmp_path / 'new'}"], default=str(tmp_path))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("argument", ["hydra.run.dir=", "hydra.run.dir=null", "hydra.sweep.dir=''"])
def test_a_folder_needs_a_name(argument: str) -> None:
    with pytest.raises(InvalidValue, match="it must name a folder"):
        refuse_occupied_folder([argument])


def test_a_part_of_a_run_keeps_as_many_checkpoints(tmp_path: Path) -> None:
    part = RunFolder(tmp_path, keep=3).below("starts", "1")
    part.path.mkdir(parents=True)
    for step in range(5):
        part.checkpoints.save(step, {"step": step})
    assert part.checkpoints.steps() == [2, 3, 4]
    assert part.path == tmp_path / "starts" / "1"


def test_the_run_that_is_meant_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("mine/candidate.json", "mine/final/weights.pt", "sweep/0/candidate.json", "sweep/1/candidate.json"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    Path("half/checkpoints").mkdir(parents=True)

    def meant(named: str) -> str:
        return meant_instead("candidate", named, "candidate.json")

    assert meant("mine/final") == meant("mine/final/weights.pt") == " (did you mean candidate=mine?)"
    assert meant("sweep") == " (did you mean candidate=sweep/0 or candidate=sweep/1?)"
    search = typed_script("train_search.py")
    assert meant("half") == f"; that search has not finished, go on with {search} resume=half"
    Path("half/.hydra").mkdir()
    Path("half/.hydra/config.yaml").write_text("space: {_target_: mine.Blocks}")
    assert meant("half").endswith(f", go on with NAS_TRUST=mine {search} resume=half")
    assert meant("nowhere") == meant("Genotype(" + "x" * 5000) == ""


def test_a_name_that_is_too_long_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"cannot be written to .*x: file name too long"):
        refuse_occupied_folder([f"hydra.run.dir={tmp_path / ('x' * 300)}"])


@pytest.mark.parametrize(("total", "refused"), [(10**9, True), (0, False)])
def test_a_full_disk_is_told_where_there_is_one(
    total: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=total, free=0))
    with pytest.raises(UnusableInput, match="the disk is full") if refused else nullcontext():
        refuse_occupied_folder([f"hydra.run.dir={tmp_path / 'run'}"])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_folders_is_named() -> None:
    with pytest.raises(UnusableInput, match=r"cannot be written to /proc/x: no folder can be made in /proc \("):
        refuse_occupied_folder(["hydra.run.dir=/proc/x"])
