"""Averaged SGD: when it begins, torch's two habits, and its place in a retraining and in its checkpoints."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from nas.data.texts.text_stream import TextDataset
from nas.run.randomness import Randomness
from nas.signature import Signature
from nas.spaces.recurrent.genotype import RecurrentGenotype
from nas.spaces.recurrent.network import Cell, RecurrentNetwork
from nas.tasks import Language
from nas.training.averaging import AveragedWeights, NonMonotone
from nas.training.retraining import FinalSettings, Retraining
from nas.training.settings import TrainingSettings
from nas.training.sgd import set_step, take_step
from tests.killing import assert_same_bytes, killed
from tests.problems import retraining_of


def test_it_begins_when_a_loss_is_above_the_best_of_all_but_the_last_ones() -> None:
    watch = NonMonotone(2)
    said = [watch.has_stopped_falling(loss) for loss in (5.0, 4.0, 6.0, 4.5, 4.1, 4.2)]
    assert said == [False, False, False, False, True, True]


def test_rates_act_a_step_late_and_the_average_starts_anew_at_the_second_step() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    trained = AveragedWeights(torch.optim.SGD([weight], lr=0.0))
    trained.begin()
    mine = weight.detach().clone()
    average, acting = mine.clone(), None
    for number, rate in enumerate((0.5, 0.25, 1.0, 0.125), start=1):
        gradient = torch.tensor([float(number), 1.0], dtype=torch.float64)
        set_step(trained.optimiser, {"learning_rate": rate, "weight_decay": 0.1})
        take_step(trained.optimiser, [weight], [gradient.clone()], None)
        mine = mine - (acting or rate) * (gradient + 0.1 * mine)
        acting = rate
        average = average + (mine - average) / max(1, number - 1)
        assert torch.allclose(weight.detach(), mine, rtol=1e-12)
    with trained.in_place():
        assert torch.allclose(weight.detach(), average, rtol=1e-6)  # torch keeps the share in float32
    assert torch.allclose(weight.detach(), mine, rtol=1e-12)


def training_of(folder: Path) -> Retraining:
    torch.manual_seed(0)
    randomness = Randomness(0)
    task = Language()
    task.signature = Signature((4,), 6, "sequence", (6,))
    cell = Cell(RecurrentGenotype((("tanh", 0), ("relu", 1)), (1, 2)), 5)
    text = TextDataset(torch.randint(6, (180,), generator=torch.Generator().manual_seed(1)), 4, varied=True)
    held_out = TextDataset(torch.randint(6, (60,), generator=torch.Generator().manual_seed(2)), 4)
    return retraining_of(
        RecurrentNetwork(6, 5, cell),
        folder,
        {"learning_rate": 20.0, "weight_decay": 1e-6, "dropout_cell_h": 0.2, "temporal_penalty": 1e-3},
        task=task,
        randomness=randomness,
        stream=text.stream(6, (), (), randomness.on_cpu("training order")),
        final=FinalSettings(9, "learned", None, None, 0.4, "constant", 4),
        training=TrainingSettings(6, 0.0, 0.25, "constant", averaging="non_monotone"),
        validation=partial(held_out.evaluation_batches, 256, (), ()),
    )


@pytest.mark.parametrize("step", [pytest.param(10, marks=pytest.mark.slow), 50])
def test_killed_in_the_middle_of_a_text_a_retraining_goes_on_as_if_nothing_had_happened(
    step: int, tmp_path: Path
) -> None:
    whole = training_of(tmp_path / "whole")
    whole.train()
    assert whole.averaging is not None
    assert whole.averaging.averages  # random tokens: the validation loss does not fall for long
    broken = training_of(tmp_path / "killed")
    with killed(broken, "advance", lambda: broken.step == step):
        broken.train()
    resumed = training_of(tmp_path / "killed")
    resumed.train()
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole")
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
