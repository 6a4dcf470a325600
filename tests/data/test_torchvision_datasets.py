"""The torchvision sets, read from small files in their real formats that the tests write."""

import gzip
import hashlib
import pickle
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from torch import Tensor

from nas.data.augmentation import Augmentation
from nas.data.data_splits import DataSplits
from nas.data.pictures.torchvision_datasets import Cifar10, Cifar100, FashionMnist, Mnist, TorchvisionDataset
from nas.data.stratified_split import SplitSettings
from nas.errors import UnusableInput

SETS: list[type[TorchvisionDataset]] = [Mnist, FashionMnist, Cifar10, Cifar100]


def source(data_set: type[TorchvisionDataset], folder: Path, download: bool = False) -> TorchvisionDataset:
    sizes = SplitSettings(train=150, validation=100, test=None)
    return data_set(sizes, Augmentation(), folder=str(folder), download=download)


def random_images(count: int, shape: tuple[int, ...], classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % classes


def write_idx(file: Path, values: Tensor) -> None:
    """The format of MNIST: two zero bytes, the type's code (8: uint8), the dimensions, big-endian sizes, bytes."""
    header = bytes([0, 0, 8, values.dim()]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    file.write_bytes(header + values.to(torch.uint8).numpy().tobytes())


def write_mnist(folder: Path) -> tuple[Tensor, Tensor]:
    """Write 300 training and 20 test images; returns the test images (N, 1, 28, 28) and labels."""
    folder.mkdir(parents=True)
    for prefix, count in (("train", 300), ("t10k", 20)):
        images, labels = random_images(count, (28, 28), classes=10, seed=count)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return images[:, None], labels


def write_cifar(data_set: type[TorchvisionDataset], folder: Path) -> tuple[Tensor, Tensor]:
    """Write 300 training and 20 test images; returns the test images (N, 3, 32, 32) and labels.

    The files are pickled dictionaries; an image is a row of 3072 bytes, the red plane first.
    """
    folder.mkdir(parents=True)
    key = "fine_labels" if data_set is Cifar100 else "labels"
    *training_files, test_file, description = data_set.files
    contents = [(file, 300 // len(training_files)) for file in training_files] + [(test_file, 20)]
    for seed, (file, count) in enumerate(contents):
        images, labels = random_images(count, (3, 32, 32), data_set.classes, seed)
        content = {"data": images.flatten(1).numpy(), key: labels.tolist()}
        (folder / file).write_bytes(pickle.dumps(content))
    names = [str(number) for number in range(data_set.classes)]
    (folder / description).write_bytes(pickle.dumps({"label_names": names, "fine_label_names": names}))
    return images, labels


def accept_checksums(data_set: type[TorchvisionDataset], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision expect the checksums of the files that the test has written instead of the real ones."""
    reader = getattr(torchvision.datasets, data_set.torchvision_name)
    *training_files, test_file, description = (
        [file, hashlib.md5((folder / file).read_bytes()).hexdigest()] for file in data_set.files
    )
    monkeypatch.setattr(reader, "train_list", training_files)
    monkeypatch.setattr(reader, "test_list", [test_file])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": description[1]})


def write(data_set: type[TorchvisionDataset], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    place = folder / data_set.subfolder
    if data_set in (Mnist, FashionMnist):
        return write_mnist(place)
    test = write_cifar(data_set, place)
    accept_checksums(data_set, place, monkeypatch)
    return test


@pytest.mark.parametrize("data_set", SETS)
def test_a_set_is_read_from_its_files(
    data_set: type[TorchvisionDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = write(data_set, tmp_path, monkeypatch)
    splits = source(data_set, tmp_path).load()
    assert isinstance(splits, DataSplits)
    assert splits.name == data_set.name
    assert splits.input_shape == tuple(images.shape[1:])
    assert splits.classes == data_set.classes
    assert torch.equal(splits.test.images, images)
    assert torch.equal(splits.test.labels, labels)
    assert splits.train.images.dtype == torch.uint8
    assert len(splits.mean) == len(splits.std) == splits.input_shape[0]
    assert len(splits.train) == 150
    assert len(splits.validation) == 100
    assert len(splits.train_and_validation().images.unique(dim=0)) == 250


def test_training_images_keep_their_labels(tmp_path: Path) -> None:
    write_mnist(tmp_path / Mnist.subfolder)
    images, labels = random_images(300, (28, 28), classes=10, seed=300)
    label_of = {image.numpy().tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
    train = source(Mnist, tmp_path).load().train
    assert [label_of[image.numpy().tobytes()] for image in train.images] == train.labels.tolist()


def test_the_folder_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "data" / Mnist.subfolder)
    monkeypatch.chdir(tmp_path)
    assert len(Mnist(SplitSettings(150, 100, None), Augmentation()).load().test) == 20


@pytest.mark.parametrize("data_set", SETS)
def test_a_set_that_is_not_there_is_told_in_one_sentence(data_set: type[TorchvisionDataset], tmp_path: Path) -> None:
    with pytest.raises(UnusableInput) as caught:
        source(data_set, tmp_path).load()
    assert str(caught.value) == (
        f"The data set {data_set.name} is not on disk, {data_set.files[0]} was looked for in "
        f"{tmp_path / data_set.subfolder}: set data.download=true on a machine with network, "
        "or copy the files to that folder."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data_set", SETS)
@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_single_missing_file_is_named(
    data_set: type[TorchvisionDataset], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data_set, tmp_path, monkeypatch)
    (tmp_path / data_set.subfolder / data_set.files[number]).unlink()
    with pytest.raises(UnusableInput, match=f"not on disk, {data_set.files[number]} was looked for in"):
        source(data_set, tmp_path).load()


@pytest.mark.parametrize("data_set", SETS)
def test_a_failed_download_is_told_in_one_sentence(
    data_set: type[TorchvisionDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*arguments: object, **settings: object) -> None:
        raise URLError("name resolution failed")

    for module in (torchvision.datasets.mnist, torchvision.datasets.cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", no_network)
    with pytest.raises(UnusableInput) as caught:
        source(data_set, tmp_path, download=True).load()
    sentence = str(caught.value)
    assert sentence.startswith(
        f"The data set {data_set.name} could not be downloaded to {tmp_path / data_set.subfolder} ("
    )
    assert "name resolution failed" in sentence
    assert sentence.endswith("): set data.download=true on a machine with network, or copy the files to that folder.")
    assert "\n" not in sentence


@pytest.mark.parametrize("data_set", SETS)
def test_files_that_are_there_need_no_network(
    data_set: type[TorchvisionDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data_set, tmp_path, monkeypatch)
    assert len(source(data_set, tmp_path, download=True).load().test) == 20


@pytest.mark.parametrize("data_set", SETS)
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("content", [b"", b"not what it should be"])
def test_a_damaged_file_is_told_in_one_sentence(
    data_set: type[TorchvisionDataset], number: int, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data_set, tmp_path, monkeypatch)
    place = tmp_path / data_set.subfolder
    (place / data_set.files[number]).write_bytes(content)
    with pytest.raises(UnusableInput) as caught:
        source(data_set, tmp_path).load()
    sentence = str(caught.value)
    assert sentence.startswith(f"The data set {data_set.name} cannot be read from {place} (")
    assert "delete that folder" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("data_set", [Cifar10, Cifar100])
def test_a_damaged_file_with_the_right_checksum_is_told_too(
    data_set: type[TorchvisionDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / data_set.subfolder
    write_cifar(data_set, place)
    (place / data_set.files[0]).write_bytes(pickle.dumps({"data": np.zeros((4, 5), dtype=np.uint8)}))
    accept_checksums(data_set, place, monkeypatch)
    with pytest.raises(UnusableInput, match="cannot be read from"):
        source(data_set, tmp_path).load()


def test_truncated_images_and_impossible_labels_are_damage(tmp_path: Path) -> None:
    place = tmp_path / Mnist.subfolder
    write_mnist(place)
    labels = place / "train-labels-idx1-ubyte"
    intact = labels.read_bytes()
    write_idx(labels, torch.full((300,), 10))
    with pytest.raises(
        UnusableInput, match=r"cannot be read from .* \(The label 10 \(300 of 300\) is outside 0\.\.9: labels"
    ):
        source(Mnist, tmp_path).load()
    labels.write_bytes(intact)
    images = place / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(UnusableInput, match="cannot be read from"):
        source(Mnist, tmp_path).load()


def test_missing_torchvision_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UnusableInput, match="mnist is read by torchvision, which is not installed"):
        source(Mnist, tmp_path).load()


@pytest.mark.parametrize(
    ("data_set", "place"),
    [(Mnist, ""), (Mnist, "MNIST/raw"), (FashionMnist, ""), (FashionMnist, "FashionMNIST")],
)
@pytest.mark.parametrize("compressed", [1, 4])
def test_compressed_idx_files_are_read_as_they_are(
    data_set: type[TorchvisionDataset], place: str, compressed: int, tmp_path: Path
) -> None:
    # In the folder itself: as Debian's package dataset-fashion-mnist installs them in /usr/share/datasets.
    folder = tmp_path / "given" / place
    images, labels = write_mnist(folder)
    for name in data_set.files[:compressed]:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    before = sorted(folder.iterdir())
    splits = source(data_set, tmp_path / "given", download=True).load()  # which needs no network
    assert torch.equal(splits.test.images, images)
    assert torch.equal(splits.test.labels, labels)
    assert len(splits.train_and_validation()) == 250
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"no idx file"), "half"],
    ids=["empty", "no gzip", "no idx file", "half"],  # a compressed file holds its time, a test's name must not
)
def test_a_damaged_compressed_file_is_told_in_one_sentence(content: bytes | str, tmp_path: Path) -> None:
    write_mnist(tmp_path / "given")
    name = Mnist.files[2]
    whole = gzip.compress((tmp_path / "given" / name).read_bytes())
    (tmp_path / "given" / name).unlink()
    damaged = whole[: len(whole) // 2] if isinstance(content, str) else content
    (tmp_path / "given" / f"{name}.gz").write_bytes(damaged)
    with pytest.raises(UnusableInput) as caught:
        source(Mnist, tmp_path / "given").load()
    assert str(caught.value).startswith(f"The data set mnist cannot be read from {tmp_path / 'given'} (")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_where_the_others_are(tmp_path: Path) -> None:
    write_mnist(tmp_path / "given")
    (tmp_path / "given" / Mnist.files[3]).unlink()
    with pytest.raises(UnusableInput, match=f"{Mnist.files[3]} was looked for in {tmp_path / 'given'}: set"):
        source(Mnist, tmp_path / "given").load()


@pytest.mark.parametrize("data_set", [Cifar10, Cifar100])
def test_an_archive_that_is_not_unpacked_is_named(data_set: type[TorchvisionDataset], tmp_path: Path) -> None:
    (tmp_path / data_set.archive).write_bytes(b"")
    with pytest.raises(UnusableInput) as caught:
        source(data_set, tmp_path).load()
    assert str(caught.value) == (
        f"The data set {data_set.name} is not unpacked, {data_set.files[0]} was looked for in "
        f"{tmp_path / data_set.subfolder}: unpack {tmp_path / data_set.archive} with tar -xzf, "
        "or set data.download=true."
    )


@pytest.mark.parametrize("data_set", SETS)
def test_the_classes_have_their_names(
    data_set: type[TorchvisionDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data_set, tmp_path, monkeypatch)
    names = source(data_set, tmp_path).load().class_names
    assert names is not None
    assert len(set(names)) == data_set.classes
    assert names[-1] == {"fashion_mnist": "Ankle boot", "cifar100": "99"}.get(data_set.name, "9")
