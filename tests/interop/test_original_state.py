"""State dicts of the original networks: names, round trips, and files that are something else."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.errors import UnusableInput
from nas.interop.named_architecture import PUBLISHED
from nas.interop.original_state import from_original, load_original, original_name, read_state, to_original
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.network import DartsNetwork
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.choices import parse_architecture
from nas.spaces.nasbench201.space import NasBench201


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def state_in(content: dict[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: torch.from_numpy(array) for name, array in content.items() if name.startswith(prefix)}


def assert_round_trip(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Original names to ours and back, and through the network itself, bit for bit."""
    back = to_original(network, from_original(network, state))
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    load_original(network, state)
    written = to_original(network, network.state_dict())
    assert {name for name in written if not name.endswith("num_batches_tracked")} == set(state)
    assert all(torch.equal(written[name], state[name]) for name in state)


def test_search_network(reference_folder: Path) -> None:
    content = arrays(reference_folder / "darts_search_c4_l3.npz")
    space = Darts(4, 3, input_shape=(3, 16, 16), classes=10)
    assert_round_trip(space.supernet(Softmax(Temperature())).double(), state_in(content, "init/"))


def test_evaluation_network_of_darts(reference_folder: Path) -> None:
    content = arrays(reference_folder / "darts_v2_eval_c4_l5.npz")
    genotype = Genotype.from_mapping(json.loads(str(content["genotype"])))
    network = DartsNetwork(genotype, in_channels=3, channels=4, cells=5, classes=10, auxiliary=True).double()
    assert_round_trip(network, state_in(content, "state/"))


def nasbench201_network(text: str) -> nn.Module:
    space = NasBench201(4, 1, input_shape=(3, 16, 16), classes=10)
    return space.network(parse_architecture(text)).double()


def test_nasbench201_network_and_its_logits(data_folder: Path) -> None:
    content = arrays(data_folder / "nasbench201_eval_c4_n1.npz")
    network = nasbench201_network(str(content["arch"]))
    assert_round_trip(network, state_in(content, "state/"))
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(content["x"]))
    assert torch.allclose(logits, torch.from_numpy(content["eval_logits"]), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("stem.quarter.0.weight", "stem0.0.weight"),
        ("stem.eighth.2.running_mean", "stem1.2.running_mean"),
        ("cells.0.preprocess0.even.weight", "cells.0.preprocess0.conv_1.weight"),
        ("cells.0.preprocess1.1.weight", "cells.0.preprocess1.op.1.weight"),
        ("cells.1.edges.0.1.weight", "cells.1._ops.0.op.1.weight"),
        ("cells.1.edges.8.1.weight", "cells.1._ops.8.1.weight"),  # conv_7x1_1x7, which the original does not wrap
        ("auxiliary_head.features.5.weight", "auxiliary_head.features.5.weight"),
        ("classifier.bias", "classifier.bias"),
    ],
)
def test_names_of_the_imagenet_network(name: str, original: str) -> None:
    reduce = PUBLISHED["amoebanet"].reduce
    genotype = Genotype((("sep_conv_3x3", 0), ("skip_connect", 1)), (2,), (("sep_conv_3x3", 0), *reduce[1:]), (4, 6))
    settings = {"in_channels": 3, "channels": 4, "cells": 3, "classes": 10, "kind": "imagenet", "auxiliary": True}
    network = DartsNetwork(genotype, **settings)  # type: ignore[arg-type]
    assert name in network.state_dict()
    assert original_name(network, name) == original
    names = [original_name(network, entry) for entry in network.state_dict()]
    assert len(set(names)) == len(names)


def small_network(auxiliary: bool = False) -> DartsNetwork:
    genotype = PUBLISHED["darts_v2"]
    return DartsNetwork(genotype, in_channels=3, channels=2, cells=3, classes=4, auxiliary=auxiliary)


def test_a_checkpoint_is_loaded_from_its_file(tmp_path: Path) -> None:
    source, target = small_network(auxiliary=True), small_network()
    state = to_original(source, source.state_dict())
    parallel = {f"module.{name}": tensor for name, tensor in state.items() if "num_batches" not in name}
    torch.save({"epoch": 3, "state_dict": parallel}, tmp_path / "checkpoint.pt")
    load_original(target, read_state(tmp_path / "checkpoint.pt"))
    own = target.state_dict()
    assert all(torch.equal(source.state_dict()[name], own[name]) for name in own)


def test_what_does_not_fit_is_named() -> None:
    network = small_network()
    state = to_original(network, network.state_dict())
    with pytest.raises(UnusableInput, match=r"lacks cells\.0\.preprocess0\.op\.1\.weight"):
        load_original(network, {name: tensor for name, tensor in state.items() if "preprocess0.op.1" not in name})
    with pytest.raises(UnusableInput, match=r"cells\.9\.weight that this network has no place for"):
        load_original(network, state | {"cells.9.weight": torch.zeros(1)})
    with pytest.raises(UnusableInput, match=r"classifier\.bias has shape \(7,\), this network needs \(4,\)"):
        load_original(network, state | {"classifier.bias": torch.zeros(7)})
    with pytest.raises(UnusableInput, match="auxiliary_head"):
        load_original(small_network(auxiliary=True), state)


class Payload:
    """What a hostile checkpoint holds: unpickling it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_hostile_checkpoint_is_refused_and_not_executed(tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    torch.save({"classifier.bias": Payload(f"touch {witness}")}, tmp_path / "hostile.pt")
    with pytest.raises(UnusableInput, match="cannot be read as a PyTorch checkpoint"):
        read_state(tmp_path / "hostile.pt")
    assert not witness.exists()


@pytest.mark.parametrize("content", [{}, [1], {"epoch": 3}, {"state_dict": {"a": 1}}, {3: torch.zeros(1)}])
def test_files_without_a_state_dict_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UnusableInput, match="holds no state dict"):
        read_state(tmp_path / "other.pt")


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    network = small_network()
    torch.save(network.state_dict(), tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("half.pt", "empty.pt", "missing.pt"):
        with pytest.raises(UnusableInput, match="cannot be read"):
            read_state(tmp_path / name)
