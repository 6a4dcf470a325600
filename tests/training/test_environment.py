import json
import sys

import torch

from nas.training.environment import PACKAGES, environment, record_environment


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
