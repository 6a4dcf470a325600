"""Meituan-AutoML/DARTS-: the auxiliary skip on every edge, and how its weight decays."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from nas.errors import UnusableInput
from nas.interop.original_state import original_name
from nas.operations.edge_structure import DECAYS
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.spaces.darts.choices import CELLS
from replays.packed_darts import searched_darts
from replays.reference import FORWARD, ArrayFile, Comparison, compared_absolutely

THEIRS, OURS = "auxiliary_op", "_ops.{}"  # the auxiliary skip is the last of an edge's operations here


def replay_darts_minus(file: ArrayFile) -> Iterator[Comparison]:
    """The decays; logits, loss and gradients at several weights of the auxiliary skip, in both implementations."""
    linear = file.tensor("schedule/linear", 1)
    for name, decay in DECAYS.items():
        if not file.has(f"schedule/{name}"):
            continue
        reference = file.tensor(f"schedule/{name}", 1)
        if name != "linear" and torch.equal(reference, linear):
            continue  # the original's scheduler is made once per process: asked for another decay it gives the first
        shares = [decay(epoch / len(reference)) for epoch in range(len(reference))]
        yield compared_absolutely(f"schedule/{name}", torch.tensor(shares, dtype=torch.float64), reference, FORWARD)
    for implementation in ("plain", "fast"):
        yield from _passes(file, implementation)


def _passes(file: ArrayFile, implementation: str) -> Iterator[Comparison]:
    images, labels = file.tensor("x", dimensions=4).double(), file.tensor("y", dimensions=1)
    operations = file.json("config").get("operations")
    last = OURS.format(len(operations) if isinstance(operations, list) else 0)
    supernet = searched_darts(
        file,
        images.shape[1:],
        Softmax(Temperature()),
        renamed=lambda name: name.replace(THEIRS, last),
        auxiliary_skip=True,
        implementation=implementation,
    )
    assert supernet.auxiliary_skip is not None
    parameters = dict(supernet.named_parameters())
    cases = [name.removesuffix("/beta") for name in file.arrays if name.endswith("/beta")]
    if not cases:
        raise UnusableInput("it holds no case.")
    for case in cases:
        supernet.auxiliary_skip.fill_(float(file.tensor(f"{case}/beta", 0)))
        logits = supernet(images)
        loss = F.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
        named = {original_name(supernet, name): one for name, one in zip(parameters, gradients, strict=True)}
        found = {"logits": logits, "loss": loss}
        found |= {f"grad_alphas_{kind}": named[f"alphas_{kind}"] for kind in CELLS}
        for theirs in file.state(f"{case}/grad_weight/"):
            name = theirs.replace(THEIRS, last)
            if name not in named:
                raise UnusableInput(f"it has the gradient of {theirs}, which its network has not.")
            found[f"grad_weight/{theirs}"] = named[name]
        for entry, ours in found.items():
            yield compared_absolutely(f"{implementation}/{case}/{entry}", ours, file.tensor(f"{case}/{entry}"), FORWARD)
