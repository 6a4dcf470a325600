"""Searches on a user's own tables, arrays and series: from the settings to a file that takes new rows, and resumed."""

import csv
import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import train_final
import train_search
from nas.candidate import Candidate, Hyperparameters
from nas.errors import InvalidValue, UnusableInput
from nas.report.page import write_page
from nas.report.shown_samples import read_shown_samples
from nas.run.candidate_file import CandidateFile, read_candidate_file
from nas.run.recorded import record_configuration
from nas.spaces.macro.space import Macro
from nas.tasks import Classification
from tests.data.tables import loaded, write_table
from tests.killing import assert_same_bytes, killed_in_search

CONF = str(Path(__file__).resolve().parents[2] / "conf")
ROWS = 60
DENSE = "space.layers=[{type: dense, units: [4, 8]}, {type: dense, units: [4, 8], optional: true}]"
SERIES = "space.layers=[{type: conv, filters: [2, 4], kernel_size: [3, 5]}, {type: global_pool, kind: [average, max]}]"
EPOCH = "data.epoch_samples=60"  # two passes of the 36 rows that are trained on
QUICK = ("search.epochs=2", "search.checkpoint_every=2", "training.batch_size=8", "final.epochs=2", "space=macro_table")
QUIET = ("tracking.console=quiet", "tracking.tensorboard=false", "device=cpu")
CHAIN = (
    "space.layers=[{type: conv, filters: [2, 4], kernel_size: 3}, {type: pool, pool_size: 2, kind: [max, average]}, "
    "{type: dense, units: [4, 8]}]"
)
PLACES = "space.layers=[{type: conv, filters: [2, 4], kernel_size: [1, 3]}]"
SOURCES: dict[str, tuple[str, ...]] = {
    "table": ("data=table", "data.file=own.csv", "data.target=kind", "data.ignore=[amount]", DENSE),
    "amounts": ("data=table", "data.file=own.csv", "data.target=[amount,age]", "data.split.by=day", DENSE),
    "arrays": ("data=arrays", "data.file=own.npz", "data.layout=NLC", "task.class_weights=balanced", SERIES),
    "labels": ("data=arrays", "data.file=own.npz", "data.layout=NLC", "data.y=labels", SERIES),
    "time_series": ("data=time_series", "data.file=own_TRAIN.ts", SERIES),
    "images": ("data=images", "data.folder=pictures", "space=macro", "data.augmentation.flip=true", CHAIN),
    "streamed": ("data=images", "data.folder=pictures", "space=macro", "data.memory=0", "data.workers=0", CHAIN),
    "masks": ("data=images", "data.folder=pictures", "data.masks=masks", "space=macro_dense", PLACES),
}
PICTURES = ("images", "streamed", "masks")
TASKS = {"arrays": "classification", "labels": "multi_label"}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data of every source, in which commands are typed."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 2, ROWS)
    age = [None if row % 7 == 2 else 30 + 9.5 * one for row, one in enumerate(kind)]
    table = {
        "age": [40.0 if one is None else one for one in age],
        "gap": age,
        "sex": [["f", "m", None][row % 3] for row in range(ROWS)],
    }
    table |= {"kind": [["well", "ill"][one] for one in kind], "amount": 3.5 * kind, "day": np.arange(ROWS) // 3}
    pd.DataFrame(table).to_csv("own.csv", index=False)
    x = draw.standard_normal((ROWS, 12, 2)) + kind[:, None, None]
    np.savez("own.npz", x=x, y=kind, labels=np.stack([kind, 1 - kind, draw.integers(0, 2, ROWS)], 1))
    for part, rows in (("TRAIN", slice(0, 40)), ("TEST", slice(40, ROWS))):
        lines = [f"{','.join(map(str, one))}:{label}" for one, label in zip(x[rows, :, 0], kind[rows], strict=True)]
        Path(f"own_{part}.ts").write_text("\n".join(["@classLabel true 0 1", "@data", *lines]))
    for row, class_ in enumerate(kind[:40]):  # grey and not square; the mask is where it is bright
        pixels = draw.integers(0, 120, (6, 9)).astype(np.uint8)
        pixels[row % 4 : row % 4 + 3, 2 : 4 + 4 * class_] += 130
        for folder, values in ((f"pictures/{'ab'[class_]}", pixels), (f"masks/{'ab'[class_]}", 255 * (pixels > 125))):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(f"{folder}/{row}.png")
    return tmp_path


def composed(script: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(script, overrides=list(overrides))


def settings_of(source: str) -> DictConfig:
    first, *rest = SOURCES[source]
    task = f"task={TASKS.get(source, 'auto')}"
    return composed("train_search", first, EPOCH, task, *QUICK, *QUIET, *rest)


def test_a_chain_of_images_that_was_asked_for_is_refused_to_a_table_and_the_default_exchanged(own: Path) -> None:
    table = (*SOURCES["table"][:-1], EPOCH, *QUIET)
    config = composed("train_search", *table)
    assert train_search.built_parts(config, own / "run").space.settings()["activations"][-1] == "tanh"  # macro_table
    record_configuration(own / "run", config, OmegaConf.create(), [*table, "space=macro"])
    with pytest.raises(InvalidValue, match=r"rows of numbers take dense layers only, .*: take space=macro_table"):
        train_search.built_parts(config, own / "run")


def slow(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("source", ["table", *map(slow, [name for name in SOURCES if name != "table"])])
def test_killed_it_goes_on_to_the_same_bytes(source: str, own: Path) -> None:
    config = settings_of(source)
    train_search.search(config, own / "whole")
    with killed_in_search(0, 5):
        train_search.search(config, own / "killed")
    train_search.search(config, own / "killed")
    assert_same_bytes(own / "killed", own / "whole", "metrics.csv", "candidate.json")
    found = read_candidate_file(own / "whole" / "candidate.json")
    assert found.data == ("pictures" if source in PICTURES else "own")
    assert len(found.digest) == 64


@pytest.mark.parametrize("source", ["table", *map(slow, ["amounts", "time_series", "images", "masks"])])
def test_a_found_network_is_retrained_and_takes_new_rows(source: str, own: Path) -> None:
    config = settings_of(source)
    train_search.search(config, own / "run")
    del config.search, config.method
    again = composed("train_final", f"candidate={own / 'run'}", *QUIET)
    for group in ("data", "task", "training", "final", "hyperparameters", "space"):
        again[group] = settings_of(source)[group]
    again.tracking.tensorboard = source == "masks"
    _, result = train_final.retrain(again, own / "final")
    assert result["main"]["name"] == {"amounts": "r2", "masks": "mean_iou"}.get(source, "accuracy")
    assert result["test_samples"] == {"time_series": 20, "images": 8, "masks": 8}.get(source, 12)
    assert set(result["trivial"]) == {measure["name"] for measure in result["measures"]}
    predictions = own / "final" / "predictions.csv"
    assert predictions.is_file() == (source != "masks")
    if source in ("images", "masks"):
        outputs = {"images": ["a", "b"], "masks": ["0", "255"]}[source]
        assert result["outputs"]["names"] == outputs
    if source == "masks":
        _assert_masks_can_be_looked_at(own / "final", result)
        assert json.loads((own / "run" / "candidate.json").read_text())["preparation"]["mask_values"] == ["0", "255"]
    if source == "amounts":  # nothing but an accuracy is called one
        written = [file for name in ("*.json", "*.csv", "*.html") for file in own.glob(f"[rf]*/**/{name}")]
        assert {"candidate.json", "metrics.csv", "result.json"} <= {file.name for file in written}
        assert [str(file) for file in written if "accuracy" in file.read_text(encoding="utf-8").lower()] == []
    if source == "images":
        rows = list(csv.DictReader(predictions.open()))
        assert [row["sample"][0] for row in rows] == [row["true"] for row in rows]  # pictures lie in a/ and b/
        assert [sum(row["true"] == name for row in rows) for name in "ab"] == result["outputs"]["values"]["samples"]
    if source not in ("table", "amounts"):
        return
    file: dict[str, Any] = runpy.run_path(str(own / "final" / "network.py"))
    network = file["load"](own / "final" / "weights.pt")
    rows = pd.read_csv(own / "own.csv").astype(object).where(lambda cells: cells.notna(), None).to_dict("records")
    outputs = network(file["prepare"](rows))
    assert outputs.shape == (ROWS, 2)
    assert outputs.isfinite().all()
    if source == "table":
        assert file["CLASSES"] == ("ill", "well")
        assert json.loads((own / "run" / "candidate.json").read_text())["preparation"]["left_out"] == ["amount"]
    else:
        assert len(file["TARGET_MEAN"]) == len(file["TARGET_STD"]) == 2
    needless = {"table": ("kind", "amount"), "amounts": ("amount", "age", "day")}[source]
    one = network(file["prepare"]({name: value for name, value in rows[3].items() if name not in needless}))
    torch.testing.assert_close(one, outputs[3:4])
    if source == "table":
        pd.DataFrame(rows[:-1]).to_csv("own.csv", index=False)
        with pytest.raises(InvalidValue, match="data=own is not allowed: its files have changed since the search"):
            train_final.retrain(again, own / "other")


@pytest.mark.parametrize("called", ["Größe", "Gr__e", "Gro__e"])
def test_data_that_have_changed_are_refused_whatever_the_search_called_them(called: str, tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "age": [20 + 7 * row % 50 for row in range(ROWS)],
        "kind": [["a", "b"][row // 2 % 2] for row in range(ROWS)],
    }
    task, splits = Classification().fitted(loaded(write_table(tmp_path, columns, "Größe.csv")))
    space = Macro([{"type": "dense", "units": [4, 8]}], ["relu"], signature=task.signature)
    candidate = Candidate(space.sample(torch.Generator()).architecture, Hyperparameters({}))
    found = CandidateFile(candidate, space, called, "cosine", task=task.to_json(), digest=splits.digest)
    assert train_final.checked_candidate(found, splits, task).class_names == ("a", "b")
    with pytest.raises(InvalidValue, match="data=Größe is not allowed: its files have changed since the search"):
        train_final.checked_candidate(replace(found, digest="0" * 64), splits, task)
    other = replace(found, data="other", digest="0" * 64)
    assert train_final.checked_candidate(other, splits, task) is other


def _assert_masks_can_be_looked_at(final: Path, result: dict[str, Any]) -> None:
    """Scores of all test pictures, a few of these drawn, and ``network.py`` says of their files what was drawn."""
    rows = list(csv.DictReader((final / "scores.csv").open()))
    assert len(rows) == result["test_samples"]
    assert (final / "figures" / "samples.png").is_file()
    shown = read_shown_samples(final / "samples.npz")
    assert shown is not None
    assert set(shown.sample) <= {row["sample"] for row in rows}
    file: dict[str, Any] = runpy.run_path(str(final / "network.py"))
    network = file["load"](final / "weights.pt")
    for name, drawn in zip(shown.sample, shown.prediction, strict=True):
        picture = torch.from_numpy(np.array(Image.open(Path("pictures") / str(name)).convert("L")))
        mask = file["mask"](network(file["prepare"](picture[None])))
        assert (mask.dtype, mask.shape) == (torch.uint8, (1, *picture.shape))
        assert np.array_equal(mask[0], np.array([0, 255])[drawn])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(final / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert {"architecture", "samples"} <= set(events.Tags()["images"])
    page = write_page(final).read_text(encoding="utf-8")
    assert all(f"<figcaption>{name}: mean IoU" in page for name in shown.sample)


@pytest.mark.parametrize("way", ["search", slow("random"), slow("retraining")])
def test_weights_of_classes_act_in_search_baselines_and_retraining(way: str, own: Path) -> None:
    first, *rest = SOURCES["table"]
    method = ("method=random", "budget.evaluations=1", "evaluation.epochs=2") if way == "random" else ()
    found = {}
    for name, weights in (("equal", "null"), ("weighted", "[9,1]")):
        config = composed("train_search", first, EPOCH, *QUICK, *QUIET, *rest, *method, f"task.class_weights={weights}")
        folder = own / name
        if way == "retraining":
            if name == "equal":
                train_search.search(config, own / "run")
            again = composed("train_final", f"candidate={own / 'run'}", *QUIET)
            for group in ("data", "task", "training", "final", "hyperparameters", "space"):
                again[group] = config[group]
            train_final.retrain(again, folder)
        else:
            train_search.search(config, folder)
        if way == "random":
            evaluated = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[0])
            found[name] = evaluated["candidate"], evaluated["metrics"]["loss"]
        else:
            lines = (folder / "metrics.csv").read_text().splitlines()
            found[name] = None, float(next(line for line in lines if "train/loss" in line).rpartition(",")[2])
    assert found["equal"][0] == found["weighted"][0], "one candidate"
    assert found["equal"][1] != pytest.approx(found["weighted"][1], rel=1e-6)


def test_a_validation_part_of_one_sample_is_refused_before_anything_is_written(own: Path) -> None:
    first, *rest = SOURCES["table"]
    config = composed("train_search", first, *QUICK, *QUIET, *rest, "data.split.validation=1")
    with pytest.raises(UnusableInput, match=r"The validation part of own has one sample, and a search needs two"):
        train_search.search(config, own / "run")
    assert not (own / "run").exists()
