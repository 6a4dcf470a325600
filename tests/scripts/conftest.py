"""Scripts as modules."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A script by its name, with the modules beside it importable as when it is run."""

    def imported(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(SCRIPTS))
        return importlib.import_module(name)

    return imported
