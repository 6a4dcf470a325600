"""Scores of test samples of places, and the few of them that are drawn."""

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score
from torch import Tensor

from nas.data.augmentation import UNKNOWN_CLASS
from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.report import sample_drawing
from nas.report.__main__ import main
from nas.report.drawing import save_drawing
from nas.report.page import page
from nas.report.recorded_run import RecordedRun
from nas.report.sample_drawing import drawn_in_words, keys, sample_figure, sample_sheet
from nas.report.sample_files import PlacesFiles, sample_files
from nas.report.shown_samples import LONGEST_SIDE, ShownSamples, read_shown_samples
from nas.run.environment import record_environment
from nas.tasks import DenseClassification, DenseRegression, Task, recorded_outputs, recorded_task
from tests.report.conftest import CANDIDATE, by_epoch, write_curves
from tests.report.test_page import Document

NAMES = ("road", "<b>car</b>", "255", "tram")


@pytest.fixture(autouse=True)
def no_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drawing in three formats takes longer than all else here."""
    monkeypatch.setattr("nas.report.sample_files.save_drawing", lambda figure, path: None)


def splits_of(inputs: Tensor, targets: Tensor, **settings: Any) -> DataSplits:
    """A fifth to train, a fifth to validate."""
    fifth = len(inputs) // 5
    sizes = (fifth, fifth, len(inputs) - 2 * fifth)
    parts = [ArrayDataset(*pair, dense=True) for pair in zip(inputs.split(sizes), targets.split(sizes), strict=True)]
    channels = inputs.shape[1]
    return DataSplits("maps", *parts, mean=(0.5,) * channels, std=(2.0,) * channels, head="dense", **settings)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masks(count: int = 40, channels: int = 3, sides: tuple[int, ...] = (6, 9)) -> tuple[Task, DataSplits]:
    """Four classes, of which the third is ignored and the fourth is in the training part only."""
    inputs = draws(count, channels, *sides).abs().clamp(max=1)
    targets = (3 * draws(count, *sides, seed=1).abs()).long().clamp(max=2)
    targets[(targets == 2).flatten(1).all(1)] = 0
    targets[:3] = torch.where(draws(3, *sides, seed=2) > 1, 3, targets[:3])
    return DenseClassification(ignore=255).fitted(splits_of(inputs, targets, class_names=NAMES))


def fields(
    count: int = 40, channels: int = 1, sides: tuple[int, ...] = (6, 9), numbers: int = 2
) -> tuple[Task, DataSplits]:
    """Numbers around 50, of which some are not known."""
    targets = 50 + 4 * draws(count, numbers, *sides, seed=3).double()
    targets[draws(count, numbers, *sides, seed=4) > 1.5] = torch.nan
    return DenseRegression().fitted(splits_of(7 * draws(count, channels, *sides, seed=5), targets))


def outputs_for(task: Task, splits: DataSplits, seed: int = 6) -> Tensor:
    targets = splits.test.targets
    places = targets.shape[1:] if isinstance(task, DenseClassification) else targets.shape[2:]
    return draws(len(targets), task.signature.outputs, *places, seed=seed)


def written(task: Task, splits: DataSplits, folder: Path, outputs: Tensor | None = None, batch: int = 7) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files = PlacesFiles(task, splits)
    outputs = outputs_for(task, splits) if outputs is None else outputs
    for said, true in zip(outputs.split(batch), splits.test.targets.split(batch), strict=True):
        files.see(said, true)
    files.write(folder)
    return folder


def scores_in(folder: Path) -> tuple[list[str], list[list[float]]]:
    header, *rows = csv.reader((folder / "scores.csv").open())
    assert [header[0], *(row[0] for row in rows)][0] == "sample"
    return [row[0] for row in rows], [[float(value) for value in row[1:]] for row in rows]


def shown_in(folder: Path) -> ShownSamples:
    shown = read_shown_samples(folder / "samples.npz")
    assert shown is not None
    return shown


def test_each_test_sample_has_the_scores_that_scikit_learn_gives_it_alone(tmp_path: Path) -> None:
    task, splits = masks()
    outputs = outputs_for(task, splits)
    names, rows = scores_in(written(task, splits, tmp_path, outputs))
    assert names == [str(place) for place in range(24)]
    for row, said, true in zip(rows, outputs.argmax(1).numpy(), splits.test.targets.numpy(), strict=True):
        known = true != UNKNOWN_CLASS
        overlap = jaccard_score(true[known], said[known], average="macro")
        assert row == pytest.approx([overlap, accuracy_score(true[known], said[known])], rel=1e-5)


def test_the_mean_of_the_samples_relative_errors_is_the_test_parts(tmp_path: Path) -> None:
    task, splits = fields()
    outputs = outputs_for(task, splits)
    _, rows = scores_in(written(task, splits, tmp_path, outputs))
    metrics = task.metrics(torch.device("cpu"))
    metrics.update(outputs, splits.test.targets)
    assert np.mean([row[0] for row in rows]) == pytest.approx(metrics.compute()["relative_error"], rel=1e-5)


@pytest.mark.parametrize("made", [masks, fields])
def test_some_are_spread_evenly_and_the_worst_are_shown_whatever_the_batches(
    made: Callable[[], tuple[Task, DataSplits]], tmp_path: Path
) -> None:
    task, splits = made()
    folders = [written(task, splits, tmp_path / str(batch), batch=batch) for batch in (1, 7, 100)]
    for name in ("scores.csv", "samples.npz"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1
    shown, (_, rows) = shown_in(folders[0]), scores_in(folders[0])
    main = np.array([row[0] for row in rows])
    worst = np.argsort(main if task.measures[0].better == "higher" else -main, kind="stable")[:2].tolist()
    spread = [0, 8, 15, 23]
    assert shown.sample.tolist() == [str(place) for place in [*spread, *(one for one in worst if one not in spread)]]
    assert [name for name, one in zip(shown.sample, shown.worst, strict=True) if one] == [
        name for name in shown.sample if int(name) in worst
    ]
    assert shown.score[0] == f"{task.measures[0].words} {main[0]:.4g}"


def test_only_the_places_of_the_shown_samples_are_kept_while_a_network_is_tested() -> None:
    task, splits = masks(200)
    files, kept = PlacesFiles(task, splits), []
    for said, true in zip(outputs_for(task, splits).split(10), splits.test.targets.split(10), strict=True):
        files.see(said, true)
        kept.append(len(files._places))
    assert max(kept) <= 6
    for true, said in files._places.values():
        assert true.untyped_storage().nbytes() == said.untyped_storage().nbytes() == 4 * 6 * 9  # no batch lives on


def test_what_is_kept_are_the_inputs_of_the_data_and_targets_in_their_own_units(tmp_path: Path) -> None:
    task, splits = fields()
    outputs = outputs_for(task, splits)
    shown = shown_in(written(task, splits, tmp_path, outputs))
    places = [int(name) for name in shown.sample]
    assert isinstance(splits.test, ArrayDataset)
    np.testing.assert_allclose(shown.input, splits.test.inputs[places].numpy(), rtol=1e-6)
    assert isinstance(task, DenseRegression)
    np.testing.assert_allclose(shown.target, task.predicted(splits.test.targets[places]).numpy(), rtol=1e-6)
    np.testing.assert_allclose(shown.prediction, task.predicted(outputs[places]).numpy(), rtol=1e-6)
    assert np.isnan(shown.target).any()
    assert shown.names.tolist() == ["target 1", "target 2"]


@pytest.mark.parametrize(("channels", "drawn"), [(1, 1), (2, 1), (3, 3), (5, 3)])
def test_of_any_number_of_channels_the_first_or_the_first_three_are_drawn(
    channels: int, drawn: int, tmp_path: Path
) -> None:
    shown = shown_in(written(*masks(channels=channels), tmp_path))
    assert shown.input.shape[1] == drawn
    assert shown.channels == channels
    words = {2: "input: the first of 2 channels", 5: "input: the first 3 of 5 channels, as red, green and blue"}
    assert drawn_in_words(shown) == words.get(channels, "")
    assert len(sample_sheet(shown).axes) == 1 + 4 * len(shown.sample)


@pytest.mark.parametrize("sides", [(1, 1), (2, 300), (401, 200), (4001,), (1,)])
@pytest.mark.parametrize("made", [masks, fields])
def test_places_of_any_number_are_drawn_the_largest_thinned(made: Any, sides: tuple[int, ...], tmp_path: Path) -> None:
    task, splits = made(10, 3, sides)
    shown = shown_in(written(task, splits, tmp_path))
    longest = max(sides)
    spacing = -(-longest // LONGEST_SIDE[len(sides)])
    assert shown.spacing == spacing
    assert max(shown.target.shape[-len(sides) :]) <= LONGEST_SIDE[len(sides)]
    assert (f"one of {spacing} places is drawn along each side" in drawn_in_words(shown)) == (spacing > 1)
    assert isinstance(splits.test, ArrayDataset)
    first = splits.test.inputs[0]
    for side, length in enumerate(sides, start=1):
        first = first.index_select(side, torch.arange(min(spacing // 2, length - 1), length, spacing))
    np.testing.assert_allclose(shown.input[0], first.numpy(), rtol=1e-6)
    sample_figure(shown, 0).canvas.draw()


def panels(shown: ShownSamples, place: int = 0, target: int = 0) -> dict[str, Any]:
    return {panel.title: panel.picture for panel in sample_drawing._panels(shown, place, target)}


def test_classes_have_the_colours_of_their_keys_and_what_is_ignored_is_hatched(tmp_path: Path) -> None:
    shown = shown_in(written(*masks(), tmp_path))
    found = {key.words: key.swatch for key in keys(shown)}
    assert list(found) == ["road", "<b>car</b>", "tram", "right", "wrong", "not counted: ignored or unknown"]
    drawn, true, said = panels(shown), shown.target[0], shown.prediction[0]
    factor = drawn["target"].shape[1] // true.shape[1]
    centres = slice(factor // 2, None, factor), slice(factor // 2, None, factor)
    colours = {place: found[name][0, 0] for place, name in enumerate(("road", "<b>car</b>", "tram"))}
    for name, classes in (("target", true), ("prediction", said)):
        for one, colour in colours.items():
            assert (drawn[name][centres][classes == one] == colour).all()
    assert (drawn["errors"][centres][(true == said)] == found["right"][0, 0]).all()
    wrong = (true != said) & (true != UNKNOWN_CLASS)
    assert (drawn["errors"][centres][wrong] == found["wrong"][0, 0]).all()
    row, column = np.argwhere(true == UNKNOWN_CLASS)[0] * factor
    for name in ("target", "errors"):
        block = drawn[name][row : row + factor, column : column + factor].reshape(-1, 3)
        assert {tuple(one) for one in block.tolist()} == {(255, 255, 255), (60, 60, 60)}


def test_a_drawing_of_all_samples_says_whose_they_are_and_what_colours_mean(tmp_path: Path) -> None:
    task, splits = fields(channels=5)
    shown = shown_in(written(task, splits, tmp_path))
    for target in (0, 1):
        figure = sample_sheet(shown, target)
        texts = [text.get_text() for text in figure.axes[0].texts]
        captions = [f"{name}: {score}" for name, score in zip(shown.sample, shown.score, strict=True)]
        assert all(any(text.startswith(caption) for text in texts) for caption in captions)
        assert {key.words for key in keys(shown, target)} <= set(texts)
        assert " ".join(texts).count("as red, green and blue") == 1
        assert [texts.count(title) for title in ("input", "target", "prediction", "error")] == [len(captions)] * 4
        renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        for text in figure.axes[0].texts:
            extent = text.get_window_extent(renderer)
            assert extent.x0 >= 0
            assert extent.x1 <= figure.bbox.x1
            assert extent.y0 >= 0
            assert extent.y1 <= figure.bbox.y1


def test_thirty_two_classes_look_different_and_more_are_told() -> None:
    swatches = {sample_drawing._swatch(one).tobytes() for one in range(32)}
    others = {sample_drawing._swatch(one).tobytes() for one in (UNKNOWN_CLASS, -1, -2)}
    assert len(swatches | others) == 35
    classes = np.arange(64, dtype=np.int32).reshape(1, 8, 8)
    names = np.array([f"class {number}" for number in range(64)])
    shown = made_up(target=classes, prediction=classes, names=names)
    words = [key.words for key in keys(shown)]
    assert words[59:63] == ["class 59", "and 4 more", "colours repeat after 32 classes", "right"]


def test_target_and_prediction_share_a_scale_and_the_error_is_white_where_there_is_none() -> None:
    target = np.array([[[[10.0, 20.0], [np.nan, 15.0]]]], np.float32)
    prediction = np.array([[[[20.0, 20.0], [1.0, 400.0]]]], np.float32)
    shown = made_up(target=target, prediction=prediction, names=np.array(["heat"]))
    words = [key.words for key in keys(shown)]
    clipped = "; predictions beyond take the colours of its ends"
    assert words[0] == f"target and prediction, from 10 (dark) to 20 (light){clipped}"
    assert words[1:] == ["prediction minus target, from -385 (blue) to 385 (red)", "unknown"]
    drawn = panels(shown)
    high = drawn["target"][0, -1]
    assert (drawn["prediction"][0, 0] == high).all()
    assert (drawn["prediction"][-1, -1] == high).all()
    assert (drawn["target"][0, 0] != high).any()
    assert drawn["error"][0, -1].min() > 240
    left = drawn["error"].shape[0] // 2
    hatched = drawn["error"][left:, :left].reshape(-1, 3)
    assert {tuple(one) for one in hatched.tolist()} == {(255, 255, 255), (60, 60, 60)}


@pytest.mark.parametrize("value", [np.nan, np.inf, 5.0])
@pytest.mark.parametrize("sides", [(3, 4), (5,)])
def test_numbers_that_are_not_finite_or_all_alike_are_drawn(value: float, sides: tuple[int, ...]) -> None:
    target, said = np.full((1, 1, *sides), 5.0, np.float32), np.full((1, 1, *sides), value, np.float32)
    inputs = np.zeros((1, 1, *sides), np.float32)
    for true in (target, np.full_like(target, np.nan)):
        shown = made_up(input=inputs, target=true, prediction=said, names=np.array(["heat"]))
        sample_figure(shown, 0).canvas.draw()
        assert keys(shown)


def made_up(**some: Any) -> ShownSamples:
    """One sample, of which some is given."""
    sides = some["target"].shape[1 if some["target"].dtype == np.int32 else 2 :]
    usual: dict[str, Any] = {
        "sample": np.array(["one"]),
        "score": np.array(["mean IoU 0.5"]),
        "worst": np.array([True]),
        "input": np.zeros((1, 1, *sides), np.float32),
        "channels": 1,
        "targets": 1,
        "spacing": 1,
    }
    return ShownSamples(**usual | some)


def test_a_page_shows_names_as_text_and_tells_of_classes_that_are_never_there(
    run_folder: Callable[..., Path],
) -> None:
    task, splits = masks()
    folder = run_folder()
    record_environment(folder, "cpu", task=task)
    final = folder / "final"
    write_curves(final / "metrics.csv", {"train/loss": by_epoch([1.0])})
    outputs = outputs_for(task, splits)
    written(task, splits, final, outputs)
    metrics: Any = task.metrics(torch.device("cpu"))
    metrics.update(outputs, splits.test.targets)
    values = metrics.compute()
    result = {f"test_{name}": value for name, value in values.items()} | recorded_task(task, values, values)
    result |= recorded_outputs(task, metrics.each(), task.output_names(splits))
    (final / "result.json").write_text(json.dumps(result))
    content = page(RecordedRun.read(folder))
    texts = Document(content).texts
    assert "Never there on the test part: tram." in texts
    assert any("scores.csv" in text for text in texts)
    assert any("with the worst mean IoU" in text for text in texts)
    assert {"road", "<b>car</b>", "not counted: ignored or unknown"} <= set(texts)
    shown = shown_in(final)
    captions = [f"{name}: {score}" for name, score in zip(shown.sample, shown.score, strict=True)]
    assert all(any(text.startswith(caption) for text in texts) for caption in captions)
    assert sum(text.endswith(", one of the worst") for text in texts) == 2
    assert content.count('xlink:href="data:image/png;base64,') >= 4 * len(captions)


def damaged(folder: Path, change: str) -> None:
    """``samples.npz`` with something in it that no run writes."""
    path = folder / "samples.npz"
    if change == "cut off":
        path.write_bytes(path.read_bytes()[:100])
        return
    with np.load(path) as stored:
        arrays = dict(stored)
    if change == "objects":
        arrays["sample"] = np.array([{}] * len(arrays["sample"]), object)
    elif change == "another class":
        arrays["target"][0, 0, 0] = 77
    elif change == "lacking":
        del arrays["spacing"]
    elif change == "unequal":
        arrays["score"] = arrays["score"][1:]
    elif change == "not finite":
        arrays["input"][0] = np.nan
    elif change == "large":
        arrays["target"] = np.zeros((6, 1500, 1500), np.int32)
    (np.savez_compressed if change == "large" else np.savez)(path, **arrays)


@pytest.mark.parametrize("change", ["cut off", "objects", "another class", "lacking", "unequal", "not finite", "large"])
def test_a_file_of_something_else_is_named_on_the_page_and_not_drawn(
    change: str, run_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder()
    final = folder / "final"
    write_curves(final / "metrics.csv", {"train/loss": by_epoch([1.0])})
    written(*masks(), final)
    damaged(final, change)
    if change == "large":  # is never unpacked
        monkeypatch.setattr(zipfile.ZipFile, "read", None)
    run = RecordedRun.read(folder).retrainings["final"]
    assert run.shown is None
    (problem,) = run.problems
    assert problem.startswith("samples.npz has no samples to be shown (")
    assert problem in Document(page(RecordedRun.read(final))).texts


def test_the_draw_command_draws_the_samples_of_all_retrainings_again(
    run_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nas.report.sample_files.save_drawing", save_drawing)
    monkeypatch.setattr("nas.report.drawing.FORMATS", ("png",))
    folder = run_folder()
    for name, made in (("final", masks), ("longer", fields)):
        written(*made(), folder / name)
        write_curves(folder / name / "metrics.csv", {"train/loss": by_epoch([1.0])})
        (folder / name / "result.json").write_text(json.dumps({"candidate": CANDIDATE}))
    written(*masks(), folder / "another")  # no retraining of this run's candidate
    (folder / "another" / "figures" / "samples.png").unlink()
    first = {file: file.read_bytes() for file in folder.glob("*/figures/samples*")}
    assert {file.name for file in first} == {"samples.png", "samples_1.png", "samples_2.png"}
    for file in first:
        file.unlink()
    main(["draw", str(folder)])
    assert {file: file.read_bytes() for file in folder.glob("*/figures/samples*")} == first
    told = capsys.readouterr().out
    assert all(f"drawing: {file}" in told for file in first)
    main(["draw", str(folder), "--output", str(folder / "paper")])
    second = first[folder / "longer/figures/samples_2.png"]
    assert (folder / "paper" / "longer" / "samples_2.png").read_bytes() == second
    main(["draw", str(folder / "longer"), "--output", str(folder / "alone")])
    alone = {file.name for file in (folder / "alone").iterdir()}
    assert alone == {"architecture.png", "samples_1.png", "samples_2.png"}
    assert (folder / "alone" / "samples_2.png").read_bytes() == second
    damaged(folder / "final", "cut off")
    with pytest.raises(SystemExit) as caught:
        main(["draw", str(folder)])
    assert caught.value.code == 2
    assert f"In {folder / 'final'}, samples.npz has no samples to be shown (" in capsys.readouterr().err


def test_a_measure_of_ones_own_that_needs_many_samples_and_unknown_places_leave_cells_empty(tmp_path: Path) -> None:
    class Picky(DenseClassification):
        def metrics(self, device: torch.device) -> Any:
            metrics = super().metrics(device)
            update = metrics.update

            def many(outputs: Tensor, targets: Tensor) -> None:
                if len(targets) < 2:
                    raise ValueError("at least two")
                update(outputs, targets)

            metrics.update = many  # type: ignore[method-assign]
            return metrics

        def places(self, outputs: Tensor, targets: Tensor) -> None:  # type: ignore[override]
            return None

    task, splits = masks()
    picky = Picky()
    vars(picky).update(vars(task))
    folder = written(picky, splits, tmp_path)
    assert (folder / "scores.csv").read_text().splitlines()[:2] == ["sample,mean_iou,place_accuracy", "0,,"]
    assert sorted(one.name for one in folder.iterdir()) == ["scores.csv"]
    assert isinstance(sample_files(task, splits), PlacesFiles)
