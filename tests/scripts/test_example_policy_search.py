"""The example of reinforcement learning: the pole obeys its equations, and a few episodes run to the last line."""

import re
from collections.abc import Callable
from types import ModuleType

import pytest
import torch


@pytest.fixture
def script(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("example_policy_search")


def test_a_pole_that_is_pushed_away_from_falls(script: ModuleType) -> None:
    poles = script.CartPole(2, torch.Generator().manual_seed(0))
    poles.states = torch.zeros(2, 4)
    assert poles.push(torch.tensor([0, 1])).all()
    # The first step from rest: force / (mass of both), the pole turns the other way (Barto et al., 1983).
    torch.testing.assert_close(
        poles.states[1], torch.tensor([0.0, 0.02 * 9.756, 0.0, -0.02 * 14.634]), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(poles.states[0], -poles.states[1])
    steps = 1
    while poles.push(torch.tensor([0, 1])).all():
        steps += 1
    assert 8 <= steps <= 10  # as in other programs


def test_a_few_episodes_run_to_the_last_line(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(rounds=1, episodes=2, seed=0) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("found: layer1.units=")
    assert re.fullmatch(r"example_policy_search: return \d+ before and \d+ after 1 rounds, at most 200", printed[-1])
