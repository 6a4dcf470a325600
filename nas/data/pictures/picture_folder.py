"""A folder of pictures: what they are called, what says which of them is of which part, and folders of masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from nas.data.row_split import PART_NAMES
from nas.data.sample_folder import SampleFolder, files_below
from nas.errors import UnusableInput, listed
from nas.typed_settings import in_shell, quoted

PICTURES = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),  # as torchvision has them
    *(".jfif", ".jpe", ".gif", ".pbm", ".pnm"),
)
PICTURES_OF_MASKS, MASKS = "images", ("masks", "labels")  # what the two folders of pictures and masks are called
UNKNOWN = "..."  # a name for the user to fill in


class PictureFolder(SampleFolder):
    """A folder of a user's pictures; ``data.parts`` says which folder is which part."""

    endings: ClassVar[tuple[str, ...]] = PICTURES
    what: ClassVar[str] = "picture"
    layout: ClassVar[str] = "<class>/*.png, or say where the labels are, data.labels=<file>.csv or data.masks=<folder>"

    def pictures(self, without: Path | None = None) -> list[str]:
        """All pictures below the folder but those below ``without``, sorted."""
        try:
            found = files_below(str(self.location), self.left_out, self.endings)
        except OSError as error:
            raise self.unreadable(self.location, error) from None
        return [file for file in found if without is None or not Path(file).is_relative_to(without)]

    def by_part(self, files: Sequence[str]) -> tuple[dict[str, int], Tensor]:
        """How many of ``files`` lie in the folders of ready parts but train, and the order that puts these last.

        Raises:
            UnusableInput: There are ready parts, and a file lies in none of them.
        """
        ready = self.parts()
        members: dict[str, list[int]] = {part: [] for part in PART_NAMES}
        outside = []
        for place, file in enumerate(files):
            part = next((one for one, root in ready.items() if Path(file).is_relative_to(root)), None)
            members[part or "train"].append(place)
            if part is None:
                outside.append(file)
        if ready and outside and len(outside) < len(files):
            raise UnusableInput(
                f"{len(outside):,} of {len(files):,} pictures lie in none of "
                f"{listed([path.name for path in ready.values()])} below {self.location}, the first is {outside[0]}: "
                "move them, or rename these folders."
            )
        if ready and not outside and not members["train"]:
            raise UnusableInput(f"There are no pictures for training in {ready['train']}.")
        own = {part: len(places) for part, places in members.items() if places and part != "train"}
        return own, torch.tensor([place for places in members.values() for place in places], dtype=torch.int64)

    def _said_by_parts(self, begin: str, parts: Mapping[str, str]) -> str:
        shown = {part: parts.get(part, UNKNOWN) for part in PART_NAMES if part in ("train", *parts)}
        return f"{begin} {_setting(shown)}" if self.given is None else ""  # nobody asks once it is given

    def _without(self, root: Path) -> str:
        parts = self.parts()
        others = {part: path.name for part, path in parts.items() if path != root}
        if root not in parts.values() or root == parts["train"]:
            return ""
        return f"; if nobody knows its classes, {_setting(others)} draws that part from training"

    def _way_to_parts(self, given: Mapping[str, str]) -> str:
        return f"say {_setting(given)}"

    def _refuse_no_classes(self, found: Mapping[str, list[str]]) -> None:
        """Refuse pictures and their masks as two classes: nobody wants to tell these apart."""
        masks = next((name for name in MASKS if found.keys() == {PICTURES_OF_MASKS, name}), None)
        if masks is None:
            return
        names, others = (
            {Path(file).relative_to(self.location / name).with_suffix("") for file in found[name]}
            for name in (PICTURES_OF_MASKS, masks)
        )
        if names == others:
            raise UnusableInput(
                f"{self.location} has {PICTURES_OF_MASKS} and {masks} of the same {len(names):,} names: for a class "
                f"per pixel say data.masks={masks}; if they are two classes of whole pictures, rename one of them."
            )


def _setting(parts: Mapping[str, str]) -> str:
    """The setting that names the folders of ``parts``, as it is typed in a shell."""
    named = ", ".join(f"{part}: {name if name == UNKNOWN else quoted(name)}" for part, name in parts.items())
    return in_shell(f"data.parts={{{named}}}")
