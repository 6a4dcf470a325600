"""Files of their own of Transformers and recurrent cells: the same numbers, and texts as they come."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.interop.export import export_network
from nas.interop.standalone import standalone_source
from nas.signature import Signature
from nas.spaces import Recurrent, Transformer
from nas.spaces.space import SearchSpace
from nas.training.retraining import ExportKind, missing_packages

INPUTS = {
    "running text": Signature((6,), 5, "sequence", (5,)),
    "texts": Signature((6,), 3, categories=(5,), tokens=True),
    "series": Signature((2, 7), 3),
    "one channel": Signature((1, 7), 3),
    "images": Signature((1, 5, 6), 3),
}
PREPARED: dict[str, tuple[dict[str, Any], Any, list[list[int]]]] = {
    "running text": (
        {"level": "word", "vocabulary": ["<unk>", "a", "b", "<eos>", "c"]},
        "a b x\nc",
        [[1, 2, 0, 3, 4, 3]],
    ),
    "texts": (
        {"kind": "texts", "level": "word", "length": 6, "vocabulary": ["<pad>", "<unk>", "a", "b", "<eos>"]},
        ["a q b", "", "a a a a a a a"],
        [[2, 1, 3, 4, 0, 0], [1, 0, 0, 0, 0, 0], [2, 2, 2, 2, 2, 2]],
    ),
}
NETWORKS = [("transformer", name) for name in INPUTS] + [("recurrent", name) for name in INPUTS if name != "images"]


def made(kind: str, name: str) -> tuple[SearchSpace, Any, torch.nn.Module]:
    torch.manual_seed(1)
    space: SearchSpace
    if kind == "transformer":
        space = Transformer(width=4, layers=2, optional=1, heads=(1, 2), signature=INPUTS[name])
    else:
        space = Recurrent(width=3, final_width=4, nodes=3, signature=INPUTS[name])
    architecture = space.sample(torch.Generator().manual_seed(2)).architecture
    return space, architecture, space.network(architecture).eval()


def inputs_of(name: str, size: int = 3) -> torch.Tensor:
    one, generator = INPUTS[name], torch.Generator().manual_seed(3)
    if one.is_tokens:
        return torch.randint(one.categories[0], (size, *one.input_shape), generator=generator)
    return torch.randn(size, *one.input_shape, generator=generator)


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_a_file_of_its_own_gives_the_networks_outputs(kind: str, name: str, tmp_path: Path) -> None:
    space, architecture, network = made(kind, name)
    preparation, given, tokens = PREPARED.get(name, ({}, None, []))
    channels = 0 if space.signature.is_tokens else space.input_shape[0]
    source = standalone_source(space, architecture, [0.0] * channels, [1.0] * channels, name, None, preparation)
    assert "import nas" not in source
    assert "from nas" not in source
    assert len(source.splitlines()) < 400
    assert max(map(len, source.splitlines())) <= 130
    (tmp_path / "network.py").write_text(source)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    file = runpy.run_path(str(tmp_path / "network.py"))
    again = file["load"](tmp_path / "weights.pt")
    inputs = inputs_of(name) if given is None else file["prepare"](given)
    if given is not None:
        assert inputs.tolist() == tokens
    assert torch.equal(again(inputs), network(inputs))
    if (kind, name) == ("recurrent", "running text"):
        first = again.recall(inputs[:, :2])
        torch.testing.assert_close(again.recall(inputs[:, 2:], first.state).logits, network(inputs)[:, 2:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch_export"])
@pytest.mark.parametrize("name", ["running text", "texts", "series", "one channel"])
def test_an_exported_cell_goes_step_by_step_or_over_the_whole(name: str, kind: ExportKind, tmp_path: Path) -> None:
    if missing_packages(kind):
        pytest.skip("pip install -e .[export]")
    network = made("recurrent", name)[2]
    before = network(inputs_of(name, 7))
    path, difference = export_network(network, kind, tmp_path, inputs_of(name, 7))
    assert difference <= 1e-5
    assert path.stat().st_size < 300_000
    assert torch.equal(network(inputs_of(name, 7)), before)
