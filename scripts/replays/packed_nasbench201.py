"""The NAS-Bench-201 supernet whose packed weights and sizes are in a file of a one-shot method."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nas.errors import UnusableInput
from nas.relaxations.relaxation import Relaxation
from nas.signature import Signature
from nas.spaces.nasbench201.choices import EDGES, OPERATIONS
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.nasbench201.supernet import NasBench201Supernet
from replays.reference import LARGEST_CLASSES, LARGEST_DEPTH, LARGEST_WIDTH, ArrayFile, Configuration

PARTS = {"conv_a.op": "first", "conv_b.op": "second", "downsample": "shortcut", "lastact": "last_activation"}


def searched_nasbench201(
    file: ArrayFile, shape: Sequence[int], relaxation: Relaxation, **settings: Any
) -> NasBench201Supernet:
    """The supernet of ``file`` in float64, for images of ``shape``; ``settings`` are further ones of the space."""
    values = file.json("config")
    configuration = Configuration(values)
    edges = [f"{node}<-{source}" for node, source in EDGES]
    if values.get("operations") != list(OPERATIONS) or values.get("edges") != edges:
        raise UnusableInput("its configuration has not the operations and the edges of NAS-Bench-201 in their order.")
    space = NasBench201(
        channels=configuration.whole("channels", LARGEST_WIDTH),
        cells_per_stage=configuration.whole("cells_per_stage", LARGEST_DEPTH),
        signature=Signature(shape, configuration.whole("classes", LARGEST_CLASSES)),
        **settings,
    )
    supernet = space.supernet(relaxation).double()
    own = supernet.state_dict()
    weights = {our_name(name): weight for name, weight in file.packed_state().items()}
    weights["alpha.cell"] = file.tensor("alpha", 2)
    for name, weight in weights.items():
        if name not in own or own[name].shape != weight.shape:
            raise UnusableInput(f"its state has an entry {name} of shape {list(weight.shape)} that has no place here.")
    lacking = [name for name, _ in supernet.named_parameters() if name not in weights]
    if lacking:
        raise UnusableInput(f"its state lacks {lacking[0]}.")
    supernet.load_state_dict(own | weights)  # the files leave the running averages of a fresh network out
    return supernet.train()


def our_name(name: str) -> str:
    """What the original's weight ``name`` is called here; edges are ``2<-1`` there, and operations their numbers."""
    edge = re.search(r"edges\.(\d)<-(\d)\.(\d)\.op\.", name)
    if edge is not None and (int(edge[1]), int(edge[2])) in EDGES:
        row = EDGES.index((int(edge[1]), int(edge[2])))
        name = name.replace(edge[0], f"edges.{row}.operations.{edge[3]}.")
    for theirs, ours in PARTS.items():
        name = name.replace(f"{theirs}.", f"{ours}.")
    return name


def batch_of(file: ArrayFile) -> tuple[Tensor, Tensor]:
    """The images (batch, channels, H, W) in float64 and their labels.

    Raises:
        UnusableInput: They are none.
    """
    images, labels = file.tensor("x", dimensions=4).double(), file.tensor("y", dimensions=1)
    if len(images) != len(labels) or labels.dtype != torch.int64:
        raise UnusableInput("its x and y hold no batch.")
    return images, labels
