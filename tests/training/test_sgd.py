"""One rule for every space: the same groups in a supernet and in what is found in it."""

import pytest
import torch
from torch import nn

from nas.hyperparameters.groups import GROUPS, group_of, rates
from nas.training.sgd import grouped, set_step


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_kernels_matrices_and_vectors():
    names = {name: group_of(weight) for name, weight in network().named_parameters()}
    assert names == {
        "0.weight": "convolution",
        "0.bias": "normalisation",
        "1.weight": "normalisation",
        "1.bias": "normalisation",
        "3.weight": "dense",
        "3.bias": "normalisation",
    }


def test_a_group_without_weights_is_left_out():
    assert [group["name"] for group in grouped(nn.Linear(2, 2).parameters())] == ["dense", "normalisation"]


def test_every_weight_is_in_one_group():
    one = network()
    members = [id(weight) for group in grouped(one.parameters()) for weight in group["params"]]
    assert sorted(members) == sorted(map(id, one.parameters()))


def test_a_group_steps_at_the_common_rate_times_its_factor():
    values = {"learning_rate": 0.1, "rate_factor_dense": 3.0, "momentum": 0.0, "weight_decay": 0.5}
    assert rates(values) == {"convolution": 0.1, "dense": pytest.approx(0.3), "normalisation": 0.1}
    one = network()
    optimiser = torch.optim.SGD(grouped(one.parameters()), lr=0.0, momentum=0.9)
    set_step(optimiser, values)
    before = {name: weight.detach().clone() for name, weight in one.named_parameters()}
    for weight in one.parameters():
        weight.grad = torch.ones_like(weight)
    optimiser.step()
    for name, weight in one.named_parameters():
        rate = 0.3 if name == "3.weight" else 0.1
        torch.testing.assert_close(weight, before[name] - rate * (1 + 0.5 * before[name]))
    assert {group["momentum"] for group in optimiser.param_groups} == {0.0}
    set_step(optimiser, {"learning_rate": 0.1})
    assert {group["momentum"] for group in optimiser.param_groups} == {0.0}  # its own, where none is given
    assert [group["lr"] for group in optimiser.param_groups] == [0.1] * len(GROUPS)
