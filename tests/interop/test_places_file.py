"""A stand-alone file makes masks and fields of what its network gives, as the data have them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.interop.standalone import standalone_source
from nas.signature import Signature
from nas.spaces.macro.space import Macro
from nas.tasks import Classification, DenseClassification, DenseRegression, Task

LAYERS = [{"type": "conv", "filters": [4, 8], "kernel_size": 3}]


def file_for(
    task: Task,
    names: Sequence[str] | None,
    outputs: int,
    sides: tuple[int, ...] = (4, 6),
    preparation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    space = Macro(layers=LAYERS, activations=["relu"], signature=Signature((2, *sides), outputs, "dense"))
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    source = standalone_source(space, architecture, (0.5, 0.5), (1.0, 2.0), "found", names, preparation or {}, task)
    file: dict[str, Any] = {}
    exec(compile(source, "network.py", "exec"), file)
    assert max(map(len, file["__doc__"].splitlines())) <= 120
    return file


def logits_of(classes: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(classes, count).movedim(-1, 1).float()


CLASSES = torch.arange(24).view(1, 4, 6) % 3


@pytest.mark.parametrize(
    ("names", "values", "kind"),
    [
        (("0", "78", "255"), [0, 78, 255], torch.uint8),
        (("0", "78", "1000"), [0, 78, 1000], torch.int32),
        (("-1", "0", "7"), [-1, 0, 7], torch.int32),
        (("0", "1", "10000000001"), [0, 1, 10000000001], torch.int64),
        (("0", "#ff0080", "255"), [(0, 0, 0), (255, 0, 128), (255, 255, 255)], torch.uint8),
        (("#00ff00", "#ff0080", "#ffff00"), [(0, 255, 0), (255, 0, 128), (255, 255, 0)], torch.uint8),
        (("road", "car", "sky"), [0, 1, 2], torch.int64),
    ],
)
def test_a_mask_has_the_values_that_those_of_the_training_have(
    names: tuple[str, ...], values: list[Any], kind: torch.dtype, tmp_path: Path
) -> None:
    file = file_for(DenseClassification(), names, 3)
    assert file["CLASSES"] == names
    made = file["mask"](logits_of(CLASSES, 3))
    assert made.dtype == kind
    assert torch.equal(made, torch.tensor(values, dtype=kind)[CLASSES])
    if kind == torch.uint8:
        Image.fromarray(made[0].numpy()).save(tmp_path / "mask.png")
        assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), made[0].numpy())
    assert "of which mask(logits) makes masks" in file["__doc__"]
    assert file["mask"](file["network"]().eval()(torch.zeros(1, 2, 4, 6))).shape[:3] == (1, 4, 6)


@pytest.mark.parametrize("sides", [(4, 6), (5,)])
def test_a_field_is_in_the_units_of_the_targets(sides: tuple[int, ...]) -> None:
    targets = 1000 + 3 * torch.randn(9, 2, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parts = (ArrayDataset(torch.ones(3, 2, *sides), targets[place : place + 3], dense=True) for place in (0, 3, 6))
    splits = DataSplits("fields", *parts, mean=(0.5, 0.5), std=(1.0, 2.0), head="dense")
    task, fitted = DenseRegression().fitted(splits)
    preparation = {"kind": "arrays", "layout": "NCHW", "coordinates": True}
    file = file_for(task, None, 2, sides, preparation)
    torch.testing.assert_close(file["field"](fitted.test.targets), targets[6:], rtol=1e-6, atol=0)
    for words in ("to standardised targets", "of which field(outputs)", "as the arrays have them", "coordinates"):
        assert words in file["__doc__"]
    assert "from 0 to 1" not in file["__doc__"]
    assert file["field"](file["network"]().eval()(torch.zeros(1, 2, *sides))).shape == (1, 2, *sides)


class Terrain(DenseClassification):
    name = "terrain"


class Currents(DenseRegression):
    name = "currents"


class Directions(DenseRegression):
    """Of which no field in the targets' units can be made by their mean and deviation."""

    name = "directions"

    def target_scale(self) -> None:
        return None


@pytest.mark.parametrize(("task", "made"), [(Terrain(), "mask"), (Currents(), "field"), (Directions(), "")])
def test_a_task_of_a_users_own_says_what_its_outputs_are(task: Task, made: str) -> None:
    file = file_for(task, ("0", "9") if made == "mask" else None, 2)
    assert {"mask", "field"} & file.keys() == {made} - {""}
    if made == "mask":
        assert file["mask"](logits_of(CLASSES % 2, 2)).unique().tolist() == [0, 9]
    assert ("TARGET_MEAN" in file) == (made == "field")


def test_a_file_for_one_class_per_image_makes_no_mask() -> None:
    space = Macro(layers=LAYERS, activations=["relu"], signature=Signature((2, 4, 6), 3))
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    source = standalone_source(space, architecture, (0.5, 0.5), (1.0, 2.0), "found", task=Classification())
    assert "def mask" not in source
    assert "def field" not in source
