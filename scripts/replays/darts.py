"""quark0/darts: the search, stand-alone networks, and the parameter counts of published genotypes."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import UnusableInput
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import LearningRate, WeightDecay
from nas.interop.original_state import load_original
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.network import DartsNetwork
from nas.spaces.darts.space import Darts
from nas.spaces.darts.supernet import DartsSupernet
from replays.reference import (
    FORWARD,
    LARGEST_CLASSES,
    LARGEST_DEPTH,
    LARGEST_STEPS,
    LARGEST_WIDTH,
    ArrayFile,
    Comparison,
    Configuration,
    compared,
    compared_equal,
    counted,
    parameters_of,
)

FIRST_ORDER = 1e-9
SECOND_ORDER = 1e-6
WHOLE_STEPS = 1e-6
COUNTED_NETWORK = re.compile(r"(cifar10|cifar100|imagenet)_C(\d{1,4})_L(\d{1,3})")
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}


def replay_darts_evaluation(file: ArrayFile) -> Iterator[Comparison]:
    """The logits of the stand-alone network of DARTS cells in evaluation mode."""
    configuration = Configuration(file.json("config"))
    state, images = file.state("state/"), file.tensor("x", dimensions=4)
    genotype = Genotype.from_mapping(file.json("genotype"))
    channels = configuration.whole("C", LARGEST_WIDTH)
    imagenet = "stem0.0.weight" in state
    network = DartsNetwork(
        genotype,
        in_channels=images.shape[1],
        channels=channels,
        cells=configuration.whole("layers", LARGEST_DEPTH),
        classes=configuration.whole("classes", LARGEST_CLASSES),
        kind="imagenet" if imagenet else "cifar",
        auxiliary=any(name.startswith("auxiliary_head.") for name in state),
    )
    load_original(network.double(), state)
    with torch.no_grad():
        logits = network.eval()(images.double())
    yield compared("eval_logits", logits, file.tensor("eval_logits"), FORWARD)


class SearchReplay:
    """A DARTS search, step by step as the original does it."""

    def __init__(self, file: ArrayFile) -> None:
        self.file = file
        self.configuration = Configuration(file.json("config"))
        self.steps = self.configuration.whole("search_steps", LARGEST_STEPS)
        self.images, self.labels = file.tensor("x", dimensions=5).double(), file.tensor("y", dimensions=2)
        if self.labels.shape != self.images.shape[:2] or len(self.images) < 2 * self.steps:
            raise UnusableInput(f"its x and y hold no two batches for each of {self.steps} steps.")
        classes = self.configuration.whole("classes", LARGEST_CLASSES)
        if self.labels.dtype != torch.int64 or not 0 <= int(self.labels.min()) <= int(self.labels.max()) < classes:
            raise UnusableInput(f"its y holds a label that is none of {classes} classes.")
        self.space = Darts(
            channels=self.configuration.whole("C", LARGEST_WIDTH),
            cells=self.configuration.whole("layers", LARGEST_DEPTH),
            steps=self.configuration.whole("steps", LARGEST_DEPTH),
            multiplier=self.configuration.whole("multiplier", LARGEST_DEPTH),
            stem_multiplier=self.configuration.whole("stem_multiplier", LARGEST_DEPTH),
            # The original's order of summation: the difference of a badly conditioned search magnifies any other.
            implementation="plain",
            signature=Signature(self.images.shape[2:], classes),
        )

    def problem(self) -> BilevelProblem:
        """The search at its start."""
        number = self.configuration.number
        supernet = self.space.supernet(Softmax(Temperature())).double()
        initial = self.file.state("init/")
        initial |= {name: self.file.tensor(f"init/{name}", 2) for name in ("alphas_normal", "alphas_reduce")}
        load_original(supernet, initial)
        optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=number("lr"), momentum=number("momentum"))
        hyperparameters = HyperparameterSet(
            {
                "learning_rate": LearningRate(number("lr"), 0.0, 1.0, "linear", learn=False),
                "weight_decay": WeightDecay(number("weight_decay"), 0.0, 1.0, "linear", learn=False),
            }
        )
        return BilevelProblem(supernet, optimiser, hyperparameters, gradient_clip=number("grad_clip"))

    def batch(self, index: int) -> Batch:
        return Batch(self.images[index], self.labels[index])

    def compare(self) -> Iterator[Comparison]:
        """Every quantity in the file, the cheap ones first."""
        problem = self.problem()
        validation = self.batch(1)
        with torch.no_grad():
            loss, logits = problem.validation_loss(problem.weights(), validation)
        yield compared("first/val_logits", logits, self.file.tensor("first/val_logits"), FORWARD)
        yield compared("first/val_loss", loss, self.file.tensor("first/val_loss"), FORWARD)
        second_order = FiniteDifference(self.configuration.number("finite_difference_scale"))
        strategies: list[tuple[str, Hypergradient, float]] = [
            ("first", FirstOrder(), FIRST_ORDER),
            ("second", second_order, SECOND_ORDER),
        ]
        for order, strategy, tolerance in strategies:
            problem = self.problem()
            alpha = problem.supernet.alpha
            report = strategy.gradients(problem, self.batch(0), validation, list(alpha.values()))
            for name, gradient in zip(alpha, report.gradients, strict=True):
                entry = f"{order}/grad_alphas_{name}"
                yield compared(entry, gradient, self.file.tensor(entry), tolerance)
        for order, strategy, _ in strategies:
            yield from self._whole_steps(order, strategy)

    def _whole_steps(self, order: str, strategy: Hypergradient) -> Iterator[Comparison]:
        problem = self.problem()
        supernet = problem.supernet
        assert isinstance(supernet, DartsSupernet)
        first_beta, second_beta = self.configuration.shares("arch_betas", 2)
        architecture_optimiser = torch.optim.Adam(
            supernet.architecture_parameters(),
            lr=self.configuration.number("arch_lr"),
            betas=(first_beta, second_beta),
            weight_decay=self.configuration.number("arch_weight_decay"),
        )
        losses = []
        for step in range(self.steps):
            training, validation = self.batch(2 * step), self.batch(2 * step + 1)
            alphas = supernet.architecture_parameters()
            report = strategy.gradients(problem, training, validation, alphas)
            for alpha, gradient in zip(alphas, report.gradients, strict=True):
                alpha.grad = gradient
            architecture_optimiser.step()
            losses.append(problem.step(training).loss)
        found = {
            f"train_losses_{self.steps}_steps": torch.stack(losses),
            "alphas_normal_after": supernet.alpha["normal"],
            "alphas_reduce_after": supernet.alpha["reduce"],
            "stem_weight_after": supernet.get_parameter("stem.0.weight"),
            "classifier_weight_after": supernet.classifier.weight,
        }
        for name, tensor in found.items():
            yield compared(f"{order}/{name}", tensor, self.file.tensor(f"{order}/{name}"), WHOLE_STEPS)
        reference = Genotype.from_mapping(self.file.json(f"{order}/genotype_after"))
        try:
            ours = self.space.genotype(supernet.discretise())
        except FloatingPointError:  # an alpha that is not finite, already told as past its tolerance
            ours = None
        yield compared_equal(f"{order}/genotype_after", ours, reference)


def replay_search(file: ArrayFile) -> Iterator[Comparison]:
    """Forward pass, architecture gradients and whole search steps of DARTS, first and second order."""
    yield from SearchReplay(file).compare()


def replay_genotype_parameters(entries: Mapping[str, Any]) -> Iterator[Comparison]:
    """The parameter counts of published genotypes."""
    for name, entry in entries.items():
        if not isinstance(entry, Mapping):
            raise UnusableInput(f"its entry {name} is no object.")
        genotype = Genotype.from_mapping(entry.get("genotype"))
        for network, counts in entry.items():
            if network == "genotype":
                continue
            match = COUNTED_NETWORK.fullmatch(network)
            if match is None or not isinstance(counts, Mapping):
                raise UnusableInput(f"its entry {name}.{network} names no known network, cifar10_C36_L20 for example.")
            data, channels, cells = match[1], int(match[2]), int(match[3])
            if not (1 <= channels <= LARGEST_WIDTH and 1 <= cells <= LARGEST_DEPTH):
                raise UnusableInput(f"its entry {name}.{network} names a network of an impossible size.")
            for count, auxiliary in {"parameters_without_auxiliary": False, "parameters_total": True}.items():
                found = parameters_of(
                    lambda g=genotype, c=channels, n=cells, d=data, a=auxiliary: DartsNetwork(  # type: ignore[misc]
                        g,
                        in_channels=3,
                        channels=c,
                        cells=n,
                        classes=CLASSES[d],
                        kind="imagenet" if d == "imagenet" else "cifar",
                        auxiliary=a,
                    )
                )
                yield counted(f"{name}/{network}/{count}", found, counts.get(count))
