"""A kept result is found again only where nothing that it was computed with has changed."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.parametrize("changed", ["nas/search/one.py", "conf/space/macro_series.yaml"])
def test_a_changed_source_or_space_is_another_run(
    changed: str, script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = script("cached_runs")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    for name in ("nas/search/one.py", "conf/space/macro_series.yaml"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("before")
    parts = ("search", runs.SPACES)
    before = runs.sources.__wrapped__(parts)
    assert runs.sources.__wrapped__(parts) == before
    (tmp_path / changed).write_text("after")
    assert runs.sources.__wrapped__(parts) != before
