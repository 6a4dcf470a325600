"""NAS-Bench-201's official files, made small with the packages' own classes and read back through them."""

import bz2
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.candidate import Candidate, Hyperparameters
from nas.errors import InvalidValue, UnusableInput
from nas.evaluation.official_table import number, read_values
from nas.evaluation.table import TableLookup
from nas.signature import Signature
from nas.spaces.nasbench201.choices import architecture_text, parse_architecture
from nas.spaces.nasbench201.space import NasBench201

CELLS = (
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|",
    "|skip_connect~0|+|nor_conv_3x3~0|none~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|",
)
SPACE = NasBench201(channels=4, cells_per_stage=1, signature=Signature((3, 8, 8), 10))
SPLITS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}
SEEDS = {"cifar10-valid": (777, 888)}  # the others have one


def candidate(cell: str) -> Candidate:
    return Candidate(parse_architecture(cell), Hyperparameters())


def accuracy(index: int, epochs: int, dataset: str, split: str, seed: int) -> float:
    """Per cent after the last epoch: another one for each of them."""
    return (
        10 * index + epochs / 10 + list(SPLITS).index(dataset) + SPLITS[dataset].index(split) / 8 + (seed - 777) / 111
    )


def results(package: Any, index: int, epochs: int) -> dict[str, Any]:
    """One architecture's state, by the package's own ``ArchResults`` and ``ResultsCount``."""
    whole = package.ArchResults(index, CELLS[index])
    for dataset, splits in SPLITS.items():
        for seed in SEEDS.get(dataset, (777,)):
            each = range(epochs)
            size, about = np.float64(0.5), {"arch_str": CELLS[index], "channel": 4, "num_cells": 1, "class_num": 10}
            trial = package.ResultsCount(
                dataset,
                None,
                dict.fromkeys(each, 99.0),
                dict.fromkeys(each, 0.1),
                size,
                size,
                about,
                seed,
                epochs,
                None,
            )
            final = {split: accuracy(index, epochs, dataset, split, seed) for split in splits}
            accuracies = {
                f"{split}@{i}": last if i == epochs - 1 else 1.0 for split, last in final.items() for i in each
            }
            trial.update_eval(accuracies, dict.fromkeys(accuracies, 1.0), dict.fromkeys(accuracies, 2.0))
            trial.reset_pseudo_train_times(3.0)
            whole.update(dataset, seed, trial)
    state = whole.state_dict()
    assert isinstance(state, dict)
    return state


def official_pth(folder: Path) -> Path:
    pytest.importorskip("nas_201_api", reason="pip install nas-bench-201")
    package: Any = sys.modules["nas_201_api.api_utils"]
    both = {index: {"less": results(package, index, 12), "full": results(package, index, 200)} for index in (0, 1)}
    path = folder / "NAS-Bench-201-v1_1.pth"
    torch.save({"meta_archs": list(CELLS), "arch2infos": both, "evaluated_indexes": {0, 1}}, path)
    return path


def official_file(folder: Path) -> Path:
    package: Any = pytest.importorskip("nats_bench", reason="pip install nats-bench")
    both = {index: {str(epochs): results(package, index, epochs) for epochs in (12, 200)} for index in (0, 1)}
    content = {"meta_archs": list(CELLS), "arch2infos": both, "evaluated_indexes": [0, 1]}
    package.pickle_save(content, folder / "NATS-tss.pickle")
    return folder / "NATS-tss.pickle.pbz2"


def official_folder(folder: Path) -> Path:
    package: Any = pytest.importorskip("nats_bench", reason="pip install nats-bench")
    inside = folder / "NATS-tss-simple"
    inside.mkdir()
    package.pickle_save({"meta_archs": list(CELLS), "evaluated_indexes": [0, 1]}, inside / "meta.pickle")
    for index in (0, 1):
        trained = {str(epochs): results(package, index, epochs) for epochs in (12, 200)}
        package.pickle_save(trained, inside / f"{index:06d}.pickle")
    return inside


@pytest.mark.parametrize("make", [official_pth, official_file, official_folder])
def test_the_official_formats_give_what_was_put_in(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path)
    official = {
        "cifar10": ("cifar10-valid", "cifar10"),
        "cifar100": ("cifar100",) * 2,
        "imagenet16": ("ImageNet16-120",) * 2,
    }
    for dataset, (valid, test) in official.items():
        for epochs in (12, 200):
            lookup = TableLookup(str(path), dataset, epochs, space=SPACE)
            for index, cell in enumerate(CELLS):
                seeds = SEEDS.get(valid, (777,))
                (found,) = lookup.evaluate([candidate(cell)])
                expected = sum(accuracy(index, epochs, valid, "x-valid", seed) for seed in seeds) / len(seeds)
                assert found.metrics["accuracy"] == pytest.approx(expected / 100)
                split = "ori-test" if dataset == "cifar10" else "x-test"
                assert found.metrics["test_accuracy"] == pytest.approx(accuracy(index, epochs, test, split, 777) / 100)
    other = architecture_text(SPACE.sample(torch.Generator().manual_seed(0)).architecture)
    with pytest.raises(UnusableInput, match="does not hold the architecture"):
        lookup.evaluate([candidate(other)])


def test_what_a_file_may_not_do_or_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidValue, match=r"path=.*\.csv or \.csv\.gz file, or the official"):
        TableLookup(str(tmp_path / "table.txt"), "cifar10", space=SPACE)
    for package, name in (("nas_201_api", "benchmark.pth"), ("nats_bench", "benchmark.pickle.pbz2")):
        (tmp_path / name).write_bytes(b"")
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UnusableInput, match=rf"{name} is read by its own package: pip install .*"):
            TableLookup(str(tmp_path / name), "cifar10", space=SPACE)
    with pytest.raises(InvalidValue, match=r"epochs=90 .*12 or 200"):
        TableLookup(str(tmp_path / "benchmark.pth"), "cifar10", 90, space=SPACE)


def test_a_pickle_is_read_for_its_values_alone(tmp_path: Path) -> None:
    path = tmp_path / "values.pickle.pbz2"
    values = {"a": [1, 2.5, None, ("x", {3})], "b": np.float64(0.25), "c": np.int64(7)}
    path.write_bytes(bz2.compress(pickle.dumps(values, protocol=4)))
    assert read_values(str(path)) == values
    path.write_bytes(bz2.compress(pickle.dumps(Path("elsewhere"))))
    with pytest.raises(pickle.UnpicklingError, match="it names pathlib"):
        read_values(str(path))
    with pytest.raises(pickle.UnpicklingError, match="only numbers"):
        number(np.dtype("O"), pickle.dumps(1))
