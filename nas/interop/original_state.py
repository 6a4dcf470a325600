"""State dicts of the original networks, to and from this package's, bit for bit.

They are the search network and both evaluation networks of quark0/darts, and the stand-alone network of NAS-Bench-201
in AutoDL-Projects. The structures are the same and the names of their parts differ, so a name is translated part by
part, by the type of the module that holds the part.

Files are read as training scripts leave them: inside a checkpoint, with the prefixes of ``DataParallel`` and
``torch.compile``, beside NumPy's numbers, with the counts of a profiler. Only tensors and numbers are ever unpickled.
"""

import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.data.class_names import require_same_classes
from nas.data.mistaken_files import NOT_FETCHED, first_bytes, is_pointer
from nas.errors import InvalidValue, UnusableInput
from nas.operations.cell_operations import (
    DilatedSeparableConvolution,
    FactorisedReduction,
    MixedEdge,
    ReLUConvBN,
    SeparableConvolution,
)
from nas.operations.edge_structure import PartialEdge
from nas.run.checkpoint import MAGIC, write_atomically
from nas.spaces.darts import network as darts_network
from nas.spaces.darts import supernet as darts_supernet
from nas.spaces.nasbench201 import network as nasbench201_network

ORIGINAL_PARTS: dict[type[nn.Module], dict[str, str]] = {
    darts_supernet.SearchCell: {"edges": "_ops"},
    darts_supernet.FastSearchCell: {"edges": "_ops"},
    darts_network.Cell: {"edges": "_ops"},
    darts_network.ImageNetStem: {"quarter": "stem0", "eighth": "stem1"},
    MixedEdge: {"operations": "_ops"},
    PartialEdge: {"operations": "_ops"},
    FactorisedReduction: {"even": "conv_1", "odd": "conv_2", "normalisation": "bn"},
    nasbench201_network.Cell: {"edges": "layers"},
    nasbench201_network.ResidualBlock: {"first": "conv_a", "second": "conv_b", "shortcut": "downsample"},
    nasbench201_network.NasBench201Network: {"last_activation": "lastact"},
}
"""Per module type: the name of a part here to its name there; parts that are not listed have one name."""

WRAPPED = (ReLUConvBN, SeparableConvolution, DilatedSeparableConvolution)
"""Sequences of layers that the original holds in an attribute ``op``."""


WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")
"""Where a checkpoint keeps the network's state dict; the first of them that it has is taken."""

COUNTED = ("total_ops", "total_params")
"""What the profiler thop leaves in every module."""

OPTIONAL = ("num_batches_tracked", "alpha.")
"""The end or the beginning of what a state dict may lack: PyTorch before 0.4.1 did not count batches."""


PT_DARTS = re.compile(r"(^|\.)(preproc[01]|dag)\.")
"""A part of a network of khanrc/pt.darts, whose found cells have a batch norm behind every pooling."""


CLASS_NAMES = "class_names"  # the entry of a state dict's metadata
DEEPEST = 3  # checkpoints in checkpoints


class _PassedOver:
    """What stands in a checkpoint for a number or an array of NumPy, which is not used and never made."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since NumPy 2
_NUMPY = [f"{module}.{name}" for module in _MODULES for name in ("scalar", "_reconstruct")]
PASSED_OVER: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_PassedOver, name) for name in (*_NUMPY, "numpy.ndarray", "numpy.dtype")
]


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


def _translated(names: Mapping[str, str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` under our names; ``names`` has them by those of ``state``."""
    for name in state:
        if name not in names:
            lacking = next((one for one in names if one not in state and not _is_optional(names[one])), None)
            needed = "" if lacking is None else f"; it needs {lacking}, which is not in the state dict"
            raise UnusableInput(
                f"The state dict has an entry {str(name)[:200]} that this network has no place for{needed}."
            )
    return {names[name]: tensor for name, tensor in state.items()}


def _is_optional(name: str) -> bool:
    return name.endswith(OPTIONAL[0]) or name.startswith(OPTIONAL[1])


def load_original(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy the weights and statistics of a state dict into ``network``, converted to its dtype.

    The names are the original's or ours, whichever fit better, behind any prefixes that all have in common. Counts of
    batches and alphas may be missing. An auxiliary head that ``network`` does not have, and the counts of a profiler,
    are left out.

    Raises:
        UnusableInput: An entry is missing, has no place, or has another shape; the sentence names the first one.
    """
    if any(PT_DARTS.search(name) for name in state):
        raise UnusableInput(
            "The state dict is of khanrc/pt.darts, whose found cells have a batch norm behind every pooling. Those of "
            "quark0/darts, and these, have none: take its genotype, candidate='Genotype(...)', and train it anew."
        )
    own = network.state_dict()
    spellings = ({original_name(network, name): name for name in own}, {name: name for name in own})
    state = _unwrapped(state, {name.partition(".")[0] for names in spellings for name in names})
    if getattr(network, "auxiliary_head", None) is None:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("auxiliary_head.")}
    names = max(spellings, key=lambda one: len(one.keys() & state.keys()))
    translated = _translated(names, state)
    for theirs, name in names.items():
        if name in translated:
            given, needed = tuple(translated[name].shape), tuple(own[name].shape)
            if given != needed:
                raise UnusableInput(f"The state dict's {theirs} has shape {given}, this network needs {needed}.")
        elif not _is_optional(name):
            without = ": space.auxiliary=false leaves it out" if name.startswith("auxiliary_head.") else ""
            raise UnusableInput(f"The state dict lacks {theirs}, which this network needs{without}.")
    network.load_state_dict(own | translated)


def _unwrapped(state: Mapping[str, Tensor], parts: Collection[str]) -> dict[str, Tensor]:
    """``state`` without what wrappers of a network and profilers add; ``parts`` are the names that the network has."""
    names = {name: name for name in state if name.rpartition(".")[2] not in COUNTED}
    names = {name: ".".join(part for part in name.split(".") if part != "_orig_mod") for name in names}
    while True:
        first = {name.partition(".")[0] for name in names.values()}
        if len(first) != 1 or not first.isdisjoint(parts) or not all("." in name for name in names.values()):
            return {name: state[key] for key, name in names.items()}
        names = {key: name.partition(".")[2] for key, name in names.items()}


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The state dict in the file ``path`` with its metadata, lone or as an entry of a checkpoint; nothing is executed.

    Raises:
        UnusableInput: There is no such file, or it holds anything else.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise UnusableInput(f"{path} {what}: final.checkpoint must be a file of weights.")
    try:
        with torch.serialization.safe_globals(PASSED_OVER):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load has no common error type for damaged files: pickle, zip, runtime, key and attribute errors occur.
        raise UnusableInput(f"{path} cannot be read as a PyTorch checkpoint ({_reason(path, error)}).") from error
    for _ in range(DEEPEST):
        wrapped = _wrapped(content)
        if wrapped is None:
            break
        content = wrapped
    if not isinstance(content, Mapping) or not content:
        raise UnusableInput(f"{path} holds no state dict.")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UnusableInput(f"{path} holds no state dict: its entry {str(name)[:200]} is no tensor.")
    return content


def _reason(path: Path, error: Exception) -> str:
    """Why ``torch.load`` could not read ``path``."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = first_bytes(path)
    if first.startswith(MAGIC):
        return "it is a checkpoint of a run, for resume=<run folder>; the weights are in its weights.pt"
    if not first:
        return "it is empty"
    if is_pointer(first):
        return f"it {NOT_FETCHED}"
    if first[8:9] == b"{":
        return "it is safetensors' format: torch.save(safetensors.torch.load_file(...), 'weights.pt') converts it"
    pickled = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
    if pickled is not None:
        return f"it holds {pickled[1]}, and only tensors and numbers are read: save the network's state_dict()"
    return "it is damaged, or holds more than weights"


def _wrapped(content: object) -> Mapping[Any, Any] | None:
    """The state dict that the checkpoint ``content`` keeps in an entry; None where it is none, or has several."""
    if not isinstance(content, Mapping):
        return None
    inner = {key: entry for key, entry in content.items() if isinstance(entry, Mapping) and entry}
    for key in WRAPPERS:
        if key in inner:
            return inner[key]
    tensors = [entry for entry in inner.values() if all(isinstance(one, Tensor) for one in entry.values())]
    return tensors[0] if len(tensors) == 1 else None


def write_weights(network: nn.Module, path: Path, class_names: Sequence[str] | None) -> None:
    """The state dict of ``network`` as the file ``path``, with the names of its classes in the metadata.

    The metadata is where PyTorch keeps a module's version: ``torch.load`` with ``weights_only=True`` and
    ``load_state_dict`` take it like that of any other state dict.
    """
    state = network.state_dict()
    if class_names is not None:
        state._metadata[""][CLASS_NAMES] = list(class_names)  # type: ignore[attr-defined]
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(path, content.getvalue())


def class_names_of(state: Mapping[str, Tensor]) -> list[str] | None:
    """The names that :func:`write_weights` has written with the state dict ``state``; None where there are none."""
    metadata = getattr(state, "_metadata", None)
    of_network = metadata.get("") if isinstance(metadata, Mapping) else None
    names = of_network.get(CLASS_NAMES) if isinstance(of_network, Mapping) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def load_weights(network: nn.Module, path: Path, class_names: Sequence[str] | None = None) -> None:
    """Weights from a file of ours (``weights.pt``) or of another code base, by the names in it.

    Args:
        network: What they are copied into.
        path: The file.
        class_names: What the classes of the data are called.

    Raises:
        InvalidValue: The file cannot be read, its weights do not fit ``network``, or are for classes of other names.
    """
    try:
        state = read_state(path)
        require_same_classes("final.checkpoint", path, "the weights", class_names_of(state), class_names)
        load_original(network, state)
    except UnusableInput as error:
        allowed = f"it must be a state dict for the candidate's network. {str(error).removesuffix('.')}"
        raise InvalidValue("final.checkpoint", path, allowed) from error
