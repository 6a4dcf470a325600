"""New samples of a user's own, which a trained network is to say something of; their targets may be there or not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nas.data.dataset import TargetDataset


class NewSamples(NamedTuple):
    """What a file or a folder of new samples has.

    Attributes:
        dataset: N samples, prepared as those of the training were; its targets mean nothing.
        samples: What the data call each: the number of its row, or its file.
        cells: By target the N values that the data have for it, empty texts where they have none; None where they have
            no targets.
    """

    dataset: TargetDataset
    samples: Sequence[str | int]
    cells: Sequence[Sequence[Any]] | None = None


@runtime_checkable
class TakesNewSamples(Protocol):
    """A :class:`nas.data.data_splits.DataSource` that reads new samples, too."""

    def new_samples(self, path: Path, preparation: Mapping[str, Any]) -> NewSamples:
        """What ``path`` has, a file or a folder; nothing is measured on it.

        Args:
            path: It is there.
            preparation: What was measured on the training part, as ``DataSplits`` have it.

        Raises:
            UnusableInput: It cannot be read, or its samples are not like those of the training.
        """


def cells_of_folders(files: Sequence[str], root: Path) -> list[list[str]] | None:
    """The names of the folders that ``files`` lie in, which may be classes; None where all lie in ``root`` itself."""
    names = ["" if Path(file).parent == root else Path(file).parent.name for file in files]
    return [names] if any(names) else None
