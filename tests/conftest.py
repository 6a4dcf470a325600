"""Where the tests find numbers that were made elsewhere."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

# Tensors are small here: threads that wait for each other cost more than they bring, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch; inherited by subprocesses

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The small reference files that come with the repository."""
    return Path(__file__).resolve().parent / "fixtures"


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """The large reference files beside the repository, or where ``NAS_REFERENCE`` says."""
    folder = Path(os.environ.get("NAS_REFERENCE", REPOSITORY.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"there is no folder of reference numbers at {folder} (NAS_REFERENCE names another)")
    return folder


class CountingBackend:
    """A backend of ``torch.compile`` that builds no code: graphs run as they were captured.

    Attributes:
        graphs: How many were captured. Only whether there were any is the same with every version of PyTorch.
    """

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: "torch.fx.GraphModule", inputs: "Sequence[torch.Tensor]") -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingBackend]:
    """Nothing is compiled at the start; what ``torch.compile`` then captures goes to the backend that is given."""
    import torch

    from nas.device import compilation

    backend = CountingBackend()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.compiler.reset()
    compilation._compiled.cache_clear()
    yield backend
    torch.compiler.reset()
    compilation._compiled.cache_clear()


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Any]:
    """See :func:`tests.problems.problem_for`."""
    from tests.problems import problem_for

    return problem_for


@pytest.fixture(scope="session")
def make_supernet() -> Callable[..., Any]:
    from tests.problems import supernet_for

    return supernet_for


@pytest.fixture(scope="session")
def make_entries() -> Callable[..., Any]:
    from tests.problems import entries

    return entries


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Any]:
    from tests.problems import batch_for

    return batch_for
