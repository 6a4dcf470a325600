"""Finding a run again, refusing its place to another one, and reading its configuration back."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nas.errors import InvalidValue, UnusableInput
from nas.run.folder import (
    RunFolder,
    argument_value,
    break_seal,
    refuse_occupied_folder,
    resumed_configuration,
    seal_configuration,
)

CONFIG: dict[str, Any] = {
    "seed": 3,
    "training": {"batch_size": 32, "rate": 0.1},
    "tracking": {"console": "auto", "log_every": 10, "profiler": False, "note": None},
    "again": "${seed}",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has begun."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(CONFIG), folder / ".hydra" / "config.yaml")
    return folder


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ([], None),
        (["seed=1"], None),
        (["resume"], None),
        (["--resume", "runs/a"], None),
        (["resumed=runs/a"], None),
        (["x.resume=runs/a"], None),
        (["resume=runs/a"], "runs/a"),
        (["+resume=runs/a"], "runs/a"),
        (["++resume=runs/a"], "runs/a"),
        (["resume='runs/a b'"], "runs/a b"),
        (['resume="runs/a b"'], "runs/a b"),
        (["resume=runs/a=b"], "runs/a=b"),
        (["resume=runs/a", "seed=1", "resume=runs/b"], "runs/b"),
        (["resume=runs/a", "resume=null"], None),
        (["resume=null"], None),
        (["resume="], None),
        (["resume=''"], None),
    ],
)
def test_the_value_of_an_argument(arguments: list[str], value: str | None) -> None:
    assert argument_value(arguments, "resume") == value


def test_a_folder_holds_a_run_once_it_has_metrics_or_checkpoints(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "notes.txt").touch()
    assert not RunFolder(tmp_path / "missing").holds_a_run()
    assert not folder.holds_a_run()
    folder.checkpoints.save(0, {"step": 0})
    assert folder.holds_a_run()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.csv").write_text("step,epoch,tag,value\n")
    assert not RunFolder(tmp_path / "other").holds_a_run(), "it was killed before its first checkpoint"
    (tmp_path / "other" / "metrics.csv").write_text("step,epoch,tag,value\n1,0,a,0.5\n")
    assert RunFolder(tmp_path / "other").holds_a_run()
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "candidate.json").touch()
    assert RunFolder(tmp_path / "lone").holds_a_run()


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


def test_a_resumed_run_has_its_own_configuration(run: Path) -> None:
    assert OmegaConf.to_container(resumed_configuration([f"resume={run}"], run)) == CONFIG
    config = resumed_configuration([], run)
    assert config.again == 3


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("tracking.console=quiet", "console", "quiet"),
        ("tracking.console='quiet'", "console", "quiet"),
        ("tracking.profiler=true", "profiler", True),
        ("tracking.log_every=5", "log_every", 5),
        ("tracking.note=a=b", "note", "a=b"),
        ("tracking.note=null", "note", None),
    ],
)
def test_only_what_is_recorded_may_be_set(argument: str, key: str, value: object, run: Path) -> None:
    before = (run / ".hydra" / "config.yaml").read_bytes()
    config = resumed_configuration([f"+resume={run}", argument], run)
    found = OmegaConf.to_container(config)
    assert found == {**CONFIG, "tracking": {**CONFIG["tracking"], key: value}}
    assert (run / ".hydra" / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("seed=4", "seed"),
        ("seed=3", "seed"),
        ("training.batch_size=64", "training.batch_size"),
        ("tracking=default", "tracking"),
        ("console=quiet", "console"),
        ("hydra.run.dir=elsewhere", "hydra.run.dir"),
        ("--multirun", "--multirun"),
        ("~seed", "~seed"),
        ("+tracking.console=quiet", "+tracking.console"),
        ("tracking.consol=quiet", "tracking.consol"),
        ("tracking.console.x=1", "tracking.console.x"),
        ("tracking.=1", "tracking."),
        ("tracking.console=[", "tracking.console"),
        ("tracking.console=${", "tracking.console"),
        ("tracking.console=a: b: c", "tracking.console"),
        ("tracking.console=!!python/object:os.system", "tracking.console"),
    ],
)
def test_everything_else_is_refused(argument: str, key: str, run: Path) -> None:
    with pytest.raises(InvalidValue) as caught:
        resumed_configuration([f"resume={run}", argument], run)
    assert caught.value.key == key


def test_tracking_cannot_be_set_where_the_run_had_none(run: Path) -> None:
    OmegaConf.save(OmegaConf.create({"seed": 1}), run / ".hydra" / "config.yaml")
    with pytest.raises(InvalidValue, match="there is no such setting"):
        resumed_configuration(["tracking.console=quiet"], run)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidValue, match=r"^resume=.* it must be the folder of a run"):
            resumed_configuration([], folder)


@pytest.mark.parametrize(
    "content",
    [b"a: [1", b"a: b: c", b"\xff\xfe\x00", b"- 1\n- 2\n", b"a: !!python/object:os.system {}", b"\t- x:"],
)
def test_a_configuration_that_cannot_be_read(content: bytes, run: Path) -> None:
    (run / ".hydra" / "config.yaml").write_bytes(content)
    with pytest.raises(UnusableInput, match=r"config\.yaml (cannot be read|is not readable YAML|is not a group)"):
        resumed_configuration([], run)


def test_a_recorded_configuration_calls_nothing_outside_the_package(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for target in ("os.system", "subprocess.run", "nasty.Thing", "${oc.env:HOME}.x"):
        content = {**CONFIG, "data": {"deep": [{"_target_": target, "command": "true"}]}}
        OmegaConf.save(OmegaConf.create(content), run / ".hydra" / "config.yaml")
        with pytest.raises(UnusableInput, match="NAS_TRUST"):
            resumed_configuration([], run)
    OmegaConf.save(OmegaConf.create({**CONFIG, "data": {"_target_": "mine.Data"}}), run / ".hydra" / "config.yaml")
    monkeypatch.setenv("NAS_TRUST", "other,mine")
    assert resumed_configuration([], run).data._target_ == "mine.Data"


def test_a_configuration_with_any_bit_flipped_is_refused(run: Path) -> None:
    seal_configuration(run)
    path, seal = run / ".hydra" / "config.yaml", run / ".hydra" / "config.sha256"
    assert resumed_configuration([], run).seed == 3
    for damaged in (path, seal):
        whole = damaged.read_bytes()
        for position in range(0, 8 * (len(whole) if damaged == path else 64)):
            content = bytearray(whole)
            content[position // 8] ^= 1 << position % 8
            damaged.write_bytes(content)
            with pytest.raises(UnusableInput, match=r"config\.yaml has been changed since the run began") as caught:
                resumed_configuration([], run)
            assert str(caught.value).endswith(f"remove {seal}.")
        damaged.write_bytes(whole)
    path.write_text(path.read_text().replace("seed: 3", "seed: 4"))
    seal.unlink()  # on purpose
    assert resumed_configuration([], run).seed == 4


def test_a_seal_is_that_of_sha256sum(run: Path) -> None:
    seal_configuration(run)
    check = ["sha256sum", "--check", "config.sha256"]
    assert subprocess.run(check, cwd=run / ".hydra", capture_output=True, check=False).returncode == 0
    (run / ".hydra" / "config.yaml").unlink()
    break_seal(run)
    break_seal(run)  # there is none any more
    seal_configuration(run)  # hydra.output_subdir=null writes none
    assert not list((run / ".hydra").iterdir())


def test_a_part_of_a_run_keeps_as_many_checkpoints(tmp_path: Path) -> None:
    part = RunFolder(tmp_path, keep=3).below("starts", "1")
    part.path.mkdir(parents=True)
    for step in range(5):
        part.checkpoints.save(step, {"step": step})
    assert part.checkpoints.steps() == [2, 3, 4]
    assert part.path == tmp_path / "starts" / "1"
