"""The run's named generators; deterministic algorithms are switched on, and an operation that has none is named."""

import logging
import warnings
from collections.abc import Iterator

import pytest
import torch

from nas.run.randomness import Randomness, use_deterministic_algorithms

NAMES = ("training order", "validation order", "augmentation", "dropout", "relaxation")


def draws(generator: torch.Generator, count: int = 4) -> list[float]:
    return torch.rand(count, generator=generator).tolist()


def test_the_same_seed_gives_the_same_numbers_in_any_order_of_asking() -> None:
    first, second = Randomness(3), Randomness(3)
    drawn = {name: draws(first.on_cpu(name)) for name in NAMES}
    assert {name: draws(second.on_cpu(name)) for name in reversed(NAMES)} == drawn


def test_names_and_seeds_give_different_numbers() -> None:
    drawn = [tuple(draws(Randomness(seed).on_cpu(name))) for seed in (0, 1, 2**63 - 1) for name in NAMES]
    assert len(set(drawn)) == len(drawn)


def test_drawing_from_one_leaves_the_others() -> None:
    alone = Randomness(0)
    expected = draws(alone.on_cpu("dropout"))
    busy = Randomness(0)
    draws(busy.on_cpu("relaxation"), 1000)
    torch.rand(1000)
    assert draws(busy.on_cpu("dropout")) == expected


def test_a_name_is_one_generator() -> None:
    randomness = Randomness(0)
    assert randomness.on_cpu("dropout") is randomness.on_device("dropout")
    first = draws(randomness.on_cpu("dropout"))
    assert draws(randomness.on_cpu("dropout")) != first


def test_the_global_generator_follows_the_seed() -> None:
    drawn = []
    for seed in (0, 0, 1):
        Randomness(seed)
        drawn.append(tuple(torch.rand(4).tolist()))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize("asked_before", [NAMES, NAMES[:2], ()])
def test_a_restored_state_goes_on_where_it_was(asked_before: tuple[str, ...]) -> None:
    """Also for generators that the resumed run asks for only after it has restored them."""
    original = Randomness(5)
    for count, name in enumerate(NAMES, start=1):
        draws(original.on_cpu(name), count)
    torch.rand(7)
    state = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    expected = {name: draws(original.on_cpu(name)) for name in NAMES}
    expected_global = torch.rand(4).tolist()

    resumed = Randomness(5)
    for name in asked_before:
        draws(resumed.on_cpu(name), 3)
    torch.rand(2)
    resumed.load_state_dict(state)
    again = resumed.state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert torch.rand(4).tolist() == expected_global
    assert {name: draws(resumed.on_cpu(name)) for name in NAMES} == expected


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with warnings.catch_warnings():
        yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("as_before")
def test_what_cannot_be_deterministic_is_named_once_and_still_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nas")
    use_deterministic_algorithms()
    assert torch.are_deterministic_algorithms_enabled()
    x = torch.zeros(4)
    for _ in range(2):
        x.put_(torch.tensor([1]), torch.tensor([5.0]))
    assert x.tolist() == [0.0, 5.0, 0.0, 0.0]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("training.deterministic: PyTorch has no deterministic put_")


def warned() -> None:
    use_deterministic_algorithms()
    warnings.warn("something else", UserWarning, stacklevel=1)


@pytest.mark.usefixtures("as_before")
def test_other_warnings_are_shown_as_ever() -> None:
    with pytest.warns(UserWarning, match="something else"):
        warned()
