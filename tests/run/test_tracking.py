"""The record of a run: its rows, TensorBoard, and where a resumed run goes on."""

import csv
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nas.configuration import build
from nas.errors import InvalidValue, UnusableInput
from nas.run.tracking import BUFFERED_RECORDS, LAYOUT, Tracker, TrackingSettings, layout
from nas.tasks import PLAIN_CLASSIFICATION, Regression

SETTINGS = TrackingSettings()
WITHOUT_TENSORBOARD = TrackingSettings(tensorboard=False)
CONFIG = Path(__file__).parents[2] / "conf" / "tracking" / "default.yaml"


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def events_of(folder: Path) -> EventAccumulator:
    # 0: keep every event instead of a random sample of them.
    sizes = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(folder / "tensorboard"), size_guidance=sizes).Reload()


def record_steps(tracker: Tracker, steps: range) -> None:
    """What a small run records: each step's loss, every fifth step an accuracy, and a throughput."""
    for step in steps:
        tracker.scalar("search/loss", torch.tensor(1.0) / (step + 1), step, step // 10)
        tracker.timing("timing/samples_per_second", 100.0 + step, step, step // 10)
        if step % 5 == 4:
            tracker.scalar("search/accuracy", step / 100, step, step // 10)


def test_the_configuration_file_makes_the_default_settings():
    assert build(OmegaConf.load(CONFIG), "tracking") == TrackingSettings()


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(InvalidValue, match=r"tracking\.log_every=0 is not allowed: it must be at least 1"):
        build({**OmegaConf.load(CONFIG), "log_every": 0}, "tracking")
    with pytest.raises(InvalidValue, match=r"tracking\.console=loud is not allowed: it must be one of auto, quiet"):
        build({**OmegaConf.load(CONFIG), "console": "loud"}, "tracking")


def test_metrics_are_tidy_rows_in_the_order_of_recording(tmp_path):
    with Tracker(tmp_path, WITHOUT_TENSORBOARD) as tracker:
        tracker.scalar("loss", 0.1, step=1, epoch=0)
        tracker.timing("seconds", 3.5, step=1, epoch=0)
        tracker.scalar("accuracy, top 1", 1, step=1, epoch=0)
        tracker.scalar("loss", torch.tensor(1 / 3, dtype=torch.float64), step=2, epoch=1)
        tracker.scalar("loss", torch.tensor([0.5], dtype=torch.bfloat16), step=3, epoch=1)
    text = (tmp_path / "metrics.csv").read_text(encoding="utf-8")
    assert text == (
        'step,epoch,tag,value\n1,0,loss,0.1\n1,0,"accuracy, top 1",1.0\n2,1,loss,0.3333333333333333\n3,1,loss,0.5\n'
    )
    assert (tmp_path / "timing.csv").read_text(encoding="utf-8") == "step,epoch,tag,value\n1,0,seconds,3.5\n"
    assert not (tmp_path / "tensorboard").exists()


def test_values_that_are_not_finite_are_written_as_words(tmp_path):
    with Tracker(tmp_path, SETTINGS) as tracker:
        for step, value in enumerate([math.nan, torch.tensor(math.inf), -math.inf]):
            tracker.scalar("loss", value, step, 0)
    assert [row[3] for row in rows_of(tmp_path / "metrics.csv")[1:]] == ["nan", "inf", "-inf"]
    shown = [event.value for event in events_of(tmp_path).Scalars("loss")]
    assert math.isnan(shown[0])
    assert shown[1:] == [math.inf, -math.inf]


def test_a_recorded_tensor_keeps_its_value_when_the_caller_changes_it(tmp_path):
    running_loss = torch.zeros((), requires_grad=True)
    with Tracker(tmp_path, WITHOUT_TENSORBOARD) as tracker:
        tracker.scalar("loss", running_loss, 0, 0)
        with torch.no_grad():
            running_loss += 1
        tracker.scalar("loss", running_loss, 1, 0)
    assert [row[3] for row in rows_of(tmp_path / "metrics.csv")[1:]] == ["0.0", "1.0"]


def test_records_wait_for_a_batch_and_all_of_them_are_written_at_a_flush(tmp_path):
    with Tracker(tmp_path, WITHOUT_TENSORBOARD) as tracker:
        for step in range(BUFFERED_RECORDS + 3):
            tracker.scalar("loss", torch.tensor(float(step)), step, 0)
        assert len(rows_of(tmp_path / "metrics.csv")) < BUFFERED_RECORDS + 3
        tracker.flush()
        values = [float(row[3]) for row in rows_of(tmp_path / "metrics.csv")[1:]]
    assert values == list(range(BUFFERED_RECORDS + 3))


def test_tensorboard_reads_back_every_scalar(tmp_path):
    with Tracker(tmp_path, SETTINGS) as tracker:
        record_steps(tracker, range(20))
    events = events_of(tmp_path)
    assert set(events.Tags()["scalars"]) == {"search/loss", "search/accuracy", "timing/samples_per_second"}
    for file in ("metrics.csv", "timing.csv"):
        rows = rows_of(tmp_path / file)[1:]
        for tag in {row[2] for row in rows}:
            written = [(int(row[0]), float(row[3])) for row in rows if row[2] == tag]
            shown = [(event.step, event.value) for event in events.Scalars(tag)]
            assert [step for step, _ in shown] == [step for step, _ in written]
            assert [value for _, value in shown] == pytest.approx([value for _, value in written], rel=1e-6)


def test_tensorboard_reads_back_figures_and_texts(tmp_path):
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.add_subplot().plot([0, 1], [1, 0])
    with Tracker(tmp_path, SETTINGS) as tracker:
        tracker.figure("search/architecture", figure, step=7)
        tracker.text("search/candidate", "conv, then **dense**", step=8)
        assert tracker.state_dict()["step"] == 8
    events = events_of(tmp_path)
    (image,) = events.Images("search/architecture")
    assert (image.step, image.width, image.height) == (7, 100, 50)
    (text,) = events.Tensors("search/candidate/text_summary")
    assert text.step == 8
    assert text.tensor_proto.string_val[0] == b"conv, then **dense**"


def test_the_final_summary_is_in_the_same_event_file(tmp_path):
    with Tracker(tmp_path, SETTINGS) as tracker:
        tracker.scalar("test_accuracy", 0.5, step=3, epoch=0)
        tracker.final(
            {"learning_rate": 0.1, "space": "macro", "layers": [1, 2], "nesterov": True},
            {"test_accuracy": torch.tensor(0.75)},
        )
    assert len(list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))) == 1
    events = events_of(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("final/test_accuracy")] == [(3, 0.75)]
    assert [event.value for event in events.Scalars("test_accuracy")] == [0.5]

    parts = {
        tag: HParamsPluginData.FromString(content) for tag, content in events.PluginTagToContent("hparams").items()
    }
    hyperparameters = parts["_hparams_/session_start_info"].session_start_info.hparams
    assert hyperparameters["learning_rate"].number_value == 0.1
    assert hyperparameters["space"].string_value == "macro"
    assert hyperparameters["layers"].string_value == "[1, 2]"
    assert hyperparameters["nesterov"].number_value == 1.0
    metrics = parts["_hparams_/experiment"].experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == ["final/test_accuracy"]
    assert "_hparams_/session_end_info" in parts


def test_everything_but_the_csv_files_is_left_out_without_tensorboard(tmp_path):
    with Tracker(tmp_path, WITHOUT_TENSORBOARD) as tracker:
        tracker.figure("figure", Figure(), step=0)
        tracker.text("text", "text", step=0)
        tracker.final({"learning_rate": 0.1}, {"accuracy": 0.5})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "timing.csv"]


def interrupted_run(folder: Path, lost: str) -> dict[str, int]:
    """A run that is checkpointed after step 11 and dies, never closed, some time after step 17."""
    tracker = Tracker(folder, SETTINGS)
    record_steps(tracker, range(12))
    state = tracker.state_dict()
    record_steps(tracker, range(12, 18))
    if lost != "in memory":
        tracker.flush()
    if lost == "half a row":
        with (folder / "metrics.csv").open("a", encoding="utf-8") as file:
            file.write("18,1,search/lo")
    return state


@pytest.mark.parametrize("lost", ["in memory", "on the disk", "half a row"])
def test_a_resumed_run_leaves_the_record_of_an_uninterrupted_one(tmp_path, lost):
    with Tracker(tmp_path / "whole", SETTINGS) as tracker:
        record_steps(tracker, range(30))

    state = interrupted_run(tmp_path / "killed", lost)
    with Tracker(tmp_path / "killed", SETTINGS, json.loads(json.dumps(state))) as tracker:
        record_steps(tracker, range(12, 30))

    for file in ("metrics.csv", "timing.csv"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    events = events_of(tmp_path / "killed")
    assert [event.step for event in events.Scalars("search/loss")] == list(range(30))
    assert [event.step for event in events.Scalars("search/accuracy")] == [4, 9, 14, 19, 24, 29]
    assert [event.step for event in events.Scalars("timing/samples_per_second")] == list(range(30))


def test_a_run_that_dies_twice_after_the_same_checkpoint_is_resumed_from_it_again(tmp_path):
    with Tracker(tmp_path / "whole", SETTINGS) as tracker:
        record_steps(tracker, range(20))

    state = interrupted_run(tmp_path / "killed", "on the disk")
    second = Tracker(tmp_path / "killed", SETTINGS, state)
    record_steps(second, range(12, 15))
    second.flush()
    with Tracker(tmp_path / "killed", SETTINGS, state) as third:
        record_steps(third, range(12, 20))

    assert (tmp_path / "killed" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()
    assert [event.step for event in events_of(tmp_path / "killed").Scalars("search/loss")] == list(range(20))
    # TensorBoard reads them in the order of their names, which a process number after an equal second would decide.
    seconds = [path.name.split(".")[3] for path in (tmp_path / "killed" / "tensorboard").iterdir()]
    assert len(set(seconds)) == len(seconds) == 2, "the second one's is gone, as its rows are"


def test_a_run_that_died_before_any_checkpoint_starts_afresh(tmp_path):
    interrupted_run(tmp_path, "on the disk")
    with Tracker(tmp_path, SETTINGS) as tracker:
        record_steps(tracker, range(3))
    assert [row[0] for row in rows_of(tmp_path / "metrics.csv")] == ["step", "0", "1", "2"]
    assert [event.step for event in events_of(tmp_path).Scalars("search/loss")] == [0, 1, 2]


def test_a_resumed_run_that_records_nothing_keeps_the_step_of_its_checkpoint(tmp_path):
    state = interrupted_run(tmp_path, "on the disk")
    with Tracker(tmp_path, SETTINGS, state) as tracker:
        found = tracker.state_dict()
    assert {name: found[name] for name in state} == state
    assert state["step"] == 11


def test_a_run_whose_record_was_lost_is_not_resumed(tmp_path):
    state = interrupted_run(tmp_path, "on the disk")
    metrics, timing = tmp_path / "metrics.csv", tmp_path / "timing.csv"
    whole = metrics.read_bytes()

    metrics.write_bytes(whole.replace(b"\n", b"\r\n"))
    with pytest.raises(UnusableInput, match=r"metrics\.csv has changed .* another program has saved it: no line of it"):
        Tracker(tmp_path, SETTINGS, state)
    metrics.write_bytes(whole)
    os.truncate(timing, state["timing_bytes"] - 1)
    with pytest.raises(UnusableInput, match=r"timing\.csv has \d+ bytes and had \d+ when the checkpoint was written"):
        Tracker(tmp_path, SETTINGS, state)
    timing.unlink()
    with pytest.raises(UnusableInput, match=r"timing\.csv is missing"):
        Tracker(tmp_path, SETTINGS, state)
    assert metrics.read_bytes() == whole


def test_a_tracker_that_a_failure_ends_writes_what_it_has(tmp_path):
    def fail() -> None:
        with Tracker(tmp_path, WITHOUT_TENSORBOARD) as tracker:
            tracker.scalar("loss", 0.5, 0, 0)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert rows_of(tmp_path / "metrics.csv")[1:] == [["0", "0", "loss", "0.5"]]


def test_a_tracker_may_be_closed_twice(tmp_path):
    with Tracker(tmp_path, SETTINGS) as tracker:
        tracker.close()


def served(address: str, server: subprocess.Popen[bytes], seconds: float = 120) -> bytes:
    """What TensorBoard answers at ``address``, once it has started and read the run."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with opener.open(address, timeout=10) as answer:
                return answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            # Not listening yet, or a 404 because the run is not read yet.
            time.sleep(0.2)
    raise AssertionError(f"TensorBoard did not answer at {address} (exit code {server.poll()})")


def test_tensorboard_serves_a_resumed_run_with_every_step_once(tmp_path):
    state = interrupted_run(tmp_path, "on the disk")
    with Tracker(tmp_path, SETTINGS, state) as tracker:
        record_steps(tracker, range(12, 20))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "tensorboard")]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        query = urllib.parse.urlencode({"run": ".", "tag": "search/loss", "format": "json"})
        answer = served(f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?{query}", server)
    finally:
        server.kill()
        server.wait()
    points = json.loads(answer)
    assert [step for _, step, _ in points] == list(range(20))
    assert [value for _, _, value in points] == pytest.approx([1 / (step + 1) for step in range(20)], rel=1e-6)


def test_tensorboard_gets_a_layout_whose_patterns_find_the_recorded_tags(tmp_path: Path) -> None:
    with Tracker(tmp_path, SETTINGS):
        pass
    assert "custom_scalars__config__" in events_of(tmp_path).Tags()["tensors"]
    charts = {name: patterns for group in LAYOUT.values() for name, (_, patterns) in group.items()}
    assert list(layout(PLAIN_CLASSIFICATION)["search"]) == [
        "losses of both levels",
        "accuracy",
        *list(LAYOUT["search"])[1:],
    ]
    charts |= {name: patterns for name, (_, patterns) in layout(Regression())["search"].items()}
    found = {
        "standardised error": {"train/standardised_error"},
        "R²": {"best/r2", "supernet/validation_r2"},
        "losses of both levels": {"train/loss", "validation/loss"},
        "learning rate": {"hyperparameters/learning_rate"},
        "other hyperparameters": {"hyperparameters/dropout"},
        "probabilities": {"probability/layer1.filters/8"},
        "samples spent": {"budget/samples"},
    }
    tags = set.union(*found.values()) | {"supernet/validation_loss", "step/training_loss"}
    for name, expected in found.items():
        assert {tag for tag in tags if any(re.match(pattern, tag) for pattern in charts[name])} == expected
