"""Data sets, their splits, batched augmentation and streams of batches."""

from nas.data.arrays.arrays import Arrays
from nas.data.arrays.time_series import TimeSeries
from nas.data.augmentation import Augmentation, ImageFileAugmentation
from nas.data.batches import Batch, Stream
from nas.data.data_splits import DataSource, DataSplits
from nas.data.dataset import ArrayDataset, Dataset, ImageDataset
from nas.data.pictures.embedded import Digits, Mnist5k
from nas.data.pictures.image_files import Decoding
from nas.data.pictures.images import Images
from nas.data.pictures.images import imagenet_of_old as ImageNet
from nas.data.pictures.torchvision_datasets import Cifar10, Cifar100, FashionMnist, Mnist
from nas.data.row_split import RowSplit
from nas.data.stratified_split import SplitSettings, split_dataset
from nas.data.tables.csv_format import CsvFormat
from nas.data.tables.table import Table
from nas.data.texts.text import Text, TextSplit

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
