"""What a run ran on is recorded at every start; what it lacks is told."""

import json
import logging
import os
import sys
from dataclasses import replace

import pytest
import torch

from nas.data.data_splits import DataSplits
from nas.data.dataset import ImageDataset
from nas.errors import InvalidValue
from nas.operations.fast import library
from nas.run.environment import PACKAGES, environment, log_missing_kernels, record_environment


def test_every_start_is_one_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_search.py", "seed=3", "data.folder=a b"])
    record_environment(tmp_path / "run", "cpu")
    record_environment(tmp_path / "run", "cpu")
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert len(starts) == 2
    assert starts[0]["command"] == "python train_search.py seed=3 'data.folder=a b'"
    assert starts[0]["device"] == "cpu"


def test_the_versions_are_those_that_run_here():
    here = environment("cpu")
    assert here["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(here["packages"]) == set(PACKAGES)
    assert here["python"] == ".".join(map(str, sys.version_info[:3]))


def test_an_unreadable_record_is_started_afresh(tmp_path):
    (tmp_path / "environment.json").write_text("{")
    record_environment(tmp_path, "cpu")
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 1


def named_data(*names):
    images = torch.rand(2 * len(names), 1, 2, 2, generator=torch.Generator().manual_seed(0))
    dataset = ImageDataset(images, torch.arange(2 * len(names)) % len(names), len(names))
    return DataSplits("mine", dataset, dataset, dataset, (0.5,), (0.3,), names)


def test_a_run_that_goes_on_needs_the_classes_that_it_began_with(tmp_path):
    record_environment(tmp_path, "cpu", named_data("a", "b"))
    record_environment(tmp_path, "cpu", named_data("a", "c"))  # the first start was killed before it began
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000001.pt").touch()
    record_environment(tmp_path, "cpu", named_data("a", "c"))
    record_environment(tmp_path, "cpu")  # data without names fit any
    starts = (tmp_path / "environment.json").read_text()
    assert [start.get("class_names") for start in json.loads(starts)] == [["a", "b"], ["a", "c"], None, None]
    with pytest.raises(
        InvalidValue, match="data=mine is not allowed: class 1 of the run is 'c', that of the data is 'd'"
    ):
        record_environment(tmp_path, "cpu", named_data("a", "d"))
    with pytest.raises(InvalidValue, match="the run is for 2 classes, the data have 3"):
        record_environment(tmp_path, "cpu", named_data("a", "c", "d"))
    assert (tmp_path / "environment.json").read_text() == starts


def test_a_run_that_goes_on_needs_the_data_that_it_began_with(tmp_path):
    first, changed = (replace(named_data("a", "b"), digest=2 * letter * 32) for letter in "ab")
    record_environment(tmp_path, "cpu", first)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000001.pt").touch()
    record_environment(tmp_path, "cpu", first)
    starts = (tmp_path / "environment.json").read_text()
    with pytest.raises(InvalidValue, match="data=mine is not allowed: its files have changed since the run began"):
        record_environment(tmp_path, "cpu", changed)
    record_environment(tmp_path, "cpu", replace(changed, former_digests=(first.digest,)))
    starts = (tmp_path / "environment.json").read_text()
    renamed = replace(named_data("a", "c"), digest=changed.digest)  # the digest is of the names, too: which one is told
    with pytest.raises(InvalidValue, match="class 1 of the run is 'b', that of the data is 'c'"):
        record_environment(tmp_path, "cpu", renamed)
    assert (tmp_path / "environment.json").read_text() == starts


@pytest.mark.parametrize(("kernels", "path", "told"), [("off", "", 0), ("on", "", 1), ("on", os.environ["PATH"], None)])
def test_a_run_without_kernels_that_are_wanted_says_why(kernels, path, told, monkeypatch, caplog):
    monkeypatch.setenv("NAS_KERNELS", kernels)
    monkeypatch.setenv("PATH", path)
    library.library.cache_clear()
    caplog.set_level(logging.INFO, "nas")
    try:
        log_missing_kernels(torch.device("cpu"))
        log_missing_kernels(torch.device("cuda"))
        assert len(caplog.messages) == (told if told is not None else library.library() is None)
        assert all("no C++ compiler" in one for one in caplog.messages)
    finally:
        library.library.cache_clear()


def test_another_switch_than_on_and_off_is_refused(monkeypatch):
    monkeypatch.setenv("NAS_KERNELS", "0")
    library.library.cache_clear()
    try:
        with pytest.raises(InvalidValue, match="NAS_KERNELS=0 is not allowed: it must be on or off"):
            log_missing_kernels(torch.device("cpu"))
    finally:
        library.library.cache_clear()
