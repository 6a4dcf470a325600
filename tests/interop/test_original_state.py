"""State dicts of the original networks: names, round trips, and files that are something else."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.errors import InvalidValue, UnusableInput
from nas.interop.named_architecture import PUBLISHED
from nas.interop.original_state import (
    load_original,
    load_weights,
    original_name,
    read_state,
    to_original,
)
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.run.checkpoint import CheckpointFolder
from nas.signature import Signature
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
    """Original names through the network itself and back, bit for bit."""
    load_original(network, state)
    written = to_original(network, network.state_dict())
    assert {name for name in written if not name.endswith("num_batches_tracked")} == set(state)
    assert all(torch.equal(written[name], state[name]) for name in state)


def test_search_network(reference_folder: Path) -> None:
    content = arrays(reference_folder / "darts_search_c4_l3.npz")
    space = Darts(4, 3, signature=Signature((3, 16, 16), 10))
    assert_round_trip(space.supernet(Softmax(Temperature())).double(), state_in(content, "init/"))


def test_evaluation_network_of_darts(reference_folder: Path) -> None:
    content = arrays(reference_folder / "darts_v2_eval_c4_l5.npz")
    genotype = Genotype.from_mapping(json.loads(str(content["genotype"])))
    network = DartsNetwork(genotype, in_channels=3, channels=4, cells=5, classes=10, auxiliary=True).double()
    assert_round_trip(network, state_in(content, "state/"))


def nasbench201_network(text: str) -> nn.Module:
    space = NasBench201(4, 1, signature=Signature((3, 16, 16), 10))
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


def checkpoints(state: dict[str, Tensor]) -> dict[str, object]:
    """One state dict as training scripts leave it."""
    profiled = {"total_ops": torch.zeros(1), "cells.0.total_params": torch.zeros(1)}
    numbers = {"best_acc_top1": np.float64(97.2), "epoch": np.int64(3), "history": np.arange(3.0)}
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    return {
        "DataParallel": prefixed,
        "torch.compile": {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        "both": {f"_orig_mod.{name}": tensor for name, tensor in prefixed.items()},
        "compiled cells": {name.replace("cells.0", "cells.0._orig_mod"): tensor for name, tensor in state.items()},
        "Lightning": {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}, "epoch": 3},
        "quark0's train_imagenet": {"state_dict": prefixed, "optimizer": {"state": {}, "param_groups": []}, **numbers},
        "AutoDL": {"network": state, "args": {"lr": 0.1}},
        "wrapped twice": {"model": {"state_dict": state}},
        "any other entry": {"weights": state, "epoch": 3},
        "thop": state | profiled,
        "half precision": {name: tensor.to(torch.bfloat16) for name, tensor in state.items()},
        "parameters": {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in state.items()},
    }


@pytest.mark.parametrize("spelling", ["original", "ours"])
@pytest.mark.parametrize("form", checkpoints({}))
def test_a_state_dict_as_a_training_script_leaves_it_is_loaded(form: str, spelling: str, tmp_path: Path) -> None:
    source, target = small_network(), small_network()
    with torch.no_grad():
        for tensor in source.state_dict().values():
            tensor.copy_(torch.randint(1, 9, tensor.shape))  # numbers that half precision holds
    state = source.state_dict() if spelling == "ours" else to_original(source, source.state_dict())
    torch.save(checkpoints(dict(state))[form], tmp_path / "checkpoint.pt")
    load_weights(target, tmp_path / "checkpoint.pt")
    assert all(torch.equal(tensor, target.state_dict()[name]) for name, tensor in source.state_dict().items())


def test_our_weights_with_an_auxiliary_head_fit_a_network_without(tmp_path: Path) -> None:
    source, target = small_network(auxiliary=True), small_network()
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    load_weights(target, tmp_path / "weights.pt")
    assert torch.equal(source.classifier.weight, target.classifier.weight)
    torch.save(target.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InvalidValue, match=r"lacks auxiliary_head.* space\.auxiliary=false leaves it out"):
        load_weights(source, tmp_path / "weights.pt")


def test_what_does_not_fit_is_named_in_the_files_spelling(tmp_path: Path) -> None:
    network, file = small_network(), tmp_path / "weights.pt"
    ours = dict(network.state_dict())
    for state, sentence in (
        (ours | {"classifier.bias": torch.zeros(7)}, r"classifier\.bias has shape \(7,\), this network needs \(4,\)"),
        ({name: one for name, one in ours.items() if "edges.0" not in name}, r"lacks cells\.0\.edges\.0\.1\.weight"),
        (
            {name.replace("preprocess", "before"): one for name, one in ours.items()},
            r"entry cells\.0\.before0\.\S+ that .* it needs cells\.0\.preprocess0\.\S+, which is not",
        ),
        (
            {f"net.{name.replace('preprocess', 'preproc')}": one for name, one in ours.items()},
            r"of khanrc/pt\.darts, .* batch norm behind every pooling\. .* candidate='Genotype",
        ),
    ):
        torch.save(state, file)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        with pytest.raises(InvalidValue, match=sentence):
            load_weights(network, file)
        assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.safetensors", None, "is not there: final.checkpoint must be a file"),
        ("none.pt", None, "is not there: final.checkpoint must be a file"),
        ("weights.safetensors", struct.pack("<Q", 2) + b"{}", "safetensors' format: torch.save"),
        ("weights.pt", b"", "it is empty"),
        ("weights.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull fetches it"),
        ("weights.pt", b"HDF", "it is damaged, or holds more than weights"),
    ],
)
def test_what_is_no_checkpoint_is_told_as_what_it_is(
    name: str, content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableInput) as caught:
        read_state(tmp_path / name)
    assert sentence in str(caught.value)
    with pytest.raises(UnusableInput, match="is a folder"):
        read_state(tmp_path)


def test_a_pickled_network_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(small_network(), tmp_path / "model.pt")
    sentence = r"it holds nas\.spaces\.darts\.network\.DartsNetwork, and only tensors .* save the network's state_dict"
    with pytest.raises(UnusableInput, match=sentence):
        read_state(tmp_path / "model.pt")


def test_a_checkpoint_of_a_run_says_what_it_is_for(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path).save(3, {"step": 3})
    with pytest.raises(UnusableInput, match=r"checkpoint of a run, for resume=<run folder>"):
        read_state(tmp_path / "step-00000003.pt")


class Payload:
    """What a hostile checkpoint holds: unpickling it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_hostile_checkpoint_is_refused_and_not_executed(tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    numbers = {"best": np.float64(3)}  # what is passed over opens no way for anything else
    torch.save({"classifier.bias": Payload(f"touch {witness}"), **numbers}, tmp_path / "hostile.pt")
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
    for name in ("half.pt", "empty.pt"):
        with pytest.raises(UnusableInput, match="cannot be read"):
            read_state(tmp_path / name)
