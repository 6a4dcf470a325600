"""Files of their own of Transformers and recurrent cells: the same numbers, and texts as they come."""

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.candidate import Architecture
from nas.interop.export import export_network
from nas.interop.standalone import standalone_source
from nas.operations.embedding import known_tokens
from nas.operations.memory import Remembers
from nas.signature import Signature
from nas.spaces import Recurrent, Transformer
from nas.spaces.space import SearchSpace
from nas.spaces.transformer.choices import MIXERS
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


def runs_as(kind: ExportKind, path: Path) -> Callable[..., Sequence[torch.Tensor]]:
    """What runs an exported file, as a program without ours does."""
    if kind == "torch_export":
        module = torch.export.load(path).module()
        return lambda *inputs: found if isinstance(found := module(*inputs), tuple) else (found,)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda *inputs: [
        torch.from_numpy(one)
        for one in session.run(None, {name: given.numpy() for name, given in zip(names, inputs, strict=True)})
    ]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", ["onnx", "torch_export"])
@pytest.mark.parametrize(("space", "name"), NETWORKS)
def test_an_exported_network_takes_any_batch_and_shorter_texts(
    space: str, name: str, kind: ExportKind, tmp_path: Path
) -> None:
    if missing_packages(kind):
        pytest.skip("pip install -e .[export]")
    inputs, network = inputs_of(name, 7), made(space, name)[2]
    if space == "transformer":  # with a layer of every kind
        all_kinds = Transformer(width=4, layers=3, optional=0, heads=(1, 2), signature=INPUTS[name])
        mixers = {f"layer{place}.mixer": mixer for place, mixer in enumerate(MIXERS, start=1)}
        sampled = all_kinds.sample(torch.Generator().manual_seed(2)).architecture
        network = all_kinds.network(Architecture(all_kinds.name, {**sampled, **mixers})).eval()
    before = network(inputs)
    path, difference = export_network(network, kind, tmp_path, inputs)
    assert difference <= 1e-5
    assert path.stat().st_size < 300_000  # a cell is one loop
    assert torch.equal(network(inputs), before)
    run = runs_as(kind, path)
    for batch in (1, 3):
        for length in (1, 2, 4, 6) if INPUTS[name].is_tokens else inputs.shape[-1:]:
            given = inputs[:batch, ..., :length]
            if isinstance(network, Remembers):  # step by step
                state, steps = network.initial_state(batch), []
                for token in given.unbind(1):
                    logits, state = run(token, state)
                    steps.append(logits)
                found = torch.stack(steps, 1)
            else:
                found = run(given)[0]
            torch.testing.assert_close(found, network(given), rtol=1e-5, atol=1e-5)


def test_a_text_of_any_length_is_masked_in_an_export() -> None:
    """Quick, for the slow one above: a slice of length - 1 would forbid lengths."""

    class Mask(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return known_tokens(tokens)

    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=1, max=6)}
    tokens = torch.tensor([[0, 4, 0], [3, 0, 1]])
    masked = torch.export.export(Mask(), (tokens,), dynamic_shapes=(axes,)).module()
    assert masked(tokens).tolist() == [[True, True, False], [True, False, True]]
    assert masked(tokens[:1, :1]).tolist() == [[True]]
