"""Which logit is which class: recorded with candidate, weights, code and exports; another list is refused."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data.class_names import require_same_classes
from nas.errors import InvalidValue
from nas.interop.original_state import class_names_of, load_weights, write_weights
from nas.run.candidate_file import read_candidate_file

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("1", "10", "2", "grün")  # as they are sorted: not by their number
SETTINGS = (
    *("experiment=debug", "data=imagenet", "data.folder=images", "data.size=8", "data.workers=0"),
    *("data.shorter_side=8", "data.split.validation=8", "data.augmentation.smallest_area=1"),
    *("data.augmentation.colour_jitter=[0,0,0,0]", "data.augmentation.flip=false", "training.batch_size=8"),
    *("search.epochs=1", "tracking.console=quiet", "hydra.run.dir=run"),
)


def call(script: str, *arguments: str, folder: Path) -> tuple[int, str]:
    """Exit code and last line of a script or, by its dotted name, of a module."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    command = [sys.executable, *started, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``images``, and of a search in them with its retraining, ``run``."""
    folder = tmp_path_factory.mktemp("names")
    numbers = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for name in NAMES:
            (folder / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = numbers.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / part / name / f"{index}.png")
    assert call("train_search.py", *SETTINGS, folder=folder)[0] == 0
    code, last = call("train_final.py", "candidate=run", "final.epochs=1", "final.export=torch_export", folder=folder)
    assert code == 0, last
    return folder


@pytest.mark.slow
def test_the_names_stand_with_everything_that_has_logits(finished: Path) -> None:
    run = finished / "run"
    assert read_candidate_file(run / "candidate.json").class_names == NAMES
    result = json.loads((run / "final" / "result.json").read_text())
    assert tuple(result["candidate"]["class_names"]) == NAMES
    state = torch.load(run / "final" / "weights.pt", weights_only=True)
    assert class_names_of(state) == list(NAMES)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    extra = {"class_names.json": ""}
    torch.export.load(run / "final" / "network.pt2", extra_files=extra)
    assert json.loads(extra["class_names.json"]) == list(NAMES)


@pytest.mark.slow
def test_the_file_of_the_network_has_them_and_loads_the_weights(finished: Path) -> None:
    script = "import network; network.load('weights.pt'); print(ascii(network.CLASSES))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=finished / "run" / "final", capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == NAMES


@pytest.mark.slow
def test_a_renamed_folder_is_refused_for_the_candidate_and_for_the_weights(finished: Path) -> None:
    for part in ("train", "val"):
        (finished / "images" / part / "10").rename(finished / "images" / part / "zzz")
    try:
        code, last = call("train_final.py", "candidate=run", "hydra.run.dir=again", folder=finished)
        difference = "is '10', that of the data is '2' (3 of 4 classes differ)"
        assert (code, last) == (
            2,
            f"train_final.py: data=imagenet is not allowed: class 1 of the candidate {difference}; for other classes "
            "on purpose, remove class_names, digest and fingerprint from its candidate.json.",
        )
        assert not (finished / "again" / "weights.pt").exists()
        code, last = call("nas.report", "why", "run", folder=finished)
        assert code == 2
        assert last.endswith(f"data=imagenet is not allowed: class 1 of the candidate {difference}.")
        data = [argument for argument in SETTINGS if argument.startswith("data")]
        named = ("candidate=darts_v2", "space=darts", "space.final_cells=2", "hydra.run.dir=other", *data)
        checkpoint = "final.checkpoint=run/final/weights.pt"
        code, last = call("train_final.py", *named, checkpoint, "final.epochs=0", folder=finished)
        assert (code, last) == (
            2,
            "train_final.py: final.checkpoint=run/final/weights.pt is not allowed: class 1 of the weights "
            f"{difference}.",
        )
        further = ("search.from=run", "hydra.run.dir=further")
        code, last = call("train_search.py", *SETTINGS[:-1], *further, folder=finished)
        sentence = f"train_search.py: search.from=run is not allowed: class 1 of that search {difference}."
        assert (code, last) == (2, sentence)
        for script, run in (("train_search.py", "run"), ("train_final.py", "run/final")):
            code, last = call(script, f"resume={run}", folder=finished)
            assert code == 2
            owner = "run" if script == "train_search.py" else "candidate"
            assert f"{script}: data=imagenet is not allowed: class 1 of the {owner} {difference}; " in last
        content = json.loads((finished / "run" / "candidate.json").read_text())
        del content["class_names"], content["digest"], content["fingerprint"]
        (finished / "on_purpose.json").write_text(json.dumps(content))
        settings = ("final.epochs=0", "hydra.run.dir=on_purpose", *data)
        code, last = call("train_final.py", "candidate=on_purpose.json", *settings, folder=finished)
        assert code == 0, last
        state = torch.load(finished / "on_purpose" / "weights.pt", weights_only=True)
        assert class_names_of(state) == ["1", "2", "grün", "zzz"]
    finally:
        for part in ("train", "val"):
            (finished / "images" / part / "zzz").rename(finished / "images" / part / "10")


def test_names_in_the_weights_change_nothing_else(tmp_path: Path) -> None:
    network, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    write_weights(network, tmp_path / "named.pt", ("a", "b", "c"))
    write_weights(network, tmp_path / "plain.pt", None)
    assert class_names_of(torch.load(tmp_path / "plain.pt", weights_only=True)) is None
    named = torch.load(tmp_path / "named.pt", weights_only=True)
    assert list(named) == list(network.state_dict())
    other.load_state_dict(named)
    assert torch.equal(other.weight, network.weight)
    load_weights(other, tmp_path / "named.pt", ("a", "b", "c"))
    load_weights(other, tmp_path / "named.pt")  # data without names fit any
    with pytest.raises(InvalidValue, match=r"class 2 of the weights is 'c', that of the data is 'd' \(1 of 3"):
        load_weights(other, tmp_path / "named.pt", ("a", "b", "d"))


@pytest.mark.parametrize(
    ("recorded", "found", "sentence"),
    [
        (("a", "b"), ("b", "a"), r"class 0 of it is 'a', that of the data is 'b' \(2 of 2 classes differ\)"),
        (("a", "B"), ("a", "b"), r"class 1 of it is 'B', that of the data is 'b' \(1 of 2 classes differ\)"),
        (("a", "b"), ("a", "b", "c"), "it is for 2 classes, the data have 3"),
    ],
)
def test_another_list_is_refused_by_its_first_difference(
    recorded: tuple[str, ...], found: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(InvalidValue, match=sentence):
        require_same_classes("data", "x", "it", recorded, found)
    for one, other in ((recorded, recorded), (None, found), (recorded, None), (list(recorded), recorded)):
        require_same_classes("data", "x", "it", one, other)
