"""``python -m nas.report predict``: new samples of every source, and every mistake in one sentence."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

import train_final
from nas.candidate import Candidate, Hyperparameters
from nas.configuration import build
from nas.data.new_samples import cells_of_folders
from nas.errors import InvalidValue, UnusableInput
from nas.report.__main__ import main
from nas.report.new_predictions import write_new_predictions
from nas.run.candidate_file import CandidateFile
from nas.run.recorded import record_configuration
from nas.tasks import data_and_task

CONF = str(Path(__file__).resolve().parents[2] / "conf")
ROWS = 60
DENSE = ("space=macro_table", "space.layers=[{type: dense, units: [4, 8]}]")
SERIES = ("space=macro_table", "space.layers=[{type: conv, filters: [2, 4], kernel_size: 3}, {type: global_pool}]")
CHAIN = ("space=macro", "space.layers=[{type: conv, filters: [2, 4], kernel_size: 3}, {type: dense, units: [4, 8]}]")
PLACES = ("space=macro_dense", "space.layers=[{type: conv, filters: [2, 4], kernel_size: [1, 3]}]")
WORDS = (
    "space=transformer",
    "space.width=8",
    "space.heads=[1,2]",
    "space.layers=1",
    "space.optional=0",
    "data.at_least=1",
)
QUIET = ("tracking.console=quiet", "tracking.tensorboard=false", "device=cpu", "final.epochs=1")
OWN_FILE = ("data=arrays", "data.file=own.npz", "data.layout=NLC")
SOURCES: dict[str, tuple[str, ...]] = {
    "table": ("data=table", "data.file=own.csv", "data.target=kind", "data.ignore=[amount]", *DENSE),
    "amounts": ("data=table", "data.file=own.csv", "data.target=[amount,age]", "task=regression", *DENSE),
    "arrays": (*OWN_FILE, "task=classification", *SERIES),
    "labels": (*OWN_FILE, "data.y=labels", "task=multi_label", *SERIES),
    "fields": (*OWN_FILE, "data.y=field", "task=dense_regression", *PLACES),
    "series": ("data=time_series", "data.file=own_TRAIN.ts", *SERIES),
    "images": ("data=images", "data.folder=pictures", *CHAIN),
    "masks": ("data=images", "data.folder=scans", "data.masks=masks", *PLACES),
    "texts": ("data=text", "data.folder=reviews", *WORDS),
    "rows of texts": ("data=text", "data.file=reviews.csv", "data.target=stars", *WORDS),
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data of every source, in which commands are typed."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 2, ROWS)
    age = [None if row % 7 == 2 else 30 + 9.5 * one + row for row, one in enumerate(kind)]
    table = {
        "age": [40.0 if one is None else one for one in age],
        "gap": age,
        "sex": [["f", "m", None][row % 3] for row in range(ROWS)],
        "kind": [["well", "ill"][one] for one in kind],
        "amount": 3.5 * kind + draw.standard_normal(ROWS),
    }
    pd.DataFrame(table).to_csv("own.csv", index=False)
    x = draw.standard_normal((ROWS, 12, 2)) + kind[:, None, None]
    x[5, 3:5, 0] = np.nan
    labels = np.stack([kind, 1 - kind, draw.integers(0, 2, ROWS)], 1)
    np.savez("own.npz", x=x, y=np.array(["no", "yes"])[kind], labels=labels, field=x.mean(2) ** 2 + 3)
    for part, rows in (("TRAIN", slice(0, 40)), ("TEST", slice(40, ROWS))):
        lines = [f"{','.join(map(str, one))}:{label}" for one, label in zip(x[rows, :, 1], kind[rows], strict=True)]
        Path(f"own_{part}.ts").write_text("\n".join(["@classLabel true 0 1", "@data", *lines]))
    for row, class_ in enumerate(kind[:40]):  # grey and not square
        name, part = "ab"[class_], ["train", "train", "test", "val"][row % 4]
        pixels = draw.integers(0, 120, (6, 9)).astype(np.uint8)
        pixels[row % 4 : row % 4 + 3, 2 : 4 + 4 * class_] += 130
        for place, values in ((f"pictures/{part}/{name}", pixels), ("scans", pixels), ("masks", (pixels > 125) * 7)):
            Path(place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(f"{place}/{row}.png")
        folder = Path(f"reviews/{part}/{name}")
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath(f"{row}.txt").write_text(f"it was {['bad', 'good'][class_]} on day {row}", encoding="utf-8")
    texts = [f"it was {['bad', 'good'][one]}, day {row}" for row, one in enumerate(kind)]
    pd.DataFrame({"review": texts, "stars": 4 * kind + 1}).to_csv("reviews.csv", index=False)
    return tmp_path


def retrained(source: str, folder: str = "run") -> Path:
    """A run folder whose candidate, the first that is drawn, has been trained for one epoch and tested."""
    with initialize_config_dir(CONF, version_base="1.3"):
        settings = ("data.workers=0",) if source in ("images", "masks") else ()
        overrides = [f"candidate={folder}/candidate.json", *QUIET, *SOURCES[source], *settings]
        config = compose("train_final", overrides=overrides)
    _, splits, task = data_and_task(config)
    space = build(config.space, "space", signature=task.signature)
    Path(folder).mkdir()
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    candidate = Candidate(architecture, Hyperparameters({"learning_rate": 0.05}))
    found = CandidateFile(candidate, space, splits.name, "cosine", task=task.to_json(), preparation=splits.preparation)
    found.write(Path(folder) / "candidate.json")
    final = Path(folder) / "final"
    train_final.retrain(config, final)
    record_configuration(final, config, OmegaConf.create(), [])
    return Path(folder)


def rows_of(file: str | Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as content:
        return list(csv.DictReader(content))


def without(column: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def new_data(source: str, rows: list[dict[str, str]]) -> str:
    """The samples of the test part, ``rows`` of predictions, as new data of their own; where they are."""
    samples = list(dict.fromkeys(row["sample"] for row in rows))
    if source in ("table", "amounts", "rows of texts"):
        table = pd.read_csv("reviews.csv" if source == "rows of texts" else "own.csv")
        table.iloc[[int(sample) - 1 for sample in samples]].to_csv("new.csv", index=False)
        return "new.csv"
    if source in ("arrays", "labels"):
        with np.load("own.npz") as stored:
            name = "y" if source == "arrays" else "labels"
            chosen = [int(sample) for sample in samples]
            np.savez("new.npz", **{"x": stored["x"][chosen], name: stored[name][chosen]})
        return "new.npz"
    return {"series": "own_TEST.ts", "images": "pictures/test", "texts": "reviews/test"}[source]


@pytest.mark.parametrize("source", [name for name in SOURCES if name not in ("fields", "masks")])
def test_the_test_part_gets_the_predictions_that_the_retraining_wrote(source: str, own: Path) -> None:
    run = retrained(source)
    expected = rows_of(run / "final" / "predictions.csv")
    result = json.loads((run / "final" / "result.json").read_text())
    told = write_new_predictions(run, new_data(source, expected), Path("said.csv"))
    found = rows_of("said.csv")
    assert without("sample", found) == without("sample", expected)
    assert list(found[0]) == list(expected[0])
    assert f"{result['told']} on the {result['test_samples']} whose target is known" in told
    write_new_predictions(run, new_data(source, expected), Path("again.csv"))
    assert Path("again.csv").read_bytes() == Path("said.csv").read_bytes()


def test_rows_without_a_target_get_predictions_without_a_truth(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = retrained("table")
    table = pd.read_csv("own.csv")
    table.drop(columns=["kind", "amount"]).to_csv("new.csv", index=False)
    capsys.readouterr()
    main(["predict", str(run), "new.csv"])
    assert capsys.readouterr().out == f"predicted {ROWS} samples: new_predictions.csv\n"
    bare = rows_of("new_predictions.csv")
    assert list(bare[0]) == ["sample", "target", "predicted", "probability"]
    assert [row["sample"] for row in bare] == [str(row + 1) for row in range(ROWS)]
    known = ["ill", "unheard of", None] + [None] * (ROWS - 3)
    table.assign(kind=known, sex="x", note="new").to_csv("new.csv", index=False)
    main(["predict", str(run / "final"), "new.csv", "--overwrite"])
    out = capsys.readouterr().out
    assert "new.csv: left out, as the training had no such column: note\n" in out
    assert f"texts that the training had not, which count as unknown: sex ({ROWS})\n" in out
    assert "1 target that the training has no word for, taken as not known: unheard of\n" in out
    assert "on the 1 whose target is known: new_predictions.csv" in out
    assert [row["true"] for row in rows_of("new_predictions.csv")] == ["ill"] + [""] * (ROWS - 1)


def test_one_row_is_too_few_to_measure_on(own: Path) -> None:
    run = retrained("amounts")
    pd.read_csv("own.csv").head(1).to_csv("one.csv", index=False)
    told = write_new_predictions(run, "one.csv")
    assert told == "predicted 1 sample, too few to measure on the 1 whose target is known: one_predictions.csv"


def test_masks_become_pictures_and_fields_an_array(own: Path) -> None:
    run = retrained("masks")
    told = write_new_predictions(run, "scans")
    assert told == "predicted 40 images: scans_predictions"
    with np.load(run / "final" / "samples.npz") as shown:
        for sample, prediction in zip(shown["sample"], shown["prediction"], strict=True):
            mask = np.array(Image.open(Path("scans_predictions") / sample))
            assert np.array_equal(mask, np.array([0, 7], np.uint8)[prediction])
    kept = [file.read_bytes() for file in sorted(Path("scans").iterdir())]
    with pytest.raises(InvalidValue, match="--output=scans is not allowed: it is the new data"):
        write_new_predictions(run, "scans", Path("scans"), overwrite=True)
    assert [file.read_bytes() for file in sorted(Path("scans").iterdir())] == kept
    Path("twins").mkdir()
    with Image.open(sorted(Path("scans").iterdir())[0]) as scan:
        for ending in ("png", "tif"):
            scan.save(f"twins/one.{ending}")
    write_new_predictions(run, "twins")
    assert sorted(file.name for file in Path("twins_predictions").iterdir()) == ["one.png.png", "one.tif.png"]
    run = retrained("fields", "other")
    told = write_new_predictions(run, "own.npz", Path("said.npz"))
    assert told == f"predicted {ROWS} samples: said.npz"
    with np.load("said.npz") as said, np.load(run / "final" / "samples.npz") as shown:
        assert said["prediction"].shape == (ROWS, 1, 12)
        chosen = said["prediction"][shown["sample"].astype(int)]
        np.testing.assert_allclose(chosen, shown["prediction"].reshape(chosen.shape), rtol=1e-5)


def test_a_class_is_the_folder_on_top_as_in_the_training(tmp_path: Path) -> None:
    files = [str(tmp_path / one) for one in ("train/a/m/1.png", "b/m/2.png", "3.png")]
    assert cells_of_folders(files, tmp_path) == [["a", "b", ""]]
    assert cells_of_folders(files[2:], tmp_path) is None


def one_picture(mode: str) -> Callable[[], str]:
    def write() -> str:
        Image.new(mode, (9, 6), 99 if mode == "L" else (9, 200, 30)).save("one.png")
        return "one.png"

    return write


def test_pictures_of_other_sizes_are_cut_and_a_picture_alone_will_do(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = retrained("images")
    assert write_new_predictions(run, one_picture("L")(), Path("one.csv")) == "predicted 1 image: one.csv"
    assert [row["sample"] for row in rows_of("one.csv")] == ["one.png"]
    with pytest.raises(UnusableInput, match=r"1 of 1 pictures have colours, and those of the training were grey"):
        write_new_predictions(run, one_picture("RGB")(), Path("two.csv"))
    Path("empty").mkdir()
    with pytest.raises(UnusableInput, match=r"There are no pictures below .*empty"):
        write_new_predictions(run, "empty")
    Path("broken.png").write_text("no picture")
    with pytest.raises(UnusableInput, match=r"broken\.png cannot be read \(it is in no known image format\)"):
        write_new_predictions(run, "broken.png")


UNLIKE: dict[str, dict[str, tuple[Callable[[], Any], str]]] = {
    "arrays": {
        "wide.npz": (lambda: {"x": np.zeros((4, 12, 3))}, "samples of 3x12, and the network takes 2x12"),
        "one.npz": (lambda: {"x": np.zeros((12, 2))}, r"samples as NLC are wanted; x\[None\] makes a sample of it"),
        "none.npz": (lambda: {"x": np.zeros((0, 12, 2))}, r"x of none.npz is \(0, 12, 2\), and samples as NLC"),
        "bytes.npz": (lambda: {"x": np.zeros((4, 12, 2), np.uint8)}, "x of bytes.npz is uint8, and that of the tr"),
        "texts.npz": (lambda: {"x": np.full((4, 12, 2), "a")}, "x is .* of text: inputs must be numbers"),
        "other.npz": (lambda: {"a": np.zeros(3), "b": np.zeros(3)}, "other.npz has the arrays a, b, and x is wanted"),
    },
    "series": {
        "two.ts": (lambda: "@data\n1,2:3,4", "two.ts has 2 channels, and the series of the training had 1"),
        "series.csv": (lambda: "1,2", r"series.csv cannot be read: series are in .ts files"),
    },
    "texts": {"empty": (lambda: None, "There is no .txt file in .*empty")},
}


@pytest.mark.parametrize("source", list(UNLIKE))
def test_samples_unlike_those_of_the_training_are_refused(source: str, own: Path) -> None:
    run = retrained(source)
    for name, (content, sentence) in UNLIKE[source].items():
        written = content()
        if isinstance(written, dict):
            np.savez(name, **written)
        elif written is None:
            Path(name).mkdir()
        else:
            Path(name).write_text(written)
        with pytest.raises(UnusableInput, match=sentence):
            write_new_predictions(run, name)
    assert not list(Path().glob("*_predictions*"))


def test_series_without_labels_and_an_array_alone_are_read(own: Path) -> None:
    run = retrained("series")
    lines = Path("own_TEST.ts").read_text().splitlines()[2:]
    Path("new.ts").write_text("\n".join(["@classLabel false", "@data", *(line.rpartition(":")[0] for line in lines)]))
    write_new_predictions(run, "new.ts")
    assert without("true", rows_of(run / "final" / "predictions.csv")) == rows_of("new_predictions.csv")
    run = retrained("arrays", "other")
    np.save("x.npy", np.load("own.npz")["x"])
    write_new_predictions(run, "x.npy")
    write_new_predictions(run, "own.npz")
    assert without("true", rows_of("own_predictions.csv")) == rows_of("x_predictions.csv")


def test_a_mistake_ends_in_one_sentence_and_writes_nothing(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = retrained("table")
    table = pd.read_csv("own.csv")
    table.to_csv("new.csv", index=False)
    table.drop(columns=["gap", "sex"]).to_csv("lacking.csv", index=False)
    table.assign(age="old").to_csv("words.csv", index=False)
    table.to_csv("semicolons.csv", index=False, sep=";")
    Path("empty.csv").touch()
    Path("bare").mkdir()
    Path("searched").mkdir()
    Path("searched/candidate.json").write_text("{}")
    Path("old/final").mkdir(parents=True)
    Path("old/final/weights.pt").touch()
    Path("said.csv").write_text("mine")
    changed = Path("changed")
    changed.mkdir()
    for file in (run / "final").glob("[mnrw]*.*"):
        (changed / file.name).write_bytes(file.read_bytes())
    text = (changed / "network.json").read_text()
    (changed / "network.json").write_text(text.replace('"median": ', '"median": 1'))
    for arguments, sentence in {
        ("bare", "new.csv"): "run folder=bare is not allowed: it must be a run folder whose candidate train_final.py",
        ("searched", "new.csv"): "its candidate is not retrained yet: ",
        ("old", "new.csv"): "its network was trained when there was no network.json yet",
        ("changed", "new.csv"): "changed/network.json has been changed since it was written.",
        ("run", "nowhere.csv"): "nowhere.csv is not there.",
        ("run", "empty.csv"): "empty.csv is empty: it needs a row with the names of its columns",
        (
            "run",
            "lacking.csv",
        ): "lacks the columns gap, sex: the network takes age, gap, sex, and lacking.csv has age, ",
        ("run", "words.csv"): "words.csv: age of row 1 is 'old', not a number",
        ("run", "own.npz"): "own.npz is no table: data=arrays reads it; the new data must be CSV or Parquet.",
        ("run", "semicolons.csv"): "\"data.csv.separator=';'\" may tell its columns apart.",
        (
            "run",
            "new.csv",
            "data.ignore=[age]",
        ): "data.ignore=['age'] is not allowed: only data.csv.*, data.text_column, data.x and data.y",
        ("run", "new.csv", "--output", "said.csv"): "--output=said.csv is not allowed: it is there: name another one",
        ("run", "new.csv", "--output", "no/said.csv"): "--output=no/said.csv is not allowed: its folder is not there",
    }.items():
        with pytest.raises(SystemExit) as end:
            main(["predict", *arguments])
        error = capsys.readouterr().err
        assert end.value.code == 2
        assert sentence in error
        assert len(error.strip().splitlines()) == 1
    assert Path("said.csv").read_text() == "mine"
    assert not list(Path().glob("*_predictions*"))
    main(["predict", "run", "semicolons.csv", "data.csv.separator=';'"])
    main(["predict", "run", "new.csv"])
    assert Path("semicolons_predictions.csv").read_bytes() == Path("new_predictions.csv").read_bytes()
