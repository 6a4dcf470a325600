"""Files of series: what is read, how lengths and gaps are made good, and what is refused."""

import logging
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from nas.data import DataSplits, RowSplit, TimeSeries
from nas.data.arrays.series_file import read_series
from nas.errors import InvalidValue, UnusableInput

HEAD = "# of nothing\n@problemName Own\n@timeStamps false\n@univariate false\n@classLabel true up down\n@data\n"
CASES = ["1,2,3,?,5:0,0,1,1,1:up", "5,4,3:1,1,0:down", "?,1,2,3:2,2,2,2:up", "9,7,5,3:0,1,2,3:down"]
TEST = ["1,1,1,1,1,1,1:0,0,0,0,0,0,0:down", "2,4:1,1:up"]


def written(folder: Path, name: str, cases: list[str], head: str = HEAD) -> str:
    (folder / name).write_text(head + "\n".join(cases) + "\n")
    return str(folder / name)


def loaded(file: str, per_series: bool = False, **split: int | str) -> DataSplits:
    return TimeSeries(RowSplit(**split), file, per_series).load()  # type: ignore[arg-type]


def test_lengths_gaps_and_scales_are_those_of_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    written(tmp_path, "own_TEST.ts", TEST)
    splits = loaded(written(tmp_path, "own_TRAIN.ts", CASES), order="time", train=3, validation=1)
    assert splits.name == "own"
    assert splits.class_names == ("down", "up")
    first = torch.tensor([[1.0, 2, 3, 4, 5], [0, 0, 1, 1, 1]])
    known = torch.tensor([1.0, 2, 3, 4, 5, 5, 4, 3, 1, 1, 2, 3])
    assert splits.mean[0] == pytest.approx(float(known.mean()))
    assert splits.std[0] == pytest.approx(float(known.std(correction=0)))
    train, test = splits.train.inputs, splits.test.inputs  # type: ignore[attr-defined]
    assert torch.equal(train[0], first)
    assert train[2, 0].tolist()[:4] == [1, 1, 2, 3]
    torch.testing.assert_close(train[1, :, 3:], torch.tensor(splits.mean)[:, None].expand(2, 2))
    assert splits.input_shape == (2, 5)
    assert test[0, 0].tolist() == [1] * 5  # the longer one is cut
    assert splits.train.targets.tolist() == [1, 0, 1]
    for words in (
        "2 values are missing, in 2 series",
        "are padded with the mean to 5",
        "1 series of up to 7 steps are cut",
    ):
        assert words in caplog.text
    assert "channels of different lengths" not in caplog.text


def test_channels_of_different_lengths_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loaded(written(tmp_path, "own_TRAIN.ts", [*CASES[:3], "9,7,5,3:0,1:down"]), order="time", train=2, validation=1)
    said = "1 series have channels of different lengths, the first is series 4: their shorter channels are padded"
    assert said in caplog.text


def test_what_later_series_hold_changes_no_statistic(tmp_path: Path) -> None:
    file = written(tmp_path, "own_TRAIN.ts", CASES)
    written(tmp_path, "own_TEST.ts", TEST)
    first = loaded(file, order="time", train=3, validation=1)
    written(tmp_path, "own_TEST.ts", [case.replace("1", "1e6") for case in TEST])
    written(tmp_path, "own_TRAIN.ts", [*CASES[:3], "9e9,7,5,3,1,1,1:0,1,2,3:down"])
    second = loaded(file, order="time", train=3, validation=1)
    assert (second.preparation, second.mean, second.std) == (first.preparation, first.mean, first.std)
    assert torch.equal(second.train.inputs, first.train.inputs)  # type: ignore[attr-defined]
    assert second.digest != first.digest


def test_a_series_may_be_standardised_by_itself(tmp_path: Path) -> None:
    splits = loaded(written(tmp_path, "own.ts", CASES), per_series=True, order="time")
    assert (splits.mean, splits.std) == ((0.0, 0.0), (1.0, 1.0))
    row = splits.train.inputs[0, 0, :5]  # type: ignore[attr-defined]
    torch.testing.assert_close(row, torch.tensor([-2.0, -1, 0, 1, 2]) / 2**0.5)


def test_a_tsv_file_of_the_ucr_archive_has_its_label_first_and_its_end_is_no_gap(tmp_path: Path) -> None:
    lines = ["-1\t1\t2\tNaN\t4\tNaN\tNaN", "1\t3\t3\t3\t3\t3\tNaN", "1\t1\t1\t1\t1\t1\tNaN", "-1\t0\t0\t0\t0\t0\tNaN"]
    file = Path(written(tmp_path, "own_TRAIN.tsv", lines, head=""))
    found = read_series(file)
    assert [len(channels[0]) for channels in found.series] == [4, 5, 5, 5]
    splits = loaded(str(file), order="time", validation=1, test=1)
    assert splits.train.targets.tolist() == [-1, 1]  # numbers stay numbers: the task says what they are
    assert splits.class_names is None
    assert splits.train.inputs[0, 0, :4].tolist() == [1, 2, 3, 4]  # type: ignore[attr-defined]
    written(tmp_path, "own_TRAIN.tsv", [f"{number}.5\t1\t{number}" for number in range(9)], head="")
    assert loaded(str(file)).train.targets.dtype == torch.float64


def test_a_folder_stands_for_its_pair(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("own_TRAIN.ts", "own_TEST.ts", "own_eq_TRAIN.ts"):
        written(folder, name, CASES * 3)
    assert len(loaded(str(folder)).test) == 12
    (folder / "own_TRAIN.ts").rename(folder / "other_TRAIN.ts")
    with pytest.raises(UnusableInput, match=r"several training files, other_TRAIN.ts, own_eq_TRAIN.ts: give one"):
        loaded(str(folder))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("own.ts", HEAD + "1,2:x,2:up\n", "own.ts, line 7: 'x' is no finite number"),
        ("own.ts", HEAD + "1,2:1,2:up\n1,2:up\n", "series 1 has 2 channels and series 2 has 1"),
        ("own.ts", HEAD + "1,2,3\n", "line 7: there is no label behind a colon"),
        ("own.ts", HEAD, "has no series"),
        ("own.ts", HEAD + "1,2:1,2:?\n" * 9, "9 of 9 series of own.ts have no label: 1, 2, 3, 4, 5 and 4 more"),
        ("own.ts", "1,2:up\n", "has no line @data"),
        ("own.ts", "@timeStamps true\n@data\n", "has time stamps .*: write values at equal steps"),
        ("own.ts", "@classLabel false\n@data\n", "has no targets: neither @classLabel nor @targetLabel is true"),
        ("own_TEST.ts", HEAD, "is a test part: give the file of the training part"),
        ("own.csv", "", "series are in .ts files, or in .tsv files of the UCR archive, .* data=arrays data.layout=NCL"),
        ("own.ts", HEAD + "1;2;3:up\n", "line 7: '1;2;3' is no finite number; commas part values, and colons channels"),
        ("own.tsv", "1,2,3\n0,3,4\n", "line 1: there is no tab in '1,2,3', and tabs must part a label and its values"),
        ("own.tsv", "label\tt1\n1\t2\n", "line 1: 't1' is no finite number; tabs must part values"),
        ("own.ts", HEAD + "?,?:?:up\n1,2:?,?:up\n" * 2, "2 of 4 series of .*own.ts have no known value: 1, 3; fill in"),
        ("own.ts", HEAD + "1,2:up\n1,2:?\n" * 3, "3 of 6 series of own.ts have no label: 2, 4, 6; fill in or remove"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=sentence) as caught:
        loaded(written(tmp_path, name, [], head=text))
    assert "\n" not in str(caught.value)


def test_a_label_that_the_head_does_not_list_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loaded(written(tmp_path, "own.ts", [case.replace("up", "Up") for case in CASES]), order="time")
    assert "does not list" not in caplog.text
    loaded(written(tmp_path, "own.ts", [*CASES, *(case.replace("up", "upp") for case in CASES)] * 2))
    assert "own: classes that @classLabel does not list: upp (4)" in caplog.messages


def test_numbers_as_classes_are_alike_however_they_are_spelt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    head = "@classLabel true 1 2\n@seriesLength 4\n@data\n"
    written(tmp_path, "own_TEST.ts", ["1,2,3,4:2.0", "3,3,3,3:1.0"], head)
    cases = ["0,1,0,2,0,3,0,4:1", "0,3,0,1,0,2,0,2:2"] * 4
    splits = loaded(written(tmp_path, "own_TRAIN.ts", cases, head))
    assert (splits.class_names, splits.test.targets.tolist()) == (("1", "2"), [1, 0])
    told = "own: @seriesLength of own_TRAIN.ts is 4, and it has series of 8 steps: commas part values, and 0,5 is two"
    assert any(message.startswith(told) for message in caplog.messages)


def test_a_text_in_another_encoding_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    (tmp_path / "own.ts").write_bytes(HEAD.replace("Own", "Größe").encode("latin-1"))
    with pytest.raises(UnusableInput, match=r"own.ts is no text in UTF-8 \(byte 28\): .*iconv -f latin1 -t utf-8"):
        loaded(str(tmp_path / "own.ts"))


def test_settings_that_do_not_fit_series_are_refused() -> None:
    for split, words in [
        (RowSplit(by="patient"), "split.by=patient is not allowed: series have no columns"),
        (RowSplit(order="day"), "split.order=day is not allowed: it must be time or null"),
    ]:
        with pytest.raises(InvalidValue, match=words):
            TimeSeries(split, "own.ts")
    with pytest.raises(InvalidValue, match=r"file=null is not allowed: it must be a .ts or .tsv file"):
        TimeSeries(RowSplit())
    with pytest.raises(UnusableInput, match=r"Nothing is no file or folder"):
        loaded("Nothing")


@pytest.mark.skipif(find_spec("aeon") is None, reason="its files are those of aeon: pip install --no-deps aeon")
@pytest.mark.parametrize(
    ("name", "shape", "sizes", "outputs"),
    [
        ("GunPoint", (1, 150), (40, 10, 150), 2),
        ("JapaneseVowels", (12, 26), (216, 54, 370), 9),
        ("BasicMotions", (6, 100), (32, 8, 40), 4),
    ],
)
def test_sets_that_come_with_aeon_are_known_by_name(
    name: str, shape: tuple[int, int], sizes: tuple[int, int, int], outputs: int
) -> None:
    splits = loaded(name)
    assert (splits.name, splits.input_shape) == (name, shape)
    assert tuple(map(len, splits.parts.values())) == sizes
    assert len(splits.class_names or ()) == outputs
