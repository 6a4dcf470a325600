"""Command lines from outside: a mistake, Hydra's own or ours, is one sentence with exit code 2; and the help."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The entry points are imported once; every command runs in a fork of that process, in a folder of its own.
FORKS = """
import json, os, runpy, sys
root = sys.argv[1]
for script in ("train_search.py", "train_final.py"):
    runpy.run_path(f"{root}/{script}", run_name="imported")
for number, (script, *arguments) in enumerate(json.load(open("commands.json"))):
    if not os.fork():
        os.mkdir(str(number))
        os.chdir(str(number))
        for stream in (1, 2):
            os.dup2(os.open(f"../{number}.{stream}", os.O_CREAT | os.O_WRONLY), stream)
        sys.argv = [f"{root}/{script}", *arguments]
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
DEBUG = "train_search.py experiment=debug hydra.run.dir=run"
OF_HYDRA = [
    ("train_search.py --cfg job --multirun", "Only one of"),
    ("train_search.py --resolve", "--resolve flag can only be used"),
    ("train_search.py --config-dir nothere", "not found"),
    ("train_search.py --config-name nothere", "Cannot find primary config"),
    ("train_search.py --cfg nonsense", "invalid choice"),
    ("train_search.py seed=1 --multirun seed=0,1", "flags go before or behind all settings"),
    ("train_search.py --epochs 3", "Unrecognized arguments: --epochs; settings have no dashes: search.epochs=3"),
    ("train_search.py hydra.job.env_set.X=1", "To append to your config use +hydra.job.env_set.X=1"),
    ("train_search.py hydra.mode=nonsense", "hydra.mode"),
    ("train_search.py --multirun seed=choice()", "seed=choice()"),
    ("train_search.py --multirun seed=interval(0,1)", "does not support sweep type"),
    ("train_search.py --multirun seed=glob(nothere*)", "the sweep has no jobs"),
    ("train_search.py seed=0,1", "Ambiguous value"),
    ("train_search.py hydra.run.dir=", "it must name a folder"),
    ("train_search.py hydra.run.dir=${nothing}", "nothing"),
    ("train_search.py hydra.run.dir=${oc.env:NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE"),
    ("train_search.py hydra.job.chdir=maybe", "hydra.job.chdir"),
    ("train_search.py --multirun hydra/launcher=rq seed=0,1", ": python -m pip install hydra-rq-launcher"),
    ("train_search.py hydra/job_logging=colorlog", ": python -m pip install hydra-colorlog"),
    ("train_search.py --multirun hydra.launcher._target_=foo seed=0,1", "foo"),
    ("train_search.py +hydra.callbacks.x._target_=foo.bar", "foo"),
    ("train_search.py hydra.searchpath=3", "hydra.searchpath"),
    ("train_search.py ~hydra", "hydra"),
    ("train_search.py seed=${seed}", "seed"),
    ("train_search.py --config-name=train_final", "candidate"),
]
OF_OURS = [
    (f"{DEBUG} hyperparameters.dropout.initial=1.2", "hyperparameters.dropout.initial=1.2"),
    (f"{DEBUG} data.split.train=5000", "data.split"),
    ("train_search.py resume=nowhere", "resume=nowhere"),
    (f"{DEBUG} space.layers=[", "space.layers=[ is not allowed: Hydra cannot read it"),
    (f"{DEBUG} data=nosuch", "Could not find 'data/nosuch'; Available options in 'data': arrays"),
    (f"{DEBUG} training.epoch=3", "training.epoch=3 is not allowed: training knows averaging, "),
    (f"{DEBUG} hyperparameters.colour=red", "; a + in front, +hyperparameters.colour=..., adds"),
    (f"{DEBUG} evalution.jobs=2", "(did you mean evaluation?)."),
    (f"{DEBUG} +batch_size=8", "+batch_size=8 is not allowed: nothing reads it; without the + "),
    (f"{DEBUG} hyperparameters.dropout=0.3", "and hyperparameters.dropout.initial is its value"),
    (
        "train_search.py experiment=darts_first_order scale=small space.steps=1 hydra.run.dir=run",
        "it must be a whole number from 1 to 1; experiment=darts_first_order sets it.",
    ),
    (f"{DEBUG} batch_size=8", "(did you mean training.batch_size?)."),
    (f"{DEBUG} training.lr=0.1", "schedule_end (did you mean hyperparameters.learning_rate.initial?)."),
    (f"{DEBUG} search.architecture.lr=0.1", "knows betas, rate, weight_decay (did you mean rate?)."),
    (f"{DEBUG} ~relaxation", "~relaxation is not allowed: a run needs relaxation."),
    (f"{DEBUG} epochs=8", "(did you mean search.epochs or evaluation.epochs or final.epochs?)."),
    (f"{DEBUG} data=cifar10", "data.download=true"),
    ("train_final.py", "candidate=null is not allowed: it must be a run folder"),
    ("train_search.py --multirun data=arrays,images data.fle=x", "(did you mean file?)."),
    ("train_search.py --multirun data=arrays,images data.file=x", "a sweep over data=arrays,images reads it before"),
    ("train_search.py --multirun space=darts_s2,darts_s3 space.cells=2", "a sweep over space=darts_s2,darts_s3 reads"),
    (
        "train_final.py candidate=darts_v2 space=darts space.final_cells=3 final.checkpoint=none.pt hydra.run.dir=run",
        "final.checkpoint=none.pt is not allowed: it must be a state dict for the candidate's network. none.pt is not "
        "there: final.checkpoint must be a file of weights.\n",
    ),
]
MISTAKES = [*OF_HYDRA, *OF_OURS]
HELP = "train_search.py --help"


class End(NamedTuple):
    """How a command ended, and what it left in its folder."""

    code: int
    output: str
    error: str
    left: list[str]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, End]:
    folder = tmp_path_factory.mktemp("command_lines")
    commands = [*(command for command, _ in MISTAKES), HELP]
    (folder / "commands.json").write_text(json.dumps([command.split(" ") for command in commands]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = str(Path(sys.executable).parent)  # where a shell would find this interpreter
    command = [sys.executable, "-c", FORKS, str(ROOT)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    found = {}
    for number, (name, code) in enumerate(zip(commands, done.stdout.split(), strict=True)):
        output, error = ((folder / f"{number}.{stream}").read_text() for stream in (1, 2))
        found[name] = End(int(code), output, error, [path.name for path in (folder / str(number)).rglob("*")])
    return found


@pytest.mark.parametrize(("command", "sentence"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_told_in_one_sentence(command: str, sentence: str, ends: dict[str, End]) -> None:
    end = ends[command]
    assert end.code == 2, end.error
    assert end.error.count("\n") == 1
    assert end.error.startswith(f"{command.split(' ')[0]}: ")
    assert sentence in end.error
    if (command, sentence) in OF_OURS:
        assert (end.output, end.left) == ("", [])


def test_help_lists_the_groups(ends: dict[str, End]) -> None:
    assert ends[HELP].code == 0
    for group in ("data", "space", "relaxation", "hypergradient", "hyperparameters", "training", "tracking"):
        assert f"\n{group}: " in ends[HELP].output
