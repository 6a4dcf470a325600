"""New samples of a user's own, which a trained network is to say something of; their targets may be there or not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nas.data.dataset import TargetDataset
from nas.data.row_split import part_named


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
    """The folders of ``root`` that ``files`` lie in, which may be classes; None where all lie in ``root`` itself.

    Folders of parts (``train``, ``test``) are passed over, and what is deeper has the class of the folder on top.
    """
    names = []
    for file in files:
        folders = Path(file).relative_to(root).parts[:-1]
        inner = folders[1:] if folders and part_named(folders[0]) else folders
        names.append(inner[0] if inner else "")
    return [names] if any(names) else None
