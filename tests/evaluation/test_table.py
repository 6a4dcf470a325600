"""Looking candidates up in NAS-Bench-201, as a CSV table and through its own packages."""

import gzip
from pathlib import Path

import pytest
import torch

from nas.candidate import Candidate, Hyperparameters, Range
from nas.errors import InvalidValue, UnusableInput
from nas.evaluation.evaluation import Cost
from nas.evaluation.table import TableLookup, read_table
from nas.signature import Signature
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.choices import architecture_text, parse_architecture
from nas.spaces.nasbench201.space import NasBench201

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
HEADER = "index,arch,cifar10_test,cifar10_valid,cifar100_test,cifar100_valid\n"
SPACE = NasBench201(channels=4, cells_per_stage=1, signature=Signature((3, 8, 8), 10))
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


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_a_table_is_read_packed_or_not_as_a_spreadsheet_saves_it(name: str, tmp_path: Path) -> None:
    text = (HEADER + f"0,{CELL},80.5,75.25,40,30\n").replace("index,", "").replace("0,|", "|").replace("\n", "\r\n")
    for content in (text.encode("utf-8-sig"), gzip.compress(text.encode("utf-8-sig"))):
        (tmp_path / name).write_bytes(content)  # the byte order mark stands before the column "arch"
        (found,) = TableLookup(str(tmp_path / name), "cifar10", space=SPACE).evaluate([CANDIDATE])
        assert found.metrics == {"accuracy": 0.7525, "test_accuracy": 0.805}


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
        TableLookup(written(tmp_path), "cifar10", space=Macro(layers, ["relu"], signature=Signature((1, 8, 8), 2)))
    learned = NasBench201(signature=Signature((3, 8, 8), 10), ranges={"dropout": Range(0.0, 0.5)})
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
