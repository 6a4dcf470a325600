"""Data sets, their splits, batched augmentation and streams of batches."""

from nas.data.arrays import Arrays
from nas.data.augmentation import Augmentation, ImageFileAugmentation
from nas.data.batches import Batch, Stream
from nas.data.csv_format import CsvFormat
from nas.data.data_splits import DataSource, DataSplits
from nas.data.dataset import ArrayDataset, Dataset, ImageDataset
from nas.data.embedded import Digits, Mnist5k
from nas.data.image_files import Decoding
from nas.data.images import Images
from nas.data.images import imagenet_of_old as ImageNet
from nas.data.row_split import RowSplit
from nas.data.splits import SplitSettings, split_dataset
from nas.data.table import Table
from nas.data.text import Text, TextSplit
from nas.data.time_series import TimeSeries
from nas.data.torchvision_datasets import Cifar10, Cifar100, FashionMnist, Mnist

__all__ = [
    "ArrayDataset",
    "Arrays",
    "Augmentation",
    "Batch",
    "Cifar10",
    "Cifar100",
    "CsvFormat",
    "DataSource",
    "DataSplits",
    "Dataset",
    "Decoding",
    "Digits",
    "FashionMnist",
    "ImageDataset",
    "ImageFileAugmentation",
    "ImageNet",
    "Images",
    "Mnist",
    "Mnist5k",
    "RowSplit",
    "SplitSettings",
    "Stream",
    "Table",
    "Text",
    "TextSplit",
    "TimeSeries",
    "split_dataset",
]
