"""GDAS in NAS-Bench-201, of D-X-Y/AutoDL-Projects: one forward pass and its three gradients of alpha."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import UnusableInput
from nas.relaxations.gumbel_softmax import Gradient, GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.spaces.supernet import Implementation
from replays.packed_nasbench201 import batch_of, our_name, searched_nasbench201
from replays.reference import FORWARD, ArrayFile, Comparison, compared_absolutely, compared_equal

GRADIENTS: dict[Gradient, tuple[bool, ...]] = {"official": (True,), "dense": (False,), "chosen_only": (False, True)}
INITIAL, FINAL = 10.0, 0.1  # the temperature


class GivenNoise(GumbelSoftmax):
    """The relaxation with noise from a file."""

    given: Tensor

    def noise(self, alpha: Tensor) -> Tensor:
        return self.given


def replay_gdas(file: ArrayFile) -> Iterator[Comparison]:
    """Every sample in the plain and the fast supernet, by every gradient, sampled and not."""
    schedule = file.tensor("tau_schedule", 1)
    last = max(1, len(schedule) - 1)
    ours = [Temperature(INITIAL, FINAL, "linear").at(epoch / last) for epoch in range(len(schedule))]
    yield compared_absolutely("tau_schedule", torch.tensor(ours, dtype=torch.float64), schedule, FORWARD)
    samples = sorted({name.partition("/")[0] for name in file.arrays if name.startswith("sample")})
    for implementation in ("plain", "fast"):
        for gradient, ways in GRADIENTS.items():
            for sampled in ways:
                for sample in samples:
                    yield from _pass(file, sample, implementation, gradient, sampled)  # type: ignore[arg-type]


def _pass(
    file: ArrayFile, sample: str, implementation: Implementation, gradient: Gradient, sampled: bool
) -> Iterator[Comparison]:
    temperature = float(file.tensor(f"{sample}/tau", 0))
    relaxation = GivenNoise(Temperature(temperature, temperature), True, gradient, sampled)
    relaxation.given = file.tensor(f"{sample}/gumbel", 2)
    images, labels = batch_of(file)
    supernet = searched_nasbench201(file, images.shape[1:], relaxation, implementation=implementation)
    logits = supernet(images)
    loss = F.cross_entropy(logits, labels)
    parameters = dict(supernet.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    gradients = dict(zip(parameters, found, strict=True))
    way = f"{implementation}, {gradient}{', sampled' if sampled else ''}"

    def against(entry: str, ours: Tensor | None) -> Comparison:
        if ours is None:
            raise UnusableInput(f"it has the gradient {sample}/{entry}, and its network has none there.")
        return compared_absolutely(f"{sample}/{entry} ({way})", ours, file.tensor(f"{sample}/{entry}"), FORWARD)

    yield against("logits", logits)
    yield against("loss", loss)
    yield against(f"{gradient}/grad_alpha", gradients["alpha.cell"])
    weights = {name: gradient for name, gradient in gradients.items() if name != "alpha.cell" and gradient is not None}
    norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in weights.values()]))
    yield against("grad_weight_norm", norm)
    for entry in file.state(f"{sample}/grad_weight/"):
        yield against(f"grad_weight/{entry}", weights.get(our_name(entry)))
    relaxed = relaxation(parameters["alpha.cell"])
    yield compared_equal(
        f"{sample}/chosen ({way})", relaxed.argmax(-1).tolist(), file.tensor(f"{sample}/chosen").tolist()
    )
    if sampled:
        idle = {name for name, gradient in gradients.items() if gradient is None}
        theirs = {our_name(name) for name in file.json(f"{sample}/weights_without_gradient")}
        yield compared_equal(f"{sample}/weights_without_gradient ({way})", idle, theirs & parameters.keys())
    else:
        soft = GivenNoise(Temperature(temperature, temperature))
        soft.given = relaxation.given
        yield against("soft", soft(parameters["alpha.cell"]))
