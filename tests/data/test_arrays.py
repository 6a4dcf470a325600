"""Arrays of a user's own: what their dimensions mean, which parts they bring, and what is refused."""

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.data import Arrays, DataSplits, RowSplit, TimeSeries
from nas.data.arrays.array_layout import with_coordinates
from nas.data.data_splits import loaded as loaded_source
from nas.errors import InvalidValue, UnusableInput
from nas.tasks import Auto, Classification

X = np.random.default_rng(0).standard_normal((40, 3, 8))
Y = np.arange(40) % 2


def stored(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "ecg.npz", **arrays)
    return str(folder / "ecg.npz")


def loaded(file: str | None, **settings: Any) -> DataSplits:
    return Arrays(RowSplit(**settings.pop("split", {})), file, **settings).load()


def inputs(splits: DataSplits, part: str = "train") -> torch.Tensor:
    return getattr(splits, part).inputs  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((40, 5), None, (5,)),
        ((40, 3, 8), "NCL", (3, 8)),
        ((40, 8, 3), "NLC", (3, 8)),
        ((40, 6, 8), "NHW", (1, 6, 8)),
        ((40, 2, 6, 8), None, (2, 6, 8)),
        ((40, 6, 8, 2), "NHWC", (2, 6, 8)),
    ],
)
def test_a_layout_says_what_the_dimensions_mean(
    shape: tuple[int, ...], layout: Any, expected: tuple[int, ...], tmp_path: Path
) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    splits = loaded(stored(tmp_path, x=x, y=Y), layout=layout, split={"order": "time"})
    assert splits.input_shape == expected
    assert inputs(splits).dtype == torch.float32
    first = np.moveaxis(x, -1, 1) if layout in ("NLC", "NHWC") else x
    assert torch.equal(inputs(splits).reshape(24, -1), torch.tensor(first[:24].reshape(24, -1)).float())
    values = inputs(splits).double()
    expected_mean = values.mean([0, *range(2, values.dim())])
    torch.testing.assert_close(torch.tensor(splits.mean, dtype=torch.float64), expected_mean)


def test_labels_are_drawn_in_proportion_whatever_type_their_whole_numbers_have(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    parts = [loaded(stored(tmp_path, x=np.eye(100), y=labels.astype(kind))) for kind in (int, float)]
    for of_ints, of_floats in zip(*(splits.parts.values() for splits in parts), strict=True):
        assert torch.equal(of_ints.targets.double(), of_floats.targets)
    assert parts[0].test.targets.bincount().tolist() == [12, 6, 2]


def test_every_kind_of_file_gives_the_same_data(tmp_path: Path) -> None:
    expected = loaded(stored(tmp_path, x=X, y=Y), layout="NCL")
    np.save(tmp_path / "x.npy", X.astype(">f8"))
    np.save(tmp_path / "y.npy", Y)
    torch.save({"x": torch.tensor(X), "y": torch.tensor(Y)}, tmp_path / "ecg.pt")
    files: list[dict[str, Any]] = [
        {"file": None, "x": str(tmp_path / "x.npy"), "y": str(tmp_path / "y.npy")},
        {"file": str(tmp_path)},
        {"file": str(tmp_path / "ecg.pt")},
    ]
    for settings in files:
        splits = loaded(**settings, layout="NCL")
        for part in splits.parts:
            assert torch.equal(inputs(splits, part), inputs(expected, part))
            assert torch.equal(splits.parts[part].targets, expected.parts[part].targets)


@pytest.mark.parametrize("ending", ["validation", "val", "valid", None])
def test_parts_of_the_datas_own_are_taken(ending: str | None, tmp_path: Path) -> None:
    arrays = {"X_train": X[:20], "Y_train": Y[:20], "X_test": X[30:], "Y_test": Y[30:]}
    if ending is not None:
        arrays |= {f"X_{ending}": X[20:30], f"Y_{ending}": Y[20:30]}
    splits = loaded(stored(tmp_path, **arrays), layout="NCL")
    assert torch.equal(inputs(splits, "test"), torch.tensor(X[30:]).float())
    assert list(splits.test_samples) == list(range(len(X) - 30))
    assert (len(splits.train), len(splits.validation)) == ((16, 4) if ending is None else (20, 10))
    if ending is not None:
        assert torch.equal(inputs(splits, "validation"), torch.tensor(X[20:30]).float())


def test_parts_beside_x_and_y_and_names_in_the_other_order_are_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    beside = loaded_source(Arrays(RowSplit(), stored(tmp_path, x=X, y=Y, x_test=X[:6], y_test=Y[:6]), layout="NCL"))
    assert torch.equal(inputs(beside, "test"), torch.tensor(X[:6]).float())
    assert "6 of 6 samples of test are in train or validation, too: what is measured on copies" in caplog.text
    assert len(loaded(stored(tmp_path, x=X, y=Y, x_train=X, y_train=Y, x_test=X, y_test=Y), layout="NCL").test) == 8
    turned = loaded(stored(tmp_path, train_x=X, train_y=Y, test_x=X[:5], test_y=Y[:5]), layout="NCL")
    assert [len(part) for part in turned.parts.values()] == [32, 8, 5]


def test_what_test_samples_hold_changes_no_statistic(tmp_path: Path) -> None:
    first = loaded(stored(tmp_path, x=X, y=Y), layout="NCL", split={"order": "time"})
    changed = X.copy()
    changed[24:] = 1e6
    second = loaded(stored(tmp_path, x=changed, y=Y), layout="NCL", split={"order": "time"})
    assert (second.mean, second.std, second.preparation) == (first.mean, first.std, first.preparation)
    assert torch.equal(inputs(second), inputs(first))
    assert second.digest != first.digest


@pytest.mark.parametrize(
    ("y", "dtype", "shape", "head"),
    [
        (Y, torch.int64, (), "point"),
        (Y[:, None], torch.int64, (), "point"),
        (Y == 1, torch.bool, (), "point"),
        (Y.astype(np.uint8), torch.int64, (), "point"),
        (Y.astype(np.float32), torch.float64, (), "point"),
        (np.stack([Y, Y], 1), torch.int64, (2,), "point"),
        (np.zeros((40, 8)), torch.float64, (8,), "dense"),
        (np.zeros((40, 2, 8)), torch.float64, (2, 8), "dense"),
        (np.zeros((40, 1, 8)), torch.float64, (8,), "dense"),
    ],
)
def test_targets_keep_their_type_and_say_what_they_are_of(
    y: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...], head: str, tmp_path: Path
) -> None:
    splits = loaded(stored(tmp_path, x=X, y=y), layout="NCL")
    assert (splits.train.targets.dtype, tuple(splits.train.targets.shape[1:]), splits.head) == (dtype, shape, head)
    assert splits.class_names is None


def test_texts_are_classes_and_not_a_number_is_an_unknown_target(tmp_path: Path) -> None:
    splits = loaded(stored(tmp_path, x=X, y=np.array(["10", "9"])[Y]), layout="NCL", split={"order": "time"})
    assert splits.class_names == ("9", "10")
    assert splits.train.targets.tolist() == [1 - value for value in Y[:24].tolist()]
    known = np.stack([Y * 1.0, np.where(Y == 0, np.nan, 2.5)], 1)
    splits = loaded(stored(tmp_path, x=X, y=known), layout="NCL", split={"order": "time"})
    assert int(splits.train.targets.isnan().sum()) == 12


def test_coordinates_are_further_channels(tmp_path: Path) -> None:
    both = with_coordinates(torch.zeros(2, 1, 3, 5))
    assert both.shape == (2, 3, 3, 5)
    assert both[1, 1, :, 0].tolist() == [-1, 0, 1]
    assert both[0, 2, 2].tolist() == [-1, -0.5, 0, 0.5, 1]
    splits = loaded(stored(tmp_path, x=X, y=Y), layout="NCL", coordinates=True)
    assert splits.input_shape == (4, 8)
    assert splits.mean[3] == pytest.approx(0)


def test_groups_and_times_are_arrays_of_the_file(tmp_path: Path) -> None:
    patient, day = np.arange(40) // 5, 100 - np.arange(40)
    file = stored(tmp_path, x=X, y=np.arange(40), patient=patient, day=day)
    splits = loaded(file, layout="NCL", split={"by": "patient"})
    of_parts = [set((part.targets // 5).tolist()) for part in splits.parts.values()]
    assert sum(map(len, of_parts)) == 8
    splits = loaded(file, layout="NCL", split={"order": "day"})
    assert splits.test.targets.tolist() == list(range(7, -1, -1))
    file = stored(tmp_path, x=X, y=np.arange(40), day=day.astype("M8[D]"), patient=np.where(patient == 2, np.nan, 1))
    splits = loaded(file, layout="NCL", split={"order": "day"})
    assert splits.test.targets.tolist() == list(range(7, -1, -1))
    with pytest.raises(
        InvalidValue, match=r"split.by=patient .* is not known \(NaN\) of 5 samples: 10, 11, 12, 13, 14,"
    ):
        loaded(file, layout="NCL", split={"by": "patient"})
    said = np.array(["train"] * 30 + ["val"] * 4 + ["test"] * 6)
    for part in (said, said.astype("S")):  # bytes, as HDF5 has them
        splits = loaded(stored(tmp_path, x=X, y=np.arange(40), part=part), layout="NCL", split={"parts": "part"})
        assert splits.test.targets.tolist() == list(range(34, 40))


class Thing:
    pass


def changed(place: int | tuple[int, ...], value: float) -> np.ndarray:
    x = X.copy()
    x[place] = value
    return x


MISTAKES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"x": X, "y": Y}, {}, r"layout=null .* \(40, 3, 8\): data.layout=NCL takes 3 channels of 8 .*data.layout=NLC 8"),
    ({"x": X, "y": Y}, {"layout": "NCHW"}, r"layout=NCHW is not allowed: x has 3 dimensions, .* NCL, NLC or NHW would"),
    ({"x": np.zeros((40, 6, 8, 3)), "y": Y}, {}, r"layout=null .*looks like channels last: say data.layout=NHWC"),
    ({"x": X[0, 0], "y": Y}, {}, r"x is \(8,\) and y is \(40,\): there must be one target per sample"),
    ({"x": X.T, "y": Y}, {"layout": "NCL"}, r"one target per sample: samples come first, np.moveaxis\(x, -1, 0\)"),
    (
        {"a": X, "b": Y},
        {},
        r"ecg.npz has the arrays a, b: it needs x and y, or x_train and y_train .*data.x= and data.y=",
    ),
    ({"x": X, "y": Y}, {"layout": "NCL", "split": {"by": "patient"}}, r"split.by=patient .* has the arrays x, y"),
    ({"x": X, "y": Y, "g": Y[:9]}, {"layout": "NCL", "split": {"by": "g"}}, r"split.by=g is not allowed: it is \(9,\)"),
    ({"x": X.astype(str), "y": Y}, {"layout": "NCL"}, r"x is \(40, 3, 8\) of text: inputs must be numbers"),
    (
        {"x": X, "y": np.zeros((40, 4, 5))},
        {"layout": "NCL"},
        r"y is \(40, 4, 5\): neither one target per sample nor K,",
    ),
    ({"x": changed((7, 1, 2), np.nan), "y": Y}, {"layout": "NHW"}, r"1 value of x .* nan in sample 7 at \(1, 2\)"),
    ({"x": changed((7, 1, 2), np.inf), "y": Y}, {"layout": "NCL"}, r"1 value of x .* inf in sample 7 at \(1, 2\)"),
    (
        {"x": changed(7, np.nan), "y": Y},
        {"layout": "NCL"},
        r"24 values of x .*, in 1 sample of train: .* is nan",
    ),
    (
        {"x": X, "y": np.where(Y == 0, np.nan, 1.5)},
        {"layout": "NCL"},
        r"20 of 40 samples .*no known target .*: 0, 2, 4",
    ),
    ({"x": X, "y": np.where(Y == 0, np.inf, 1.5)}, {"layout": "NCL"}, r"20 of 40 samples of ecg.npz have an infinite"),
    ({"x": X[:, 0], "y": Y}, {"coordinates": True}, r"coordinates=true is not allowed: rows of numbers have no places"),
    (
        {"x": X, "y": np.array([Thing()] * 40)},
        {"layout": "NCL"},
        r"has Python objects in y, which .*, or leave y out\.$",
    ),
    ({"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y}, {"layout": "NCL"}, r"x_train is .* and x_test is"),
    ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)}, {"layout": "NCL"}, r"The targets .* differ"),
    (
        {"x": changed((7, 1, 2), 1e300), "y": Y},
        {"layout": "NCL"},
        r"1 value .* too large for single precision, in 1 sample .* 1e\+300 in sample 7 .*; divide x by",
    ),
    (
        {"train_images": X, "train_labels": Y, "test_images": X, "test_labels": Y},
        {"layout": "NCL"},
        r"data.x= and data.y= give other names, here data.x=images data.y=labels\.$",
    ),
    ({"x": X, "labels": Y}, {"layout": "NCL"}, r"data.x= and data.y= give other names\.$"),
    (
        {"x": X, "y": np.where(Y == 0, "", "b")},
        {"layout": "NCL"},
        r"20 of 40 texts of y are empty: 0, 2, 4, 6, 8 and 15 more, counted from 0; name their classes",
    ),
    (
        {"x": X, "y": np.array([b"a", b"\xff"])[Y]},
        {"layout": "NCL"},
        r"y has b'\\xff', no text in UTF-8: save texts of",
    ),
    ({"x": X[:, 0], "y": Y.reshape(40, 1, 1)}, {}, r"y is \(40, 1, 1\): .*; y.reshape\(len\(y\), -1\) makes K of them"),
    (
        {"x": X, "y": np.where(np.arange(40) == 7, np.nan, Y)},
        {"layout": "NCL"},
        r"1 of 40 samples of ecg.npz has no known target \(NaN\): 7, counted from 0; correct or remove it",
    ),
    (
        {"x": np.array([np.zeros(3), np.zeros(4)] * 20, dtype=object), "y": Y},
        {},
        r"never unpickled: save arrays of one type, .* y.astype\(str\), and series of unequal length in .ts files",
    ),
]


@pytest.mark.parametrize(("arrays", "settings", "sentence"), MISTAKES)
def test_a_mistake_is_told_in_one_sentence(
    arrays: dict[str, Any], settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises((InvalidValue, UnusableInput), match=sentence) as caught:
        loaded(stored(tmp_path, **arrays), **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [["1.0", "1.5"], ["3.9", "3.10"]], ids=["amounts", "versions"])
def test_texts_that_are_numbers_are_classes_where_they_are_called_so(names: list[str], tmp_path: Path) -> None:
    splits = loaded(stored(tmp_path, x=X, y=np.array(names)[Y]), layout="NCL")
    with pytest.raises(UnusableInput, match=r"^y has numbers as texts, such as '[13].\d+': task=classification takes"):
        Auto().fitted(splits)
    assert Classification().fitted(splits)[1].class_names == tuple(sorted(names))


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
def test_gaps_in_series_are_filled_as_those_of_a_file_of_series(
    layout: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = X.copy()
    x[0, 0, 3:5] = x[1, 2, 0] = x[2, 2, 7] = x[3, 1] = x[39, 0, 1] = np.nan  # of one channel nothing is known
    rows = [
        ":".join(",".join("?" if value != value else repr(float(value)) for value in row) for row in one) for one in x
    ]
    head = "@timeStamps false\n@classLabel true 0 1\n@data\n"
    (tmp_path / "ecg.ts").write_text(head + "\n".join(f"{row}:{label}" for row, label in zip(rows, Y, strict=True)))
    order = RowSplit(order="time")
    expected = TimeSeries(order, str(tmp_path / "ecg.ts")).load()
    caplog.clear()
    caplog.set_level(logging.INFO)
    file = stored(tmp_path, x=x if layout == "NCL" else np.moveaxis(x, 1, -1), y=Y)
    splits = Arrays(order, file, layout=layout).load()
    assert "ecg: 13 values are missing, in 5 series: they are interpolated" in caplog.text
    for part in ("train", "validation", "test"):
        torch.testing.assert_close(inputs(splits, part), inputs(expected, part))
    torch.testing.assert_close(splits.mean, expected.mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "way"),
    [
        ({"x": X[:, 0] + 1j, "y": Y}, r"of complex128: inputs must be numbers, such as np.stack\(\[x.real, x.imag\]"),
        ({"x": X[:, 0], "y": Y.astype("M8[D]")}, r"datetime64\[D\]: .*, such as \(y - y.min\(\)\) / np"),
        ({"x": X[:, 0].astype([("a", "f4")]), "y": Y}, r"all of one type; np.lib.recfunctions.struct"),
    ],
)  # fmt: skip
def test_other_kinds_of_arrays_are_refused_with_what_makes_numbers_of_them(
    arrays: dict[str, Any], way: str, tmp_path: Path
) -> None:
    with pytest.raises(UnusableInput, match=way):
        loaded(stored(tmp_path, **arrays))


def test_long_numbers_gradients_and_sparse_tensors_are_read(tmp_path: Path) -> None:
    x = X[:, 0].astype(np.longdouble)
    in_order = {"order": "time"}
    expected = inputs(loaded(stored(tmp_path, x=x, y=Y.astype(np.longdouble)), split=in_order))
    for values in (torch.tensor(X[:, 0], requires_grad=True), torch.tensor(X[:, 0]).to_sparse()):
        torch.save({"x": values, "y": torch.tensor(Y)}, tmp_path / "x.pt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PyTorch says of reading sparse tensors
            assert torch.equal(inputs(loaded(str(tmp_path / "x.pt"), split=in_order)), expected)
    torch.save({"x": torch.tensor(X), "names": ["a"]}, tmp_path / "x.pt")
    with pytest.raises(UnusableInput, match="it has more than tensors, names a list: leave these out"):
        loaded(str(tmp_path / "x.pt"))
    np.save(tmp_path / "x.npy", np.array([1, "a"], dtype=object))
    with pytest.raises(UnusableInput, match="has Python objects, which are never unpickled"):
        loaded(None, x=str(tmp_path / "x.npy"), y=str(tmp_path / "x.npy"))


def test_one_hot_classes_as_many_as_places_are_never_guessed(tmp_path: Path) -> None:
    file = stored(tmp_path, x=X, y=np.eye(8)[np.arange(40) % 8])
    with pytest.raises(UnusableInput, match=r"y is \(40, 8\), with one 1 in each sample: y.argmax\(1\) makes a class"):
        Auto().fitted(loaded(file, layout="NCL"))
    images = {"x": np.zeros((40, 5, 6, 2)) + X[:, :2, 0][:, None, None], "y": np.eye(3)[np.zeros((40, 5, 6), int)]}
    with pytest.raises(UnusableInput, match="a channel per class has the 1, and its number is wanted"):
        Auto().fitted(loaded(stored(tmp_path, **images), layout="NHWC"))


def test_arrays_that_are_not_taken_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nas")
    arrays = {"x_train": X, "y_train": Y, "x_test": X[:9], "patient": np.arange(40) // 4}
    splits = loaded(stored(tmp_path, **arrays), layout="NCL", split={"by": "patient"})
    assert len(splits.test) == 8, "x_test has no targets"
    assert "ecg: left out: x_test (9, 3, 8)" in caplog.messages


@pytest.mark.parametrize("far", [-999, 1e20, np.float32(-3.4028235e38)])
def test_numbers_that_stand_for_missing_ones_are_told(
    far: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nas")
    holes = np.abs(X.astype(np.float32))
    holes[::5, 2, 3] = far
    loaded_source(Arrays(RowSplit(), stored(tmp_path, x=holes, y=Y), layout="NCL"))
    assert re.search(r"ecg: input values far from all others: \S+ in channel 2; if they stand for missing", caplog.text)
    caplog.clear()
    loaded_source(Arrays(RowSplit(), stored(tmp_path, x=X, y=np.where(Y, np.abs(X[:, 0, 0]), far)), layout="NCL"))
    assert "ecg: targets far from all others: y " in caplog.text
    caplog.clear()
    loaded_source(Arrays(RowSplit(), stored(tmp_path, x=X, y=X[:, 0, 0]), layout="NCL"))
    assert "far from all others" not in caplog.text


def test_a_file_that_is_no_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    torch.save({"x": Thing()}, tmp_path / "a.pt")
    torch.save([1], tmp_path / "list.pt")
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "a.npz").write_bytes(b"nothing")
    (tmp_path / "zero.npz").write_bytes(b"")
    Path(stored(tmp_path, x=X, y=Y)).rename(tmp_path / "cut.NPZ")
    (tmp_path / "cut.NPZ").write_bytes((tmp_path / "cut.NPZ").read_bytes()[:500])
    torch.save({"x": X}, tmp_path / "numpy.pt")
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "empty").mkdir()
    for name, words in [
        ("a.pt", "Python objects, which are never unpickled"),
        ("list.pt", "it has a list: save a dictionary"),
        ("x.npy", r"is one array: data.x=x.npy data.y=y.npy"),
        ("a.npz", "cannot be read .it is no file of NumPy's"),
        ("zero.npz", "cannot be read .it is empty"),
        ("cut.NPZ", "cannot be read .it is damaged or was cut off"),
        ("numpy.pt", "save a dictionary of tensors, or arrays by np.savez"),
        ("a.csv", "data.file must be an .npz file, a folder"),
        ("none.npz", "is not there"),
        ("empty", "has no .npy file"),
    ]:
        with pytest.raises(UnusableInput, match=words):
            loaded(str(tmp_path / name), layout="NCL")
    with pytest.raises(InvalidValue, match=r"^file=null is not allowed: .*data.x=x.npy data.y=y.npy go without it"):
        loaded(None, layout="NCL")
