"""Looking candidates up in NAS-Bench-201, as a CSV table and through its own packages."""

import gzip
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.candidate import Candidate, Hyperparameters, Range
from nas.configuration import InvalidValue, UnusableInput
from nas.evaluation.evaluation import Cost
from nas.evaluation.table import TableLookup, read_table
from nas.spaces.macro import Macro
from nas.spaces.nasbench201 import NasBench201, architecture_text, parse_architecture

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
HEADER = "index,arch,cifar10_test,cifar10_valid,cifar100_test,cifar100_valid\n"
SPACE = NasBench201(channels=4, cells_per_stage=1, input_shape=(3, 8, 8), classes=10)
CANDIDATE = Candidate(parse_architecture(CELL), Hyperparameters())


def written(folder: Path, text: str = HEADER + f"0,{CELL},80.5,75.25,40,30\n") -> str:
    path = folder / "table.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    return str(path)


def test_a_csv_table_gives_shares_and_costs_nothing_but_an_evaluation(tmp_path: Path) -> None:
    (found,) = TableLookup(written(tmp_path), "cifar10", space=SPACE).evaluate([CANDIDATE])
    assert found.metrics == {"accuracy": 0.7525, "test_accuracy": 0.805}
    assert found.cost == Cost(evaluations=1)
    (found,) = TableLookup(written(tmp_path), "cifar100", space=SPACE).evaluate([CANDIDATE])
    assert found.metrics["accuracy"] == 0.3


@pytest.mark.parametrize(
    "text", ["", HEADER, "a,b\n1,2\n", HEADER + "0,broken,1,2,3,4\n", HEADER + f"0,{CELL},x,2,3,4\n"]
)
def test_a_file_that_is_no_table_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises((UnusableInput, InvalidValue)) as caught:
        TableLookup(written(tmp_path, text), "cifar10", space=SPACE)
    assert "table" in str(caught.value)


def test_a_broken_file_and_other_mistakes_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(HEADER.encode())[:-9])
    with pytest.raises(UnusableInput, match=r"broken\.csv\.gz"):
        TableLookup(str(broken), "cifar10", space=SPACE)
    with pytest.raises(InvalidValue, match=r"dataset=svhn.*cifar10, cifar100"):
        TableLookup(written(tmp_path), "svhn", space=SPACE)
    with pytest.raises(InvalidValue, match="path=nowhere"):
        TableLookup("nowhere", "cifar10", space=SPACE)
    layers = [{"type": "dense", "units": [4, 8]}]
    with pytest.raises(InvalidValue, match="space=nasbench201"):
        TableLookup(written(tmp_path), "cifar10", space=Macro(layers, ["relu"], input_shape=(1, 8, 8), classes=2))
    learned = NasBench201(input_shape=(3, 8, 8), classes=10, ranges={"dropout": Range(0.0, 0.5)})
    with pytest.raises(InvalidValue, match="hyperparameters=fixed"):
        TableLookup(written(tmp_path), "cifar10", space=learned)
    other = Candidate(parse_architecture(CELL.replace("none", "skip_connect")), Hyperparameters())
    with pytest.raises(UnusableInput, match="does not hold"):
        TableLookup(written(tmp_path), "cifar10", space=SPACE).evaluate([other])


def test_the_reference_table_holds_the_whole_space(reference_folder: Path) -> None:
    table = read_table(reference_folder / "nasbench201_12epochs.csv.gz", "cifar10")
    assert len(table) == SPACE.size() == 15625
    assert max(valid for valid, _ in table.values()) == pytest.approx(84.892)
    assert max(test for _, test in table.values()) == pytest.approx(89.16)
    for seed in range(5):
        assert architecture_text(SPACE.sample(torch.Generator().manual_seed(seed)).architecture) in table


class OfficialApi:
    """Answers as ``NASBench201API`` does, whose file of 2 GB is not here."""

    def __init__(self, path: str, verbose: bool) -> None:
        assert not verbose

    def query_index_by_arch(self, text: str) -> int:
        assert text == CELL
        return 7

    def get_more_info(self, index: int, dataset: str, hp: str, is_random: bool) -> dict[str, Any]:
        assert (index, hp, is_random) == (7, "200", False)
        return {"cifar10-valid": {"valid-accuracy": 91.0}, "cifar10": {"test-accuracy": 94.0}}[dataset]


def test_the_official_file_is_read_by_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "NAS-Bench-201-v1_1.pth"
    file.write_bytes(b"")
    for name in ("nas_201_api", "nats_bench"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnusableInput, match="pip install nas-bench-201 or pip install nats-bench"):
        TableLookup(str(file), "cifar10", 200, space=SPACE)
    package: Any = types.ModuleType("nas_201_api")
    package.NASBench201API = OfficialApi
    monkeypatch.setitem(sys.modules, "nas_201_api", package)
    (found,) = TableLookup(str(file), "cifar10", 200, space=SPACE).evaluate([CANDIDATE])
    assert found.metrics == {"accuracy": 0.91, "test_accuracy": 0.94}
