"""Running means."""

import torch

from nas.training.metrics import RunningMeans


def test_means_by_tag() -> None:
    means = RunningMeans()
    for value in (1.0, torch.tensor(2.0), torch.tensor(6.0, dtype=torch.float64)):
        means.add("loss", value)
    means.add("accuracy", 1)
    assert means.means() == {"loss": 3.0, "accuracy": 1.0}
    means.clear()
    assert means.means() == {}
    means.add("loss", 5.0)
    assert means.means() == {"loss": 5.0}


def test_sums_keep_double_precision_and_no_graph() -> None:
    means = RunningMeans()
    value = torch.tensor(1.0, requires_grad=True)
    means.add("loss", value * 2)
    assert means.means() == {"loss": 2.0}
    for _ in range(3):
        means.add("small", 0.1)
    assert means.means()["small"] == (0.1 + 0.1 + 0.1) / 3


def test_a_tensor_that_changes_later_is_not_followed() -> None:
    means, value = RunningMeans(), torch.tensor(1.0, dtype=torch.float64)
    means.add("loss", value)
    value.fill_(9.0)
    assert means.means() == {"loss": 1.0}


def test_an_epoch_cut_in_two_has_the_same_means() -> None:
    values = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, first, second = RunningMeans(), RunningMeans(), RunningMeans()
    for value in values:
        whole.add("loss", value)
    for value in values[:7]:
        first.add("loss", value)
    second.load_state_dict(first.state_dict())
    for value in values[7:]:
        second.add("loss", value)
    assert second.means() == whole.means()
