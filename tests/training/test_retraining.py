"""The retraining honours every hyperparameter that a candidate may carry."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.data.batches import Batch
from nas.operations.stochastic import LayerDropout
from nas.run.finiteness import NotFinite
from nas.run.randomness import Randomness
from nas.training.retraining import FinalSettings, Retraining
from nas.training.schedules import recorded_value
from nas.training.settings import TrainingSettings
from tests.problems import QUIET, retraining_of

COMMON = {"learning_rate": 0.1, "weight_decay": 0.01}
FINAL = FinalSettings(1, "learned", None, None, 0.4, "constant", 100)


FOUR_EPOCHS = FinalSettings(4, "learned", None, None, 0.4, "constant", 6)
PLAIN = TrainingSettings(16, 0.9, None, "constant")


def retraining(
    path: Path,
    hyperparameters: dict[str, float],
    final: FinalSettings = FINAL,
    training: TrainingSettings = PLAIN,
    recorded: dict[str, list[float]] | None = None,
) -> Retraining:
    randomness = Randomness(0)
    network = nn.Sequential()
    network.add_module("layer1", nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(144, 10))
    return retraining_of(
        network,
        path,
        hyperparameters,
        randomness=randomness,
        final=final,
        recorded=recorded,
        training=training,
        tracking=replace(QUIET, log_every=5),
    )


def weights(run: Retraining) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in run.network.named_parameters()}


def by_hand(run: Retraining, momentum: float, smoothing: float, dense: float) -> dict[str, torch.Tensor]:
    network = run.network.train()
    dense_weights = [network.get_parameter("classifier.weight")]
    others = [weight for weight in network.parameters() if weight is not dense_weights[0]]
    groups = [{"params": others}, {"params": dense_weights, "lr": 0.1 * dense}]
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=momentum, weight_decay=0.01)
    for _ in range(4):
        batch = run.stream.next()
        optimiser.zero_grad()
        F.cross_entropy(network(batch.inputs), batch.targets, label_smoothing=smoothing).backward()
        optimiser.step()
    return weights(run)


@pytest.mark.parametrize(
    ("extra", "momentum", "smoothing", "dense"),
    [
        ({}, 0.9, 0.0, 1.0),
        ({"momentum": 0.5}, 0.5, 0.0, 1.0),
        ({"label_smoothing": 0.2}, 0.9, 0.2, 1.0),
        ({"rate_factor_dense": 3.0, "momentum": 0.0}, 0.0, 0.0, 3.0),
    ],
)
def test_it_trains_with_them(extra, momentum, smoothing, dense, tmp_path):
    run = retraining(tmp_path, {**COMMON, **extra})
    run.train()
    expected = by_hand(retraining(tmp_path / "other", COMMON), momentum, smoothing, dense)
    for name, weight in weights(run).items():
        torch.testing.assert_close(weight, expected[name], msg=name)


def test_a_label_smoothing_of_the_configuration_comes_before_the_candidates(tmp_path):
    final = FinalSettings(1, "learned", None, 0.2, 0.4, "constant", 100)
    run = retraining(tmp_path, {**COMMON, "label_smoothing": 0.7}, final)
    run.train()
    expected = by_hand(retraining(tmp_path / "other", COMMON), 0.9, 0.2, 1.0)
    for name, weight in weights(run).items():
        torch.testing.assert_close(weight, expected[name], msg=name)


@pytest.mark.parametrize("extra", [{"cutout": 0.5}, {"mixing": 0.5}, {"dropout_layer1": 0.5}])
def test_noise_acts_and_comes_from_the_runs_own_generators(extra, tmp_path):
    plain = retraining(tmp_path / "plain", COMMON)
    plain.train()
    results = []
    for name in ("one", "other"):
        run = retraining(tmp_path / name, {**COMMON, **extra})
        before = torch.get_rng_state()
        run.train()
        assert torch.equal(torch.get_rng_state(), before)
        results.append(weights(run)["classifier.weight"])
    assert torch.equal(*results)
    assert not torch.equal(results[0], weights(plain)["classifier.weight"])


def test_a_plain_layer_gets_its_dropout_only_where_a_rate_asks_for_it(tmp_path):
    for rate, count in {0.0: 0, 0.3: 1}.items():
        run = retraining(tmp_path / str(rate), {**COMMON, "dropout_layer1": rate, "dropout_layer9": 0.5})
        found = [module for module in run.network.modules() if isinstance(module, LayerDropout)]
        assert [module.rate for module in found] == [rate] * count


def spoiled(run: Retraining, number: int, times: int) -> Retraining:
    """``run`` with a NaN among its images at the step that follows ``number`` steps, the first ``times`` times."""
    following = run.stream.next
    left = [times]

    def next_batch() -> Batch:
        batch = following()
        if run.step == number and left[0]:
            left[0] -= 1
            batch.inputs[0, 0, 0, 0] = torch.nan
        return batch

    run.stream.next = next_batch
    return run


def policy(name: str) -> TrainingSettings:
    return TrainingSettings(16, 0.9, None, "constant", on_non_finite=name)


@pytest.mark.parametrize("name", ["restart", "stop"])
def test_what_is_not_finite_ends_the_run_with_its_step_and_the_last_good_checkpoint(name, tmp_path):
    run = spoiled(retraining(tmp_path, COMMON, FOUR_EPOCHS, policy(name)), 13, times=1)
    with pytest.raises(
        NotFinite, match=r"^step 14: the training loss is nan; the last good checkpoint is of step 12; "
    ):
        run.train()


def test_a_rollback_heals_what_was_only_a_moment_and_leaves_no_step_twice(tmp_path):
    run = spoiled(retraining(tmp_path, COMMON, FOUR_EPOCHS, policy("rollback")), 13, times=1)
    run.train()
    with open(tmp_path / "metrics.csv", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["tag"] == "hyperparameters/learning_rate"]
    assert [(int(row["step"]), float(row["value"])) for row in found] == [(5, 0.1), (10, 0.1), (15, 0.025)]
    assert all(bool(weight.isfinite().all()) for weight in weights(run).values())


def test_a_rollback_does_not_go_on_for_ever(tmp_path):
    run = spoiled(retraining(tmp_path, COMMON, FOUR_EPOCHS, policy("rollback")), 13, times=100)
    with pytest.raises(NotFinite, match="after 5 rollbacks"):
        run.train()


def test_a_recorded_way_is_gone_again(tmp_path):
    recorded = {"learning_rate": [0.1, 0.02], "dropout_layer1": [0.4, 0.2], "momentum": [0.5, 0.9]}
    averages = {name: points[-1] for name, points in recorded.items()}
    run = retraining(tmp_path, {**COMMON, **averages}, recorded=recorded)
    seen = []
    step = run.optimiser.step

    def noting() -> None:
        dropout = next(module for module in run.network.modules() if isinstance(module, LayerDropout))
        seen.append((run.optimiser.param_groups[0]["lr"], dropout.rate, run.optimiser.param_groups[0]["momentum"]))
        step()

    run.optimiser.step = noting
    run.train()
    expected = [[recorded_value(points, place / 4) for points in recorded.values()] for place in range(4)]
    assert [list(one) for one in seen] == [pytest.approx(one) for one in expected]
    assert seen[0] == pytest.approx((0.1, 0.4, 0.5))


def test_a_compiled_training_is_the_same_and_goes_on_uncompiled(tmp_path, nothing_compiled):
    hyperparameters = {**COMMON, "dropout_layer1": 0.2}
    eager = retraining(tmp_path / "eager", hyperparameters, FOUR_EPOCHS)
    eager.train()
    compiled = retraining(tmp_path / "compiled", hyperparameters, FOUR_EPOCHS, replace(PLAIN, compile=True))
    compiled.fit(until=10)
    assert nothing_compiled.graphs > 0
    again = retraining(tmp_path / "again", hyperparameters, FOUR_EPOCHS)
    again.load_state_dict(compiled.state_dict())
    again.fit(until=16)
    for name, weight in weights(eager).items():
        torch.testing.assert_close(weights(again)[name], weight, atol=1e-4, rtol=1e-4)
