"""State dicts of the original networks, to and from this package's, bit for bit.

They are the search network and both evaluation networks of quark0/darts, and the stand-alone network of NAS-Bench-201
in AutoDL-Projects. The structures are the same and the names of their parts differ, so a name is translated part by
part, by the type of the module that holds the part.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.errors import InvalidValue, UnusableInput
from nas.operations.cell_operations import (
    DilatedSeparableConvolution,
    FactorisedReduction,
    MixedEdge,
    ReLUConvBN,
    SeparableConvolution,
)
from nas.spaces.darts import network as darts_network
from nas.spaces.darts import supernet as darts_supernet
from nas.spaces.nasbench201 import network as nasbench201_network

ORIGINAL_PARTS: dict[type[nn.Module], dict[str, str]] = {
    darts_supernet.SearchCell: {"edges": "_ops"},
    darts_supernet.FastSearchCell: {"edges": "_ops"},
    darts_network.Cell: {"edges": "_ops"},
    darts_network.ImageNetStem: {"quarter": "stem0", "eighth": "stem1"},
    MixedEdge: {"operations": "_ops"},
    FactorisedReduction: {"even": "conv_1", "odd": "conv_2", "normalisation": "bn"},
    nasbench201_network.Cell: {"edges": "layers"},
    nasbench201_network.ResidualBlock: {"first": "conv_a", "second": "conv_b", "shortcut": "downsample"},
    nasbench201_network.NasBench201Network: {"last_activation": "lastact"},
}
"""Per module type: the name of a part here to its name there; parts that are not listed have one name."""

WRAPPED = (ReLUConvBN, SeparableConvolution, DilatedSeparableConvolution)
"""Sequences of layers that the original holds in an attribute ``op``."""


def original_name(network: nn.Module, name: str) -> str:
    """What the entry ``name`` of ``network``'s state dict is called in the original.

    The search network's alphas, which the original keeps outside its state dict, become ``alphas_normal`` and
    ``alphas_reduce``.
    """
    if name.startswith("alpha."):
        return name.replace("alpha.", "alphas_", 1)
    module, parts = network, []
    for part in name.split("."):
        if isinstance(module, WRAPPED):
            parts.append("op")
        child = getattr(module, part)
        # The two parts of the ImageNet stem are attributes of the original network itself.
        if not isinstance(child, darts_network.ImageNetStem):
            parts.append(ORIGINAL_PARTS.get(type(module), {}).get(part, part))
        module = child
    return ".".join(parts)


def to_original(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state``, a state dict of ``network``, under the original's names; the tensors are the same objects."""
    return {original_name(network, name): tensor for name, tensor in state.items()}


def from_original(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`to_original`, for a ``state`` that has all or some of the original's names.

    Raises:
        UnusableInput: An entry of ``state`` has no place in ``network``.
    """
    names = {original_name(network, name): name for name in network.state_dict()}
    for name in state:
        if name not in names:
            raise UnusableInput(f"The state dict has an entry {str(name)[:200]} that this network has no place for.")
    return {names[name]: tensor for name, tensor in state.items()}


def load_original(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy the weights and statistics of an original state dict into ``network``, converted to its dtype.

    Counts of batches (PyTorch before 0.4.1 had none) and alphas may be missing. An auxiliary head that ``network`` does
    not have is left out, and so is the prefix ``module.`` of ``DataParallel``.

    Raises:
        UnusableInput: An entry is missing, has no place, or has another shape; the sentence names the first one.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if getattr(network, "auxiliary_head", None) is None:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("auxiliary_head.")}
    translated = from_original(network, state)
    own = network.state_dict()
    for name, tensor in own.items():
        if name in translated:
            given, needed = tuple(translated[name].shape), tuple(tensor.shape)
            if given != needed:
                entry = original_name(network, name)
                raise UnusableInput(f"The state dict's {entry} has shape {given}, this network needs {needed}.")
        elif not (name.endswith("num_batches_tracked") or name.startswith("alpha.")):
            raise UnusableInput(f"The state dict lacks {original_name(network, name)}, which this network needs.")
    network.load_state_dict(own | translated)


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in the file ``path``, lone or as the entry ``state_dict`` of a checkpoint; nothing is executed.

    Raises:
        UnusableInput: There is no such file, or it holds anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load has no common error type for damaged files: pickle, zip, runtime, key and attribute errors occur.
        reason = error.strerror if isinstance(error, OSError) else "it is damaged, or holds more than weights"
        raise UnusableInput(f"{path} cannot be read as a PyTorch checkpoint ({reason}).") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise UnusableInput(f"{path} holds no state dict.")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UnusableInput(f"{path} holds no state dict: its entry {str(name)[:200]} is no tensor.")
    return dict(content)


def load_weights(network: nn.Module, path: Path) -> None:
    """Weights from a file of ours (``weights.pt``) or of the original code base, by the names in it.

    Raises:
        InvalidValue: The file cannot be read, or its weights do not fit ``network``.
    """
    try:
        state = read_state(path)
        if state.keys() == network.state_dict().keys():
            network.load_state_dict(state)
        else:
            load_original(network, state)
    except UnusableInput as error:
        allowed = f"it must be a state dict for the candidate's network. {str(error).removesuffix('.')}"
        raise InvalidValue("final.checkpoint", path, allowed) from error
    except RuntimeError as error:
        allowed = "it must be a state dict for the candidate's network, its weights have other shapes"
        raise InvalidValue("final.checkpoint", path, allowed) from error
