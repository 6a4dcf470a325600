"""Deterministic algorithms are switched on, and what has none is named once."""

import warnings
from collections.abc import Iterator

import pytest
import torch

from nas.run.randomness import use_deterministic_algorithms


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with warnings.catch_warnings():
        yield
    torch.use_deterministic_algorithms(False)


def test_what_cannot_be_deterministic_is_named_once_and_still_runs() -> None:
    said: list[str] = []
    use_deterministic_algorithms(said.append)
    assert torch.are_deterministic_algorithms_enabled()
    x = torch.zeros(4)
    for _ in range(2):
        x.put_(torch.tensor([1]), torch.tensor([5.0]))
    assert x.tolist() == [0.0, 5.0, 0.0, 0.0]
    assert len(said) == 1
    assert said[0].startswith("training.deterministic: PyTorch has no deterministic put_")


def warned() -> None:
    use_deterministic_algorithms()
    warnings.warn("something else", UserWarning, stacklevel=1)


def test_other_warnings_are_shown_as_ever() -> None:
    with pytest.warns(UserWarning, match="something else"):
        warned()
