"""automl/RobustDARTS: the Hessian of the validation loss in alpha, its largest eigenvalue, and the rule that stops."""

import math
from collections.abc import Iterator
from functools import partial
from statistics import fmean

import torch

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
from replays.reference import FORWARD, ArrayFile, Comparison, Configuration, compared_absolutely, compared_equal

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
        yield compared_absolutely(f"{implementation}/loss", report.validation_loss, file.tensor("loss"), FORWARD)
        for name, gradient in zip(supernet.alpha, report.gradients, strict=True):
            entry = f"grad_alphas_{name}"
            yield compared_absolutely(f"{implementation}/{entry}", gradient, file.tensor(entry), FORWARD)
        product, size = alpha_hessian(problem, batch)
        unit = torch.eye(size, dtype=torch.float64)
        hessian = torch.stack([product(row) for row in unit])
        start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        # As many products as rows: fewer are exact to ten digits on some Hessians only.
        largest = torch.tensor(largest_eigenvalue(hessian.matmul, start, size)[0], dtype=torch.float64)
        found = {
            "hessian": hessian + decay * unit,
            "eigenvalues": torch.linalg.eigvalsh(hessian + decay * unit),
            "largest_eigenvalue": largest + decay,
            "largest_eigenvalue_without_decay": largest,
        }
        for entry, ours in found.items():
            yield compared_absolutely(f"{implementation}/{entry}", ours, file.tensor(entry), FORWARD)
    for name in sorted({entry.split("/")[1] for entry in file.arrays if entry.startswith(RULE)}):
        yield from followed(file, f"{RULE}{name}/")


def followed(file: ArrayFile, prefix: str) -> Iterator[Comparison]:
    """The averages and the decision of the rule on recorded eigenvalues."""
    told = partial(Configuration(file.json("config")).told, "rule")
    every, epochs = (int(file.tensor(f"{prefix}{name}")) for name in ("every_epochs", "total_epochs"))
    if every < 1 or epochs < 1:
        raise UnusableInput(f"its rule {prefix} measures every {every} of {epochs} epochs.")
    window, delta, first = int(told("window", 5)), int(told("delta", 4)), int(told("first epoch", 10))
    rule, stopped, rows = Eigenvalue(every, window, delta, told("factor", 1.3), first), [], []
    half = rule.window // 2
    for place, value in enumerate(file.tensor(f"{prefix}eigenvalues", 1).tolist()):
        epoch = place * every
        back_to = rule.measured(epoch, value)
        average = rule.averages[-1] if rule.averages else math.nan
        counts_for = epoch - every * half if rule.averages else -1
        if epoch == epochs - 1 and rule.averages:
            # The original does not judge the last epoch, and averages once more for the epoch itself.
            average, back_to = fmean(rule.values[-1 - half :]), None
        rows.append([epoch, counts_for, average])
        if back_to is not None:
            stopped = [epoch, back_to]
            break
    recorded = file.arrays.get(f"{prefix}stopped_at_and_back_to")
    yield compared_equal(f"{prefix}stops", stopped, [] if recorded is None else recorded.tolist())
    log, ours = file.tensor(f"{prefix}log_epoch_averageepoch_average", 2), torch.tensor(rows, dtype=torch.float64)
    before = slice(None, -1) if rows[-1][0] == epochs - 1 else slice(None)
    yield compared_equal(f"{prefix}epochs", ours[before, :2].tolist(), log[before, :2].tolist())
    yield compared_equal(f"{prefix}averaged", ours[:, 2].isnan().tolist(), log[:, 2].isnan().tolist())
    if len(ours) == len(log):
        yield compared_absolutely(f"{prefix}averages", ours[:, 2].nan_to_num(0), log[:, 2].nan_to_num(0), FORWARD)
