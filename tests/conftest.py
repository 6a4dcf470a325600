"""Where the tests find numbers that were made elsewhere."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def nothing_compiled() -> Iterator[None]:
    """Begins with nothing compiled, and with a backend that builds no code: graphs are what is tested."""
    import torch
    from torch._dynamo.utils import counters

    from nas.device import compilation

    torch._dynamo.reset()
    compilation._compiled.cache_clear()
    counters.clear()
    torch.compiler.set_default_backend("aot_eager")
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch.compiler.set_default_backend("inductor")
    torch._dynamo.reset()
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
