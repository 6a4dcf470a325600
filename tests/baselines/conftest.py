"""Every strategy, every kind of space."""

from collections.abc import Callable

import pytest
from joint_spaces import SPACES, STRATEGIES

from nas.baselines.strategy import EncodedStrategy
from nas.spaces.space import SearchSpace


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return SPACES[request.param]()


@pytest.fixture(params=STRATEGIES)
def make_strategy(request: pytest.FixtureRequest) -> Callable[..., EncodedStrategy]:
    return STRATEGIES[request.param]
