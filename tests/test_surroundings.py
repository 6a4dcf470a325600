"""A run goes on without what is missing around it, and says so once; and how the user's shell calls Python."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nas import surroundings
from nas.operations.fast import library
from nas.surroundings import typed_path, typed_python
from tests.test_commands import BARE, ROOT

COMMAND = (
    f"{sys.executable} {ROOT / 'train_search.py'} experiment=debug data=digits search.epochs=1 hydra.run.dir=run "
    "tracking.tensorboard=false"
)


def ended(line: str, folder: Path, **environment: str) -> tuple[int, str]:
    """The command's exit code and what it said on standard error."""
    everything = os.environ | {"OMP_NUM_THREADS": "1", "COMMAND": COMMAND} | environment
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=everything, capture_output=True, text=True, check=False)
    assert (folder / "run" / "candidate.json").exists(), done.stderr
    return done.returncode, done.stderr


NO_READER = (
    "standard output cannot be written (nobody reads the output any more): what is printed is lost, the run goes on"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("$COMMAND | head -0; exit ${PIPESTATUS[0]}", NO_READER),
        ("$COMMAND >&-", "standard output is closed: what is printed is lost, the run goes on"),
        (
            "$COMMAND > /dev/full",
            "standard output cannot be written (No space left on device): what is printed is lost, the run goes on",
        ),
        ("$COMMAND >&- 2>&- <&-", ""),
        (
            "TORCHINDUCTOR_CACHE_DIR=/proc/x $COMMAND",
            "TORCHINDUCTOR_CACHE_DIR=/proc/x cannot be written: the run goes on",
        ),
    ],
)
def test_what_is_missing_is_told_once_and_does_not_end_the_run(line: str, said: str, tmp_path: Path) -> None:
    code, error = ended(line, tmp_path)
    assert code == 0, error
    assert error.startswith(said)
    assert error.count("\n") == (1 if said else 0)


@pytest.mark.slow  # tests/test_commands.py has a search in a bare locale
@pytest.mark.parametrize(
    "line",
    [
        "env -u HOME $COMMAND",
        "HOME=/proc/nowhere MPLCONFIGDIR=/tmp $COMMAND",
        "TMPDIR=/nonexistent $COMMAND",
        "MPLBACKEND=TkAgg DISPLAY= $COMMAND",
        "MPLBACKEND=no_such_backend $COMMAND",
        "TERM=dumb $COMMAND",
        "env -u TERM $COMMAND < /dev/null",
    ],
)
def test_what_no_run_needs_is_not_missed(line: str, tmp_path: Path) -> None:
    code, error = ended(line, tmp_path)
    assert (code, error) == (0, "")


def test_characters_that_the_locale_lacks_are_told_with_the_variable_that_helps(tmp_path: Path) -> None:
    command = [*COMMAND.split(), "hydra.run.dir=☃"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | BARE, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "PYTHONUTF8=1 helps" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(library, "library", lambda: None)
    monkeypatch.setattr(library, "_compiler", lambda: "c++")
    assert library.lacking() == f"{tmp_path}/file/nas cannot be written, name another folder with XDG_CACHE_HOME"


def test_no_folder_for_compiled_code_is_named_where_none_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert surroundings.can_be_written(str(tmp_path / "new" / "folder"))
    assert not surroundings.can_be_written(str(tmp_path / "file" / "folder"))
    code = "import nas.device.compilation as c, os; print(os.environ.get(c._KEPT_IN), c.what_it_takes())"
    everything = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment = everything | {"XDG_CACHE_HOME": str(tmp_path / "file"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "None the first steps compile: minutes\n", done.stderr


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setenv("LOGNAME", "")
    monkeypatch.setattr("getpass.getuser", nameless)
    surroundings._without_a_name()
    assert os.environ["LOGNAME"] == f"user-{os.getuid()}"


def test_the_interpreter_is_called_as_this_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("base", "mine/.venv", "my other/.venv"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "python").symlink_to(sys.executable)  # two environments of one installation
        (tmp_path / name / "bin" / "python3").symlink_to("python")
    monkeypatch.setenv("PATH", str(tmp_path / "base/bin"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "base/bin/python3"))
    assert typed_python() == "python"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "mine/.venv/bin/python"))
    assert typed_python() == str(tmp_path / "mine/.venv/bin/python")
    monkeypatch.chdir(tmp_path / "mine")
    assert typed_python() == ".venv/bin/python"
    monkeypatch.chdir(tmp_path / "mine/.venv/bin")
    assert typed_python() == "./python"
    monkeypatch.setenv("PATH", f"{tmp_path / 'mine/.venv/bin'}:{tmp_path / 'base/bin'}")  # it has been activated
    assert typed_python() == "python"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my other/.venv/bin/python"))
    assert typed_python() == f"'{tmp_path}/my other/.venv/bin/python'"
    monkeypatch.setenv("PATH", "")
    assert shlex.split(typed_python()) == [sys.executable]


@pytest.mark.parametrize(("path", "shown"), [("a b", "'a b'"), ("-x", "./-x"), ("a", "a")])
def test_a_folder_is_no_option(path: str, shown: str) -> None:
    assert typed_path(path) == shown
