"""What a configuration names as the data of a run."""

from typing import Protocol

from nas.data.augmentation import Augmentation
from nas.data.dataset import DataSplits


class DataSource(Protocol):
    """A data set that can be loaded, with the augmentation that its training images get."""

    @property
    def name(self) -> str:
        """The data set's name, as in ``conf/data/<name>.yaml``."""

    @property
    def augmentation(self) -> Augmentation:
        """What is done to the training images of every batch."""

    def load(self) -> DataSplits:
        """Read the images into memory, or the list of their files, and split them; all on the CPU.

        Raises:
            UnusableInput: The data are not there or cannot be read.
            InvalidValue: The split or the augmentation does not fit the data; keys start with ``split.`` or
                ``augmentation.``.
        """
