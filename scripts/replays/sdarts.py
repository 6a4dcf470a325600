"""xiangning-chen/SmoothDARTS: perturbed operation weights, and the weight step there, in both implementations."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from nas.bilevel.perturbation import AdversarialPerturbation, Loss, RandomPerturbation, Weights, projected
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import UnusableInput
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import LearningRate, WeightDecay
from nas.interop.original_state import original_name
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.spaces.darts.choices import CELLS
from replays.packed_darts import searched_darts
from replays.reference import FORWARD, ArrayFile, Comparison, Configuration, compared_absolutely

LARGEST_PGD_STEPS = 1000


class ReplayedNoise(RandomPerturbation):
    """The perturbation with noise that was drawn elsewhere."""

    def __init__(self, radius: float, drawn: Weights) -> None:
        super().__init__(radius, radius)
        self.drawn = drawn

    def noise(self, weights: Mapping[str, Tensor], radius: float) -> Weights:
        return self.drawn


class ReplayedAttack(AdversarialPerturbation):
    """The same for the adversarial one; it notes the losses before and after, and the weights that it found."""

    def __init__(self, radius: float, steps: int, drawn: Weights | None) -> None:
        super().__init__(radius, radius, steps, random_start=drawn is not None)
        self.drawn = drawn

    def noise(self, weights: Mapping[str, Tensor], radius: float) -> Weights:
        assert self.drawn is not None
        return self.drawn

    def __call__(self, weights: Mapping[str, Tensor], loss: Loss, progress: float) -> Weights:
        self.found = super().__call__(weights, loss, progress)
        with torch.no_grad():
            self.losses = {"before": loss(weights), "after": loss(self.found)}
        return self.found


def replay_sdarts_random(file: ArrayFile) -> Iterator[Comparison]:
    """The schedule of the radius, the projection alone, and the perturbed weights at several radii."""
    schedule = file.tensor("epsilon_schedule", 1)
    growing = RandomPerturbation(0.03, Configuration(file.json("config")).told("epsilon", "epsilon", 0.3))
    radii = [growing.radius(epoch / len(schedule)) for epoch in range(len(schedule))]
    yield compared_absolutely("epsilon_schedule", torch.tensor(radii, dtype=torch.float64), schedule, FORWARD)
    yield compared_absolutely(
        "clip/output", projected(file.tensor("clip/input", 2)), file.tensor("clip/output"), FORWARD
    )
    relaxed = {cell: Softmax(Temperature())(file.tensor(f"alphas_{cell}", 2)) for cell in CELLS}
    for cell, weights in relaxed.items():
        yield compared_absolutely(f"softmax_{cell}", weights, file.tensor(f"softmax_{cell}"), FORWARD)
    for case in _cases(file):
        noise = {cell: file.tensor(f"{case}/noise_{cell}", 2) for cell in CELLS}
        found = ReplayedNoise(float(file.tensor(f"{case}/epsilon", 0)), noise)(relaxed, _no_loss, 0.0)
        for cell, weights in found.items():
            yield compared_absolutely(
                f"{case}/perturbed_{cell}", weights, file.tensor(f"{case}/perturbed_{cell}"), FORWARD
            )


def replay_sdarts_adversarial(file: ArrayFile) -> Iterator[Comparison]:
    """The attack, the losses around it, and the weight step at the weights that it finds."""
    for implementation in ("plain", "fast"):
        for case in _cases(file):
            for entry, ours in _attacked(file, case, implementation).items():
                yield compared_absolutely(
                    f"{implementation}/{case}/{entry}", ours, file.tensor(f"{case}/{entry}"), FORWARD
                )


def _attacked(file: ArrayFile, case: str, implementation: str) -> dict[str, Tensor]:
    """What the file has for ``case``, computed here."""
    configuration = file.json("config")
    steps = Configuration(configuration.get("pgd")).whole("steps", LARGEST_PGD_STEPS)
    random_start = file.has(*(f"{case}/noise_{cell}" for cell in CELLS))
    drawn = {cell: file.tensor(f"{case}/noise_{cell}", 2) for cell in CELLS} if random_start else None
    attack = ReplayedAttack(float(file.tensor(f"{case}/epsilon", 0)), steps, drawn)
    batch = Batch(file.tensor("x", dimensions=4).double(), file.tensor("y", dimensions=1))

    def problem() -> BilevelProblem:
        supernet = searched_darts(file, batch.inputs.shape[1:], Softmax(Temperature()), implementation=implementation)
        optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.1)
        held = {
            "learning_rate": LearningRate(0.1, 0.0, 1.0, "linear", learn=False),
            "weight_decay": WeightDecay(0.0, 0.0, 1.0, "linear", learn=False),
        }
        return BilevelProblem(supernet, optimiser, HyperparameterSet(held), perturbation=attack)

    stepped = problem()
    plain, unrolled = problem().step(batch), stepped.step(batch, keep_graph=True)
    gradients = {original_name(stepped.supernet, name): one for name, one in unrolled.gradients.items()}
    wanted = file.state(f"{case}/grad_weight/")
    if not wanted.keys() <= gradients.keys():
        raise UnusableInput(f"it has gradients of weights that its network has not: {sorted(wanted)}.")
    return {
        "loss_before_eval_mode": attack.losses["before"],
        "loss_after_eval_mode": attack.losses["after"],
        **{f"perturbed_{cell}": attack.found[cell] for cell in CELLS},
        "train_logits": plain.logits,
        "train_loss": plain.loss,
        **{f"grad_weight/{name}": gradients[name] for name in wanted},
    }


def _cases(file: ArrayFile) -> list[str]:
    cases = [name.removesuffix("/epsilon") for name in file.arrays if name.endswith("/epsilon")]
    if not cases:
        raise UnusableInput("it holds no case.")
    return cases


def _no_loss(weights: Mapping[str, Tensor]) -> Tensor:
    raise AssertionError("noise needs no loss")
