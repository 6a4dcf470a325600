"""An operation of a user's own, in a module outside of the package: found again where it is trusted, and exported."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nas.errors import InvalidValue, UnusableInput
from nas.interop.standalone import standalone_source
from nas.operations.cell_operations import CELL_OPERATIONS
from nas.relaxations import Softmax
from nas.relaxations.relaxation import Temperature
from nas.signature import Signature
from nas.spaces import Darts, space_from_description

MODULE = '''
from torch import nn

from nas.operations.cell_operations import CELL_OPERATIONS
from {name}_parts import WIDTH


class Dense(nn.Sequential):
    """ReLU, a dense convolution, batch norm."""

    def __init__(self, channels, stride, affine):
        convolution = nn.Conv2d(channels, channels, WIDTH, stride, WIDTH // 2, bias=False)
        super().__init__(nn.ReLU(), convolution, nn.BatchNorm2d(channels, affine=affine))


CELL_OPERATIONS["dense_3x3"] = Dense
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package that adds ``dense_3x3``, not imported yet."""
    name = f"mine_{tmp_path.name}"  # another in every test, as a module is read once
    (tmp_path / name).mkdir()
    (tmp_path / name / "parts.py").write_text("WIDTH = 3\n")
    (tmp_path / name / "__init__.py").write_text(MODULE.replace("{name}_parts", ".parts"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    CELL_OPERATIONS.pop("dense_3x3", None)
    for module in (name, f"{name}.parts"):
        sys.modules.pop(module, None)


def test_it_is_searched_found_again_and_written_down(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"operations": ["skip_connect", "dense_3x3"], "channels": 2, "cells": 2, "steps": 2, "multiplier": 2}
    sizes = {"final_channels": 2, "final_cells": 2, "signature": Signature((1, 8, 8), 10)}
    with pytest.raises(InvalidValue, match="different operations out of"):
        Darts(**settings, **sizes)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    monkeypatch.setenv("NAS_TRUST", "nobody_s,broken")
    with pytest.raises(UnusableInput, match=r"broken, which fails: No module named 'nothing_of.*broken\.py, line 1\."):
        space_from_description({})
    __import__(package)
    description = Darts(**settings, **sizes).describe()
    del CELL_OPERATIONS["dense_3x3"]
    del sys.modules[package]
    monkeypatch.setenv("NAS_TRUST", package)
    space = space_from_description(description)

    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert space.supernet(Softmax(Temperature()))(images).shape == (4, 10)
    architecture = space.sample(torch.Generator().manual_seed(1)).architecture
    assert "dense_3x3" in architecture.values()
    network = space.network(architecture).eval()
    source = standalone_source(space, architecture, [0.5], [0.25], "mine")
    assert package not in source
    (tmp_path / "network.py").write_text(source)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    alone = runpy.run_path(str(tmp_path / "network.py"))["load"](tmp_path / "weights.pt")
    torch.testing.assert_close(alone(images), network(images))


@pytest.mark.parametrize(
    ("imported", "width", "entry", "told"),
    [
        (
            "from .parts import WIDTH",
            "WIDTH",
            "lambda *of: Dense(*of)",
            r"\['dense_3x3'\]=<lambda> .* a class or a def",
        ),
        ("from functools import partial", "3", "partial(Dense)", r"\['dense_3x3'\]=partial .* a class or a def"),
        ("from .parts import WIDTH as W", "W", "Dense", "=WIDTH as W .* its own name only"),
        ("from . import parts", "parts.WIDTH", "Dense", "=parts .* at the top level of a module"),
        ("from .parts import *", "WIDTH", "Dense", "=WIDTH .* imported by name"),
    ],
    ids=["lambda", "partial", "renamed", "module", "star"],
)
def test_what_cannot_be_written_down_is_named(
    imported: str, width: str, entry: str, told: str, package: str, tmp_path: Path
) -> None:
    text = MODULE.replace("WIDTH", width).replace(f"from {{name}}_parts import {width}", imported)
    (tmp_path / package / "__init__.py").write_text(text.replace("= Dense", f"= {entry}"))
    __import__(package)
    sizes = {"channels": 2, "cells": 2, "steps": 2, "multiplier": 2, "final_channels": 2, "final_cells": 2}
    space = Darts(operations=["skip_connect", "dense_3x3"], signature=Signature((1, 8, 8), 10), **sizes)
    architecture = space.sample(torch.Generator().manual_seed(1)).architecture
    with pytest.raises(InvalidValue, match=told):
        standalone_source(space, architecture, [0.5], [0.25], "mine")
