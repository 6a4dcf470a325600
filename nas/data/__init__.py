"""Data sets, their splits, batched augmentation and streams of batches."""

from nas.data.augmentation import Augmentation, ImageFileAugmentation
from nas.data.batches import Batch, Stream
from nas.data.data_splits import DataSource, DataSplits
from nas.data.dataset import Dataset, ImageDataset
from nas.data.embedded import Digits, Mnist5k
from nas.data.image_files import Decoding, ImageNet
from nas.data.splits import SplitSettings, split_dataset
from nas.data.text import Text, TextSplit
from nas.data.torchvision_datasets import Cifar10, Cifar100, FashionMnist, Mnist

__all__ = [
    "Augmentation",
    "Batch",
    "Cifar10",
    "Cifar100",
    "DataSource",
    "DataSplits",
    "Dataset",
    "Decoding",
    "Digits",
    "FashionMnist",
    "ImageDataset",
    "ImageFileAugmentation",
    "ImageNet",
    "Mnist",
    "Mnist5k",
    "SplitSettings",
    "Stream",
    "Text",
    "TextSplit",
    "split_dataset",
]
