"""What a search step of the recurrent cell costs: plain, fast, and as the original computes it.

A part of ``benchmark_step.py``. All ways take the same steps: the same weights, tokens and masks, with the penalty on
changing states and dropout as DARTS has them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from replays.recurrent_original import OriginalOrder

from nas.bilevel.architecture_optimiser import Adam
from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.optimiser import BilevelOptimiser
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import LayerDropoutRate, LearningRate, MemoryPenalty, WeightDecay
from nas.operations.stochastic import set_noise_generator
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.recurrent.space import Recurrent
from nas.tasks import Language
from nas.training.sgd import grouped

VOCABULARY = 104  # characters of the embedded text
NODES = 8
SIZES = {"width 32, batch 16, 20 tokens": (32, 16, 20), "width 64, batch 20, 35 tokens": (64, 20, 35)}
KINDS = {"first order": FirstOrder(), "exact": Exact()}
WAYS = ("original", "plain", "fast")
LEAST = 3.0  # times as fast as the plain one, and as the original
DROPOUTS = {"embedding": 0.2, "cell_x": 0.75, "cell_h": 0.25, "output": 0.75}


@dataclass(frozen=True)
class RecurrentCase:
    """A kind of step, computed in one way."""

    width: int
    batch: int
    length: int
    kind: str
    way: str
    device: str = "cpu"
    warm_up: int = 1

    def step(self) -> Callable[[], None]:
        """A function that takes one step; its supernet lives as long as it does."""
        torch.manual_seed(0)
        signature = Signature((self.length,), VOCABULARY, "sequence", (VOCABULARY,))
        which = "fast" if self.way == "fast" else "plain"
        space = Recurrent(self.width, nodes=NODES, implementation=which, signature=signature)
        supernet = space.supernet(Softmax(Temperature()))
        if self.way == "original":
            cell = OriginalOrder(self.width, NODES, space.concat)
            cell.load_state_dict(supernet.network.cell.state_dict())
            supernet.network.cell = cell
        noise = torch.Generator().manual_seed(1)
        set_noise_generator(supernet.train(), noise)
        entries = {
            "learning_rate": LearningRate(20.0, 0.1, 50.0, "log", False),
            "weight_decay": WeightDecay(5e-7, 0.0, 1.0, "linear", False),
            "temporal_penalty": MemoryPenalty(1e-3, 0.0, 1.0, "linear", False),
        }
        for place, rate in DROPOUTS.items():
            entries[f"dropout_{place}"] = LayerDropoutRate(rate, 0.0, 0.9, "logit", False, layer=place)
        task = Language()
        task.signature = signature
        optimiser = torch.optim.SGD(grouped(supernet.weight_parameters()), lr=0.0, foreach=True)
        problem = BilevelProblem(supernet, optimiser, HyperparameterSet(entries), 0.25, (noise,), task=task)
        rule = Adam(3e-3, (0.9, 0.999), 1e-3)
        bilevel = BilevelOptimiser(problem, KINDS[self.kind], None, rule)
        requests = bilevel.requests(architecture=True, hyperparameters=False)
        training, validation = (self._batch(seed) for seed in (0, 1))

        def step() -> None:
            bilevel.step(training, validation, requests)

        return step

    def _batch(self, seed: int) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(VOCABULARY, (self.batch, self.length + 1), generator=generator)
        return Batch(tokens[:, :-1], tokens[:, 1:], torch.zeros(self.batch, self.width))


def recurrent_cases() -> Mapping[str, Mapping[str, RecurrentCase]]:
    """By the title of a table its cases, whose names are the kind and the way."""
    return {
        f"recurrent cell, {size}": {
            f"{kind}, {way}": RecurrentCase(*numbers, kind, way) for kind in KINDS for way in WAYS
        }
        for size, numbers in SIZES.items()
    }
