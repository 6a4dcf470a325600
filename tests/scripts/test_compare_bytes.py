"""scripts/compare_bytes.sh, in a repository whose search and retraining are a few lines without PyTorch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEARCH = """
import sys, time
from pathlib import Path
from nas import LINE

settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = Path(settings.get("resume") or settings["hydra.run.dir"])
with (Path(__file__).parent / "calls").open("a") as calls:
    calls.write("search\\n")
if settings.get("experiment") == "unknown":
    sys.exit("nothing is called unknown")
if settings.get("search.checkpoint_every"):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "step-5.pt").touch()
    time.sleep(60)
folder.mkdir(parents=True, exist_ok=True)
(folder / "candidate.json").write_text("{}")
(folder / "metrics.csv").write_text(f"step,value\\n{LINE}\\n{'resumed' if 'resume' in settings else ''}\\n")
"""
FINAL = """
import sys
from pathlib import Path

folder = Path(sys.argv[1].removeprefix("candidate=")) / "final"
folder.mkdir()
(folder / "result.json").write_text("{}")
"""


def git(repository: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.com")
    subprocess.run(["git", "-C", str(repository), *identity, *arguments], check=True, capture_output=True)


def commit(repository: Path, line: str) -> None:
    """A commit of a tree whose searches write this ``line``."""
    (repository / "nas.py").write_text(f"LINE = {line!r}\n")
    git(repository, "add", ".")
    git(repository, "commit", "--allow-empty", "-m", line)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "compare_bytes.sh", folder / "scripts")
    (folder / "train_search.py").write_text(SEARCH)
    (folder / "train_final.py").write_text(FINAL)
    (folder / ".gitignore").write_text("__pycache__/\ncalls\n")
    git(folder, "init", "--quiet")
    commit(folder, "1,0.5")
    return folder


def compare(repository: Path, *arguments: str) -> tuple[int, list[str], str]:
    """The exit code, the lines of the console and the error output."""
    command = ["bash", str(repository / "scripts" / "compare_bytes.sh"), *arguments]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=repository.parent, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["HEAD"], "it takes two trees"),
        (["HEAD", "nowhere"], "nowhere is neither a commit nor a folder"),
        (["--only", "debug,nothing", "HEAD", "HEAD"], "--only=nothing is not allowed: it must be among debug, darts"),
        (["--ignore", "HEAD", "HEAD"], "--ignore is no option"),
        (["HEAD", "HEAD", "--only"], "--only needs a value"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments: list[str], sentence: str, repository: Path) -> None:
    code, lines, error = compare(repository, *arguments)
    assert (code, lines) == (2, [])
    assert error.startswith(f"compare_bytes.sh: {sentence}")
    assert error.count("\n") == 1


def test_two_trees_with_the_same_bytes(repository: Path) -> None:
    code, lines, error = compare(repository, "--only", "debug,resumed", "HEAD", str(repository))
    assert (code, error) == (0, "")
    assert [line.split() for line in lines[:2]] == [["debug", "same"], ["resumed", "same"]]
    assert lines[2].startswith("compare_bytes: 2 of 2 runs the same")
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True)
    assert len(worktrees.stdout.splitlines()) == 1


def test_the_first_difference_is_named(repository: Path) -> None:
    commit(repository, "1,0.25")
    code, lines, _ = compare(repository, "--only", "debug", "HEAD~1", "HEAD")
    assert code == 1
    assert lines[0].split(maxsplit=1)[1] == r"differs: metrics.csv, line 2: A '1,0.5\n', B '1,0.25\n'"
    assert lines[1].startswith("compare_bytes: 0 of 1 runs the same")


def test_a_run_that_fails_in_both_trees_is_not_the_same(repository: Path) -> None:
    script = repository / "scripts" / "compare_bytes.sh"
    script.write_text(script.read_text().replace("experiment=debug method=random", "experiment=unknown method=random"))
    code, lines, _ = compare(repository, "--only", "random", str(repository), str(repository))
    assert code == 1
    said = "failed in A: nothing is called unknown; failed in B: nothing is called unknown"
    assert lines[0].split(maxsplit=1)[1] == said


def test_settings_may_have_other_names_in_one_tree(repository: Path) -> None:
    (repository / "new.yaml").touch()
    commit(repository, "1,0.5")
    script = repository / "scripts" / "compare_bytes.sh"
    script.write_text(script.read_text().replace('renamed="\n', 'renamed="\nrandom new.yaml experiment=unknown\n'))
    code, lines, _ = compare(repository, "--only", "random", "HEAD~1", "HEAD")
    assert code == 1
    assert lines[0].split(maxsplit=1)[1] == "failed in B: nothing is called unknown"


def test_what_a_commit_has_run_is_kept_and_what_a_changed_tree_has_run_is_not(repository: Path, tmp_path: Path) -> None:
    arguments = ("--only", "debug", "--results", str(tmp_path / "kept"), str(repository), str(repository))
    calls = repository / "calls"
    for _ in range(2):
        assert compare(repository, *arguments)[0] == 0
        assert len(calls.read_text().splitlines()) == 2
    (repository / "nas.py").write_text("LINE = 'changed'\n")
    for count in (4, 6):
        assert compare(repository, *arguments)[0] == 0
        assert len(calls.read_text().splitlines()) == count
