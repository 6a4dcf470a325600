"""What a search has come to: averages of its last steps, and what has settled."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from nas.candidate import Architecture
from nas.hyperparameters.collection import HyperparameterSet
from nas.search.callback import SeenStep
from nas.search.convergence import Trajectory

ONE, OTHER = Architecture("macro", {"layer1.filters": "8"}), Architecture("macro", {"layer1.filters": "16"})


@pytest.fixture
def hyperparameters(make_entries) -> HyperparameterSet:
    return HyperparameterSet(make_entries(("learning_rate", "dropout")))


def seen_step(hyperparameters: HyperparameterSet) -> SeenStep:
    """A step of which only the hyperparameters are known."""
    nothing: Any = None
    return SeenStep(0, 0, nothing, nothing, None, hyperparameters.numbers(), {})


def record(trajectory: Trajectory, hyperparameters: HyperparameterSet, *epochs) -> None:
    """Epochs as (architecture, learning rates, dropout rates), one rate per step."""
    for number, (architecture, rates, dropouts) in enumerate(epochs):
        for rate, dropout in zip(rates, dropouts, strict=True):
            hyperparameters.set_value("learning_rate", rate)
            hyperparameters.set_value("dropout", dropout)
            trajectory.on_step(seen_step(hyperparameters))
        trajectory.on_epoch(len(rates), number, architecture)


def settled(trajectory: Trajectory, epochs: int, ratio: float) -> dict[str, bool]:
    against = trajectory.settled(epochs, ratio)
    assert list(against) == ["architecture", *trajectory._hyperparameters.learned()]
    return {name: reason is None for name, reason in against.items()}


def test_the_candidate_gets_the_averages_of_the_last_half(hyperparameters):
    trajectory = Trajectory(hyperparameters)
    record(trajectory, hyperparameters, (ONE, [0.9, 1e-3, 1e-1], [0.8, 0.2, 0.4]), (ONE, [1e-2], [0.6]))
    average = trajectory.tail_average()
    assert average["learning_rate"] == pytest.approx((1e-1 * 1e-2) ** 0.5)
    assert average["dropout"] == pytest.approx(0.5)
    assert average["weight_decay"] == 0.03  # not learned


def test_the_caps_hold_for_the_average_and_not_for_the_values(make_entries):
    entries = make_entries(("learning_rate", "dropout"))
    entries["dropout"] = type(entries["dropout"])(0.3, 0.0, 0.9, "logit", True, entries["dropout"].update, cap=0.5)
    hyperparameters = HyperparameterSet(entries)
    trajectory = Trajectory(hyperparameters)
    record(trajectory, hyperparameters, (ONE, [0.1, 0.1], [0.7, 0.8]))
    assert trajectory.tail_average()["dropout"] == 0.5
    record(trajectory, hyperparameters, (ONE, [0.1, 0.1], [0.8, 0.1]))
    assert trajectory.tail_average()["dropout"] == pytest.approx(0.45)


def test_before_the_first_step_and_after_a_restart_the_average_is_the_present_value(hyperparameters):
    trajectory = Trajectory(hyperparameters)
    assert dict(trajectory.tail_average()) == pytest.approx(
        {"learning_rate": 0.05, "weight_decay": 0.03, "dropout": 0.3}
    )
    record(trajectory, hyperparameters, (ONE, [0.5], [0.2]))
    hyperparameters.set_value("learning_rate", 0.01)
    trajectory.forget()
    assert trajectory.tail_average()["learning_rate"] == pytest.approx(0.01)


def test_with_nothing_learned_the_average_is_what_was_given(make_entries):
    hyperparameters = HyperparameterSet(make_entries(()))
    trajectory = Trajectory(hyperparameters)
    trajectory.on_step(seen_step(hyperparameters))
    trajectory.on_epoch(1, 0, ONE)
    assert dict(trajectory.tail_average()) == {"learning_rate": 0.05, "weight_decay": 0.03, "dropout": 0.3}
    assert settled(trajectory, 1, 1.5) == {"architecture": True}


SETTLED = {"architecture": True, "learning_rate": True, "dropout": True}


@pytest.mark.parametrize(
    ("epochs", "differing"),
    [
        ([(ONE, 0.10, 0.3), (ONE, 0.12, 0.35), (ONE, 0.14, 0.38)], {}),
        ([(OTHER, 0.9, 0.8), (ONE, 0.10, 0.3), (ONE, 0.12, 0.35), (ONE, 0.14, 0.38)], {}),
        ([(ONE, 0.10, 0.3), (OTHER, 0.12, 0.35), (ONE, 0.14, 0.38)], {"architecture": False}),
        ([(OTHER, 0.10, 0.3), (ONE, 0.12, 0.35), (ONE, 0.14, 0.38)], {"architecture": False}),
        ([(ONE, 0.10, 0.3), (ONE, 0.12, 0.35), (ONE, 0.16, 0.38)], {"learning_rate": False}),
        ([(ONE, 0.16, 0.3), (ONE, 0.12, 0.35), (ONE, 0.10, 0.38)], {"learning_rate": False}),
        ([(ONE, 0.10, 0.3), (ONE, 0.12, 0.40), (ONE, 0.14, 0.35)], {"dropout": False}),
    ],
)
def test_settled_is_what_has_not_moved_over_the_last_epochs(epochs, differing, hyperparameters):
    trajectory = Trajectory(hyperparameters)
    record(trajectory, hyperparameters, *((one, [rate] * 2, [dropout] * 2) for one, rate, dropout in epochs))
    assert settled(trajectory, 3, 1.5) == SETTLED | differing


def test_what_is_handed_on_is_the_mean_of_the_last_half(hyperparameters):
    """Of a rate that grows by 1.4 an epoch: 1.4 ** 2 between the means of three epochs, less between tail averages."""
    trajectory = Trajectory(hyperparameters)
    record(trajectory, hyperparameters, *((ONE, [0.01 * 1.4**epoch] * 4, [0.3] * 4) for epoch in range(6)))
    tails = [0.01 * 1.4 ** ((2 * 2 + 3 * 4 + 4 * 4 + 0) / 10), 0.01 * 1.4**4]  # after epochs 5 (of ten steps) and 6
    assert settled(trajectory, 3, 1.9)["learning_rate"] is False
    assert trajectory.settled(2, tails[1] / tails[0] * 1.001, handed_on=True)["learning_rate"] is None
    assert trajectory.settled(2, tails[1] / tails[0] * 0.999, handed_on=True)["learning_rate"] is not None


def test_an_epochs_mean_counts_and_not_its_single_steps(hyperparameters):
    trajectory = Trajectory(hyperparameters)
    restless = (ONE, [0.02, 0.5], [0.1, 0.7])
    record(trajectory, hyperparameters, restless, restless, restless)
    assert settled(trajectory, 3, 1.5) == SETTLED


def test_nothing_is_settled_before_there_are_enough_epochs(hyperparameters):
    trajectory = Trajectory(hyperparameters)
    assert settled(trajectory, 3, 1.5) == dict.fromkeys(SETTLED, False)
    record(trajectory, hyperparameters, (ONE, [0.1] * 3, [0.3] * 3), (ONE, [0.1] * 3, [0.3] * 3))
    assert settled(trajectory, 3, 1.5) == dict.fromkeys(SETTLED, False)
    assert settled(trajectory, 2, 1.5) == SETTLED


def test_a_restart_starts_the_record_anew(hyperparameters):
    trajectory = Trajectory(hyperparameters)
    record(trajectory, hyperparameters, *[(ONE, [0.1] * 3, [0.3] * 3)] * 3)
    trajectory.forget()
    assert settled(trajectory, 2, 1.5) == dict.fromkeys(SETTLED, False)


def test_an_epoch_whose_last_step_was_a_restart_is_no_epoch(hyperparameters):
    trajectory = Trajectory(hyperparameters)
    record(trajectory, hyperparameters, (ONE, [0.1] * 3, [0.3] * 3))
    trajectory.forget()
    trajectory.on_epoch(3, 0, ONE)
    record(trajectory, hyperparameters, (OTHER, [0.1] * 3, [0.3] * 3))
    assert settled(trajectory, 2, 1.5) == dict.fromkeys(SETTLED, False)
    record(trajectory, hyperparameters, (OTHER, [0.1] * 3, [0.3] * 3))
    assert settled(trajectory, 2, 1.5) == SETTLED


def test_standing_still_tells_nothing_of_what_could_hardly_have_moved(hyperparameters):
    trajectory = Trajectory(hyperparameters)
    record(trajectory, hyperparameters, *[(ONE, [0.1] * 4, [0.3] * 4)] * 3)
    assert settled(trajectory, 3, 1.5) == SETTLED
    assert trajectory.settled(3, 1.5, every=12) == {
        "architecture": None,
        "learning_rate": "too early to tell, 1 move",
        "dropout": "too early to tell, 1 move",
    }


def test_the_state_goes_on_where_it_was(hyperparameters, tmp_path):
    epochs = [(ONE, [0.1, 0.2], [0.3, 0.4]), (ONE, [0.3], [0.5]), (OTHER, [0.11, 0.12], [0.31, 0.32])]
    whole, first = Trajectory(hyperparameters), Trajectory(hyperparameters)
    record(whole, hyperparameters, *epochs)
    record(first, hyperparameters, *epochs[:2])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = Trajectory(hyperparameters)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert settled(second, 2, 1.5) == settled(first, 2, 1.5)
    record(second, hyperparameters, *epochs[2:])
    assert second.tail_average() == whole.tail_average()
    assert [settled(second, n, 1.5) for n in (2, 3)] == [settled(whole, n, 1.5) for n in (2, 3)]


def test_the_record_for_the_candidate_has_few_points_each_an_average_within_the_caps(make_entries):
    entries = make_entries(("learning_rate", "dropout"))
    entries["dropout"] = replace(entries["dropout"], cap=0.5)
    hyperparameters = HyperparameterSet(entries)
    trajectory = Trajectory(hyperparameters)
    assert trajectory.recorded() == {}
    record(trajectory, hyperparameters, (ONE, [0.1, 0.4, 0.01, 0.01, 0.9], [0.2, 0.4, 0.7, 0.7, 0.3]))
    found = trajectory.recorded(points=2)
    assert found["learning_rate"] == pytest.approx([0.2, (0.01 * 0.01 * 0.9) ** (1 / 3)], rel=1e-5)
    assert found["dropout"] == pytest.approx([0.3, 0.5])
    assert trajectory.recorded(points=9)["dropout"] == pytest.approx([0.2, 0.4, 0.5, 0.5, 0.3])


def test_the_table_has_every_step(hyperparameters):
    trajectory = Trajectory(hyperparameters)
    record(trajectory, hyperparameters, (ONE, [0.1, 0.2], [0.3, 0.4]))
    lines = trajectory.table(last_step=12).splitlines()
    assert lines[0] == "step,dropout,learning_rate"
    assert [line.split(",")[0] for line in lines[1:]] == ["11", "12"]
    assert [float(value) for value in lines[2].split(",")[1:]] == pytest.approx([0.4, 0.2])


def test_the_state_of_an_empty_record_can_be_loaded(hyperparameters):
    trajectory = Trajectory(hyperparameters)
    trajectory.load_state_dict(Trajectory(hyperparameters).state_dict())
    record(trajectory, hyperparameters, (ONE, [0.1], [0.3]))
    assert trajectory.tail_average()["learning_rate"] == pytest.approx(0.1)
