"""scripts/search.sh: what it calls, with an interpreter in place of Python's that only says how it was called."""

import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTERPRETER = """#!/usr/bin/env bash
here="$(dirname "$0")"
[ "$1" = -m ] && exit 0
if [ "$1" = - ]; then
    cat > "$here/script.py"
    printf '%s\\0' "$PWD" "$@" > "$here/arguments"
    mkfifo "$here/code"
    echo "$here" > "{questions}"
    read -r code < "$here/code"
    rm "$here/code"
    cat "$here/error" >&2
    cat "$here/output"
    exit "$code"
fi
echo "$(basename "$1") ${*:2}" >> "$here/calls"
all="$*"
case "$all" in *wait=*) trap "exit 75" TERM USR1; echo begun >> "$here/calls"; sleep 20 & wait ;; esac
case "$all" in *killed=*) kill -9 $$ ;; esac
case "$all" in *fail=*) exit "${all##*fail=}" ;; esac
"""


def answer(questions: int) -> None:
    """Run the Python that the script holds, for every folder of a call that is read from this descriptor."""
    for line in os.fdopen(questions):
        folder = Path(line.rstrip("\n"))
        here, *sys.argv = (folder / "arguments").read_text().split("\0")[:-1]
        os.chdir(here)
        code = 0
        with (
            (folder / "output").open("w") as output,
            (folder / "error").open("w") as error,
            redirect_stdout(output),
            redirect_stderr(error),
        ):
            try:
                runpy.run_path(str(folder / "script.py"), run_name="__main__")
            except SystemExit as end:
                code = int(end.code or 0)
            except Exception:
                traceback.print_exc()
                code = 1
        (folder / "code").write_text(f"{code}\n")


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where calls of Python ask for an answer; from a fork of this process, which has imported PyTorch already."""
    path = tmp_path_factory.mktemp("questions") / "asked"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)  # so that it has no end
    process = multiprocessing.get_context("fork").Process(target=answer, args=(descriptor,), daemon=True)
    process.start()
    yield path
    process.kill()
    process.join()
    os.close(descriptor)


@pytest.fixture
def clone(questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NAS_CONSTRAINTS", raising=False)
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("scripts/search.sh", "scripts/environment.sh", "scripts/constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(INTERPRETER.replace("{questions}", str(questions)))
    python.chmod(0o755)
    return folder


def called(clone: Path, *arguments: str, folder: Path) -> tuple[int, list[str]]:
    """The exit code and the calls, from the working directory ``folder``."""
    command = ["bash", str(clone / "scripts" / "search.sh"), *arguments]
    code = subprocess.run(command, cwd=folder, check=False, timeout=120).returncode
    return code, (clone / ".venv" / "bin" / "calls").read_text().splitlines()


def test_a_search_and_its_retraining_share_a_folder(clone: Path, tmp_path: Path) -> None:
    code, calls = called(clone, "data=digits", "seed=1", folder=tmp_path)
    assert code == 0
    search, final = (call.split() for call in calls)
    assert search[0] == "train_search.py"
    assert search[2:] == ["data=digits", "seed=1"]
    assert search[1].startswith("hydra.run.dir=runs/search/")
    assert final == ["train_final.py", "candidate=" + search[1].removeprefix("hydra.run.dir=")]


def test_the_folder_may_be_named(clone: Path, tmp_path: Path) -> None:
    _, calls = called(clone, "hydra.run.dir=runs/mine", folder=tmp_path)
    assert calls[1] == "train_final.py candidate=runs/mine"


@pytest.mark.parametrize("flag", ["--help", "--multirun", "-m"])
def test_flags_of_hydra_leave_nothing_to_retrain(flag: str, clone: Path, tmp_path: Path) -> None:
    assert called(clone, flag, "seed=0,1", folder=tmp_path) == (0, [f"train_search.py {flag} seed=0,1"])


def test_a_failed_search_is_not_retrained_and_its_code_is_kept(clone: Path, tmp_path: Path) -> None:
    code, calls = called(clone, "fail=75", folder=tmp_path)
    assert code == 75
    assert len(calls) == 1


def test_a_resumed_run_goes_on_where_it_was(clone: Path, tmp_path: Path) -> None:
    _, calls = called(clone, "resume=mine", folder=tmp_path)
    assert calls == ["train_search.py resume=mine", "train_final.py candidate=mine"]
    (tmp_path / "mine" / "final" / "checkpoints").mkdir(parents=True)
    _, calls = called(clone, "resume=mine", folder=tmp_path)
    assert calls[-1] == "train_final.py resume=mine/final"


@pytest.mark.parametrize(
    ("argument", "candidate"),
    [
        ("hydra.run.dir='a b'", "candidate=a b"),
        ("hydra.run.dir='a=b'", "candidate='a=b'"),
        ('hydra.run.dir="runs/it\\"s"', "candidate='runs/it\"s'"),
        ("hydra.run.dir=\\${x}", "candidate=\\${x}"),
        ("++hydra.run.dir=mine", "candidate=mine"),
    ],
)
def test_a_folder_is_read_as_hydra_reads_it(argument: str, candidate: str, clone: Path, tmp_path: Path) -> None:
    code, calls = called(clone, argument, folder=tmp_path)
    assert code == 0
    assert calls[0].endswith(f" {argument}")
    assert calls[1] == f"train_final.py {candidate}"


def test_a_stopped_retraining_in_a_folder_of_any_name_goes_on(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "a=b" / "final" / "checkpoints").mkdir(parents=True)
    _, calls = called(clone, "resume='a=b'", folder=tmp_path)
    assert calls == ["train_search.py resume='a=b'", "train_final.py resume='a=b/final'"]


def test_a_folder_that_only_hydra_can_name_is_refused_before_the_search(
    clone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = ["bash", str(clone / "scripts" / "search.sh"), "hydra.run.dir=runs/${seed}"]
    assert subprocess.run(script, cwd=tmp_path, check=False).returncode == 2
    error = capfd.readouterr().err
    installing, refusal = error.splitlines()
    assert installing.startswith("Installing into ")
    assert refusal.startswith("search.sh: hydra.run.dir=runs/${seed} is not allowed: the retraining has to know")
    assert not (clone / ".venv" / "bin" / "calls").exists()


def test_what_hydra_cannot_read_is_left_to_the_search(clone: Path, tmp_path: Path) -> None:
    code, calls = called(clone, "seed=[", "fail=2", folder=tmp_path)
    assert code == 2
    assert len(calls) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_the_script_alone_stops_the_search(number: signal.Signals, clone: Path, tmp_path: Path) -> None:
    calls = clone / ".venv" / "bin" / "calls"
    ours = signal.signal(number, signal.default_int_handler)  # or bash would ignore what these tests ignore
    script = subprocess.Popen(["bash", str(clone / "scripts" / "search.sh"), "wait=1"], cwd=tmp_path)
    try:
        while not (calls.exists() and "begun" in calls.read_text()):
            assert script.poll() is None
            time.sleep(0.05)
        script.send_signal(number)
        assert script.wait(timeout=15) == 75
    finally:
        signal.signal(number, ours)
        script.kill()
    assert calls.read_text().count("train_") == 1


def test_a_search_that_is_killed_ends_the_script(clone: Path, tmp_path: Path) -> None:
    code, calls = called(clone, "killed=1", folder=tmp_path)
    assert code == 128 + signal.SIGKILL
    assert len(calls) == 1
