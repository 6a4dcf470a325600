"""Mistakes that Hydra itself makes of a command line: one sentence, exit code 2, as for any other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The entry point is imported once; every command runs in a fork of that process.
FORKS = """
import os, runpy, sys
root = sys.argv[1]
runpy.run_path(f"{root}/train_search.py", run_name="imported")
for number, line in enumerate(open("commands").read().splitlines()):
    if not os.fork():
        for stream in (1, 2):
            os.dup2(os.open(f"{number}.{stream}", os.O_CREAT | os.O_WRONLY), stream)
        sys.argv = [f"{root}/train_search.py", *line.split("|")]
        code = 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code or 0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
MISTAKES = [
    ("--cfg|job|--multirun", "Only one of"),
    ("--resolve", "--resolve flag can only be used"),
    ("--config-dir|nothere", "not found"),
    ("--config-name|nothere", "Cannot find primary config"),
    ("--cfg|nonsense", "invalid choice"),
    ("seed=1|--multirun|seed=0,1", "flags go before or behind all settings"),
    ("hydra.mode=nonsense", "hydra.mode"),
    ("--multirun|seed=choice()", "seed=choice()"),
    ("--multirun|seed=interval(0,1)", "does not support sweep type"),
    ("--multirun|seed=glob(nothere*)", "the sweep has no jobs"),
    ("seed=0,1", "Ambiguous value"),
    ("hydra.run.dir=", "it must name a folder"),
    ("hydra.run.dir=${nothing}", "nothing"),
    ("hydra.run.dir=${oc.env:NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE"),
    ("hydra.job.chdir=maybe", "hydra.job.chdir"),
    ("--multirun|hydra/launcher=rq|seed=0,1", "pip install hydra-rq-launcher"),
    ("hydra/job_logging=colorlog", "pip install hydra-colorlog"),
    ("--multirun|hydra.launcher._target_=foo|seed=0,1", "foo"),
    ("+hydra.callbacks.x._target_=foo.bar", "foo"),
    ("hydra.searchpath=3", "hydra.searchpath"),
    ("~hydra", "hydra"),
    ("seed=${seed}", "seed"),
    ("--config-name=train_final", "candidate"),
]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of every command."""
    folder = tmp_path_factory.mktemp("flags")
    (folder / "commands").write_text("\n".join(line for line, _ in MISTAKES))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FORKS, str(ROOT)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    files = ([(folder / f"{number}.{stream}").read_text() for stream in (1, 2)] for number in range(len(MISTAKES)))
    return [(int(code), *texts) for code, texts in zip(done.stdout.split(), files, strict=True)]


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_told_in_one_sentence(number: int, ends: list[tuple[int, str, str]]) -> None:
    code, _, error = ends[number]
    assert code == 2, error
    assert error.count("\n") == 1
    assert error.startswith("train_search.py: ")
    assert MISTAKES[number][1] in error
