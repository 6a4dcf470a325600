"""The frames of the animation of a search, and the GIF file."""

import pytest
from PIL import Image

from nas.errors import InvalidValue
from nas.report.animation import MOST_FRAMES, frames, write_animation
from nas.report.recorded_run import RecordedRun
from tests.report.conftest import PROBABILITIES, by_epoch


def test_a_frame_per_epoch_shows_what_alpha_preferred_then(run_folder):
    some = frames(RecordedRun.read(run_folder()))
    assert [frame.architecture["layer1.filters"] for frame in some] == ["8", "16", "16", "16"]
    assert [frame.architecture["layer2.kind"] for frame in some] == ["max", "max", "average", "max"]
    assert some[1].probabilities["layer1.filters"] == {"8": 0.4, "16": 0.6}
    assert some[2].title == "epoch 3   validation accuracy 80.0 %"


def test_the_animation_plays_every_frame(run_folder, tmp_path):
    path = write_animation(RecordedRun.read(run_folder()), tmp_path / "search.gif")
    picture = Image.open(path)
    assert picture.n_frames == 4
    assert picture.is_animated


def test_a_long_search_is_thinned_to_its_ends(run_folder):
    curves = {f"probability/{tag}": by_epoch(values * 60) for tag, values in PROBABILITIES.items()}
    curves["train/loss"] = by_epoch([1.0] * 240)
    some = frames(RecordedRun.read(run_folder(curves)))
    assert len(some) == MOST_FRAMES
    assert some[0].title.startswith("epoch 1")
    assert some[-1].title.startswith("epoch 240")


def test_probabilities_of_other_choices_cannot_be_animated(run_folder):
    curves = {"train/loss": by_epoch([1.0]), "probability/elsewhere/8": by_epoch([1.0])}
    with pytest.raises(InvalidValue, match="supernet's rows"):
        frames(RecordedRun.read(run_folder(curves)))


def test_a_search_without_probabilities_cannot_be_animated(run_folder):
    with pytest.raises(InvalidValue, match="recorded probabilities"):
        frames(RecordedRun.read(run_folder({"train/loss": by_epoch([1.0])})))
