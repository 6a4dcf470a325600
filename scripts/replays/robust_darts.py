"""automl/RobustDARTS: the Hessian of the validation loss in alpha, its largest eigenvalue, and the rule that stops."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nas.bilevel.curvature import alpha_hessian, largest_eigenvalue
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import UnusableInput
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import LearningRate, WeightDecay
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.search.stopping_rules import Eigenvalue
from replays.packed_darts import searched_darts
from replays.reference import FORWARD, ArrayFile, Comparison, Configuration, compared, compared_equal

BY_LANCZOS = 1e-8  # of 12 products
RULE = "rule/"


def replay_robust_darts(file: ArrayFile) -> Iterator[Comparison]:
    """Loss, gradient and Hessian in both implementations, eigenvalues, and where the rule stops."""
    decay = Configuration(file.json("config")).number("arch_weight_decay")
    batch = Batch(file.tensor("x", dimensions=4).double(), file.tensor("y", dimensions=1))
    no_step = HyperparameterSet(
        {
            "learning_rate": LearningRate(0.1, 0.0, 1.0, "linear", learn=False),
            "weight_decay": WeightDecay(0.1, 0.0, 1.0, "linear", learn=False),
        }
    )
    for implementation in ("plain", "fast"):
        supernet = searched_darts(file, batch.inputs.shape[1:], Softmax(Temperature()), implementation=implementation)
        problem = BilevelProblem(
            supernet,
            torch.optim.SGD(supernet.weight_parameters(), lr=0.0),
            no_step,
        )
        report = FirstOrder().gradients(problem, batch, batch, supernet.architecture_parameters())
        yield compared(f"{implementation}/loss", report.validation_loss, file.tensor("loss"), FORWARD)
        for name, gradient in zip(supernet.alpha, report.gradients, strict=True):
            entry = f"grad_alphas_{name}"
            yield compared(f"{implementation}/{entry}", gradient, file.tensor(entry), FORWARD)
        product, size = alpha_hessian(problem, batch)
        unit = torch.eye(size, dtype=torch.float64)
        hessian = torch.stack([product(row) for row in unit])
        yield compared(f"{implementation}/hessian", hessian + decay * unit, file.tensor("hessian"), FORWARD)
        start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for times, products, tolerance in ((product, 12, BY_LANCZOS), (hessian.matmul, size, FORWARD)):
            value = torch.tensor(largest_eigenvalue(times, start, products)[0], dtype=torch.float64)
            reference = file.tensor("largest_eigenvalue_without_decay")
            yield compared(f"{implementation}/{products}_products", value, reference, tolerance)
            with_decay = value + decay
            yield compared(
                f"{implementation}/{products}_products_decay", with_decay, file.tensor("largest_eigenvalue"), tolerance
            )
    for name in sorted({entry.split("/")[1] for entry in file.arrays if entry.startswith(RULE)}):
        yield from _followed(file, f"{RULE}{name}/")


def _followed(file: ArrayFile, prefix: str) -> Iterator[Comparison]:
    """The averages and the decision of the rule on recorded eigenvalues."""
    every, epochs = (int(file.tensor(f"{prefix}{name}")) for name in ("every_epochs", "total_epochs"))
    if every < 1 or epochs < 1:
        raise UnusableInput(f"its rule {prefix} measures every {every} of {epochs} epochs.")
    rule, stopped, averages = Eigenvalue(every=every), [], []
    for place, value in enumerate(file.tensor(f"{prefix}eigenvalues", 1).tolist()):
        epoch = place * every
        back_to = rule.measured(epoch, value)
        averages.append(rule.averages[-1] if rule.averages else float("nan"))
        if back_to is not None:
            stopped = [epoch, back_to]
            break
    recorded = file.arrays.get(f"{prefix}stopped_at_and_back_to")
    yield compared_equal(f"{prefix}stops", stopped, [] if recorded is None else recorded.tolist())
    log = file.tensor(f"{prefix}log_epoch_averageepoch_average", 2)[:, 2]
    yield compared(f"{prefix}averages", *_known(torch.tensor(averages, dtype=torch.float64), log), FORWARD)


def _known(ours: Tensor, theirs: Tensor) -> tuple[Any, Any]:
    """Both without the first rows, for which there is no average yet."""
    if ours.shape != theirs.shape or not torch.equal(ours.isnan(), theirs.isnan()):
        raise UnusableInput(f"its rule averages {int((~theirs.isnan()).sum())} times, ours {len(ours)} times.")
    return ours[~ours.isnan()], theirs[~theirs.isnan()]
