"""A found network as a short Python file of its own, which needs only torch and loads the weights."""

from collections.abc import Collection, Mapping, Sequence
from pprint import pformat
from types import SimpleNamespace
from typing import Any

from torch import nn

from nas.candidate import Architecture
from nas.errors import InvalidValue
from nas.interop.bundled_source import bundled_source
from nas.interop.places_source import PlacesSource, places_source
from nas.interop.prepare_source import Preparer, prepare_source, preparer_of
from nas.operations.embedding import ColumnEmbedding
from nas.operations.stochastic import StochasticLayer
from nas.signature import INPUTS, Signature
from nas.spaces.space import SearchSpace
from nas.tasks import PLAIN_CLASSIFICATION
from nas.tasks.task import Task

# The constructor's arguments that a chain's layers are made with, and those that may be left out at these values.
POOLING = ("kernel_size", "stride", "padding", "ceil_mode")
ARGUMENTS: Mapping[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys(
        (nn.Conv1d, nn.Conv2d),
        ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    ),
    nn.Linear: ("in_features", "out_features"),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), ("num_features", "eps", "momentum", "affine")),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d), POOLING),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d), (*POOLING, "count_include_pad")),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d), ("output_size",)),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), ("output_size",)),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.Dropout: ("p",),
    nn.Softplus: ("beta", "threshold"),
    nn.GELU: ("approximate",),
    nn.ELU: ("alpha",),
    ColumnEmbedding: ("sizes",),
    **dict.fromkeys((nn.ReLU, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.Identity), ()),
}
DEFAULTS: Mapping[str, Any] = {
    **{"dilation": (1, 1), "groups": 1, "eps": 1e-5, "momentum": 0.1, "affine": True, "ceil_mode": False},
    **{"count_include_pad": True, "start_dim": 1, "end_dim": -1, "beta": 1.0, "threshold": 20.0},
    **{"approximate": "none", "alpha": 1.0},
}
NOTHING: Mapping[str, Any] = {}
REQUIRED = 2  # arguments of a layer that stand without their names


def standalone_source(
    space: SearchSpace,
    architecture: Architecture,
    mean: Sequence[float],
    std: Sequence[float],
    title: str,
    class_names: Sequence[str] | None = None,
    preparation: Mapping[str, Any] = NOTHING,
    task: Task = PLAIN_CLASSIFICATION,
) -> str:
    """The text of the file.

    Args:
        space: The architecture's space.
        architecture: The architecture that the file builds.
        mean, std: The numbers per channel that normalise images from 0 to 1.
        title: The first line of the file's docstring.
        class_names: What the classes are called, in the order of the logits; None leaves the file without them.
        preparation: What the data's source has measured. That of a table gives the file ``prepare(rows)``, that of
            texts ``prepare(texts)``, that of pictures in files ``prepare(pictures)``.
        task: What the outputs mean. Standardised targets give the file their mean and deviation, targets of places a
            function that makes them of outputs, ``mask`` or ``field``.

    Raises:
        InvalidValue: The space's networks cannot be written down.
    """
    preparer, scale_of_targets = preparer_of(preparation), task.target_scale()
    places = places_source(task, class_names, space.signature)
    network = space.network(architecture)
    if isinstance(network, nn.Sequential):
        own = any(isinstance(layer, ColumnEmbedding) for layer in network)
        source = bundled_source(ColumnEmbedding) if own else "from torch import nn\n\n\n"
        imports, _, definitions = source.partition("\n\n\n")
        imports = _sorted_imports({*imports.splitlines(), "from collections import OrderedDict", "import torch"})
        made = _constructor(network, 1)
    else:
        arguments = space.network_arguments(architecture)
        used = _operations(arguments)
        source = bundled_source(type(network), {"CELL_OPERATIONS": used, "ACTIVATIONS": used, "FUNCTIONS": used})
        imports, _, definitions = source.partition("\n\n\n")
        imports = _sorted_imports([*imports.splitlines(), "import torch", "from types import SimpleNamespace"])
        made = _call(type(network).__name__, arguments)
    if preparer is not None:
        needed, preparing = prepare_source(preparer, preparation)
        imports = _sorted_imports({*imports.splitlines(), *needed} - {""})
        definitions = f"{definitions.strip()}{_GAP if definitions else ''}{preparing}"
    if places is not None:
        definitions = f"{definitions.strip()}{_GAP if definitions else ''}{places.definition}"
    quotes = '"""'
    names = "" if class_names is None else f"CLASSES = {pformat(tuple(class_names), width=110, compact=True)}\n"
    are_rows = preparer is not None and not space.signature.rank
    scale = "" if not mean or are_rows else f"MEAN, STD = {_numbers(mean)}, {_numbers(std)}\n"
    standardised = scale_of_targets is not None
    targets = f"TARGET_MEAN, TARGET_STD = {', '.join(map(_numbers, scale_of_targets))}\n" if scale_of_targets else ""
    return (
        f"{quotes}{_one_line(title)}\n\n"
        f"Depends on torch only. "
        f"{_inputs_and_outputs(network, space.signature, preparer, preparation, standardised, places)}: "
        f'network = load("weights.pt").\n{quotes}\n\n'
        f"{imports}\n"
        f"{scale}{targets}{names}{places.constants if places else ''}\n\n"
        f"{definitions.strip()}{_GAP if definitions else ''}"
        f"def network():\n"
        f'    """The network with fresh weights."""\n'
        f"    return {made}\n\n\n"
        f"def load(path):\n"
        f'    """The network with the weights in ``path``, ready to be used."""\n'
        f"    made = network()\n"
        f'    made.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))\n'
        f"    return made.eval()\n"
    )


_GAP = "\n\n\n"


def _inputs_and_outputs(
    network: nn.Module,
    signature: Signature,
    preparer: Preparer | None,
    preparation: Mapping[str, Any],
    standardised: bool,
    places_made: PlacesSource | None,
) -> str:
    """``Images (batch, 1, 28, 28) ..., to logits (batch, 10)``."""
    sides = ", ".join(map(str, signature.input_shape))
    running = signature.head == "sequence"
    kind = "tokens" if signature.is_tokens else INPUTS[signature.rank]
    longest = f", at most {sides} of them," if running and getattr(network, "dynamic", {}) else ""
    inputs = f"{kind.capitalize()} (batch, {'length' if running else sides}){longest}"
    places = "".join(f", {side}" for side in signature.input_shape[1:]) if signature.head == "dense" else ""
    places = ", length" if running else places
    normalised = "normalised with MEAN and STD per channel: (x - MEAN) / STD"
    prepared = f"from 0 to 1, {normalised}" if signature.rank == 2 else f"channels first, {normalised}"
    if preparation.get("kind") == "arrays" and signature.rank:
        last = ",\nthe coordinates of their places from -1 to 1 last" if preparation.get("coordinates") else ""
        prepared = f"as the arrays have them (uint8 divided by 255), channels first{last},\n{normalised}"
    prepared = "as in the training" if signature.is_tokens else prepared
    prepared = prepared if preparer is None else f"that prepare({preparer.argument}) makes"
    outputs = "standardised targets, (target - TARGET_MEAN) / TARGET_STD," if standardised else "logits"
    shape = f"batch{places}, {signature.outputs}" if running else f"batch, {signature.outputs}{places}"
    return f"{inputs} {prepared},\nto {outputs} ({shape}){places_made.words if places_made else ''}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("\\", "/").replace('"', "'")


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(repr(float(value)) for value in values) + ",)"


def _operations(arguments: Mapping[str, Any]) -> set[str]:
    """Every text among ``arguments``: the names of operations are among them."""
    found: set[str] = set()
    remaining = list(arguments.values())
    while remaining:
        value = remaining.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, SimpleNamespace):
            remaining += vars(value).values()
        elif isinstance(value, Mapping):
            remaining += value.values()
        elif isinstance(value, list | tuple):
            remaining += value
    return found


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    lines = "".join(f"        {key}={_literal(value)},\n" for key, value in arguments.items())
    return f"{name}(\n{lines}    )"


def _literal(value: Any, depth: int = 2) -> str:
    indent = "    " * depth
    if isinstance(value, SimpleNamespace):
        lines = "".join(f"{indent}    {key}={_literal(entry, depth + 1)},\n" for key, entry in vars(value).items())
        return f"SimpleNamespace(\n{lines}{indent})"
    if isinstance(value, Mapping):
        lines = "".join(f"{indent}    {key!r}: {_literal(entry, depth + 1)},\n" for key, entry in value.items())
        return f"{{\n{lines}{indent}}}"
    return repr(value)


def _sorted_imports(lines: Collection[str]) -> str:
    """The standard library's, then torch's."""
    own = sorted({line for line in lines if "torch" not in line})
    torch = sorted({line for line in lines if "torch" in line}, key=lambda line: (not line.startswith("import"), line))
    return "\n".join(own) + "\n\n" + "\n".join(torch) + "\n"


def _constructor(module: nn.Module, depth: int) -> str:
    """The expression that makes a layer of a chain, with the names that its weights have."""
    if type(module) is nn.Sequential:
        indent = "    " * (depth + 1)
        lines = "".join(
            f"{indent}{name}={_constructor(child, depth + 1)},\n" for name, child in module.named_children()
        )
        return f"nn.Sequential(OrderedDict(\n{lines}{'    ' * depth}))"
    if isinstance(module, StochasticLayer):
        rate = module.rate if isinstance(module.rate, float) else 0.0
        return f"nn.Dropout({rate!r})"
    if type(module) not in ARGUMENTS:
        known = ", ".join(sorted(kind.__name__ for kind in ARGUMENTS))
        raise InvalidValue("network", type(module).__name__, f"only these layers can be written down: {known}")
    written = []
    for position, name in enumerate(ARGUMENTS[type(module)]):
        value = getattr(module, name)
        if name not in DEFAULTS or DEFAULTS[name] != value:
            written.append(repr(value) if position < REQUIRED else f"{name}={value!r}")
    if getattr(module, "bias", True) is None and isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        written.append("bias=False")
    name = type(module).__name__ if isinstance(module, ColumnEmbedding) else f"nn.{type(module).__name__}"
    return f"{name}({', '.join(written)})"
