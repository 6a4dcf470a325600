"""DrNAS in NAS-Bench-201, of xiangning-chen/DrNAS: Dirichlet samples with their gradients, anchors, and pruning."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.bilevel.regulariser import DirichletKL
from nas.relaxations.dirichlet import Dirichlet, concentration
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.search.shrinking import strongest
from replays.packed_nasbench201 import batch_of, searched_nasbench201
from replays.reference import FORWARD, ArrayFile, Comparison, compared_absolutely, compared_equal


class GivenSample(Dirichlet):
    """The relaxation with a sample from a file."""

    given: Tensor

    def draw(self, concentration: Tensor) -> Tensor:
        return self.given


def replay_drnas(file: ArrayFile) -> Iterator[Comparison]:
    """The concentration, every sample in the plain and the fast supernet, the anchors, and what pruning leaves."""
    alpha = file.tensor("alpha", 2).requires_grad_()

    def against(entry: str, ours: Tensor, way: str = "") -> Comparison:
        return compared_absolutely(f"{entry}{way}", ours, file.tensor(entry), FORWARD)

    yield against("concentration", concentration(alpha))
    anchor = DirichletKL(*[float(file.tensor("kl/scale", 0))] * 2)
    divergence = anchor({"cell": alpha}, Dirichlet(), 0.0)
    yield against("kl/value", divergence)
    yield against("kl/grad_alpha", torch.autograd.grad(divergence, alpha)[0])
    yield against("l2/grad_alpha", float(file.tensor("l2/scale", 0)) * alpha)
    images, labels = batch_of(file)
    samples = sorted({name.partition("/")[0] for name in file.arrays if name.startswith("sample")})
    for sample in samples:
        relaxation = GivenSample()
        relaxation.given = file.tensor(f"{sample}/weights", 2)
        upstream = (relaxation(alpha) * file.tensor(f"{sample}/upstream", 2)).sum()
        yield against(f"{sample}/upstream_grad_alpha", torch.autograd.grad(upstream, alpha)[0])
        for implementation in ("plain", "fast"):
            way = f" ({implementation})"
            supernet = searched_nasbench201(file, images.shape[1:], relaxation, implementation=implementation)
            logits = supernet(images)
            loss = F.cross_entropy(logits, labels)
            own = supernet.alpha["cell"]
            with_kl = loss + anchor(dict(supernet.alpha.items()), relaxation, 0.0)
            yield against(f"{sample}/logits", logits, way)
            yield against(f"{sample}/cross_entropy", loss, way)
            yield against(f"{sample}/grad_alpha", torch.autograd.grad(loss, own, retain_graph=True)[0], way)
            yield against(f"{sample}/loss_with_kl", with_kl, way)
            yield against(f"{sample}/grad_alpha_with_kl", torch.autograd.grad(with_kl, own)[0], way)
    for stage, before, kept in pruned_stages(file):
        yield from _pruned(file, stage, images.shape[1:], before, kept)


def pruned_stages(file: ArrayFile) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Of every pruning its name, the alpha before it, and what it keeps: nothing that an earlier one took away."""
    names = {name.partition("/")[0] for name in file.arrays if name.startswith("prune")}
    there: Tensor | None = None
    for stage in sorted(names, key=lambda name: (len(name), name)):
        before = file.tensor(f"{stage}/alpha_before", 2)
        if there is None or before.shape != there.shape or before[~there].any():  # it begins with another alpha
            there = torch.ones_like(before) > 0
        there = strongest(before, there, int(file.tensor(f"{stage}/keep", 0)))
        yield stage, before, there


def _pruned(file: ArrayFile, stage: str, shape: Sequence[int], before: Tensor, kept: Tensor) -> Iterator[Comparison]:
    yield compared_equal(f"{stage}/mask", kept.tolist(), file.arrays.get(f"{stage}/mask", np.zeros(())).tolist())
    after = before.masked_fill(~kept, 0.0)
    sample = GivenSample()
    sample.given = file.tensor(f"{stage}/unmasked_sample", 2)
    found = {"alpha_after": after}
    for entry, relaxation in {"weights": sample, "softmax_weights": Softmax(Temperature())}.items():
        supernet = searched_nasbench201(file, shape, relaxation)
        supernet.alpha["cell"].data.copy_(after)
        supernet.keep("cell", kept)
        found[entry] = supernet.operation_weights()["cell"]
    for entry, ours in found.items():
        yield compared_absolutely(f"{stage}/{entry}", ours, file.tensor(f"{stage}/{entry}"), FORWARD)
