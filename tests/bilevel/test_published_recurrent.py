"""The unrolled gradient of DARTS' recurrent search as published, and the exact one, against numbers of the original."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.bilevel.exact import Exact
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.published_recurrent import PublishedRecurrent
from nas.data.batches import Batch
from nas.errors import InvalidValue
from nas.hyperparameters.kinds import LearningRate, WeightDecay
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces import Recurrent
from nas.tasks import Language
from tests.problems import problem_over


class Reference:
    """The search network of the original with its weights, and its first batches."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "recurrent" / "rnn_search_n8_t6.npz", allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.config: dict[str, Any] = json.loads(str(self.arrays["config"]))

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def problem(self, rate: float, clip: float | None) -> BilevelProblem:
        config = self.config
        signature = Signature((config["bptt"],), config["ntoken"], "sequence", (config["ntoken"],))
        space = Recurrent(config["nhid"], nodes=config["steps"], implementation="fast", signature=signature)
        supernet = space.supernet(Softmax(Temperature())).double()
        names = {"network.embedding": "encoder.weight", "network.cell.first": "rnns.0._W0"}
        names |= {f"network.cell.nodes.{node}": f"rnns.0._Ws.{node}" for node in range(config["steps"])}
        names |= {"network.output_bias": "decoder.bias", "alpha.recurrent": "alphas"}
        with torch.no_grad():
            for ours, theirs in names.items():
                supernet.get_parameter(ours).copy_(self.tensor(f"init/{theirs}"))
        entries = {
            "learning_rate": LearningRate(rate, 1e-5, 50.0, "log", False),
            "weight_decay": WeightDecay(config["wdecay"], 0.0, 1.0, "linear", False),
        }
        task = Language()
        task.signature = signature
        return problem_over(supernet, entries, clip, momentum=0.0, task=task)

    def batch(self, part: str) -> Batch:
        tokens, length = self.tensor(f"{part}_tokens"), self.config["bptt"]
        return Batch(tokens[:length].t(), tokens[1 : length + 1].t(), self.tensor("hidden_random")[0])

    def gradient(self, hypergradient: Hypergradient, rate: float, clip: float) -> Tensor:
        problem = self.problem(rate, clip)
        alphas = problem.supernet.architecture_parameters()
        return hypergradient.gradients(problem, self.batch("train"), self.batch("valid"), alphas).gradients[0]


@pytest.fixture(scope="module")
def reference(reference_folder: Path) -> Reference:
    return Reference(reference_folder)


def close(ours: Tensor, theirs: Tensor, relative: float) -> bool:
    return float((ours - theirs).abs().max()) < relative * float(theirs.abs().max())


@pytest.mark.parametrize(("entry", "rate", "clip"), [("", 20.0, 0.25), ("", 0.5, 0.25), ("_clip1000", 0.5, 1000.0)])
def test_the_published_gradient_has_its_three_errors(
    entry: str, rate: float, clip: float, reference: Reference
) -> None:
    published = PublishedRecurrent(reference.config["finite_difference"])
    theirs = reference.tensor(f"second_published{entry}/lr{rate:g}/grad_alphas")
    ours = reference.gradient(published, rate, clip)
    assert close(ours, theirs, 1e-9)
    exact = f"exact{entry}/lr{rate:g}/grad_alphas"
    assert not close(ours, reference.tensor(exact), 1e-3)


@pytest.mark.parametrize("rate", [20.0, 0.5])
def test_the_exact_gradient_goes_through_the_clip(rate: float, reference: Reference) -> None:
    theirs = reference.tensor(f"exact_through_clip/lr{rate:g}/grad_alphas")
    assert close(reference.gradient(Exact(), rate, 0.25), theirs, 1e-10)


def test_without_a_clip_it_is_refused(reference: Reference) -> None:
    problem = reference.problem(0.5, None)
    with pytest.raises(InvalidValue, match="take exact"):
        PublishedRecurrent().gradients(
            problem, reference.batch("train"), reference.batch("valid"), problem.supernet.architecture_parameters()
        )
