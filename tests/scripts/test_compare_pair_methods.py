"""The comparison of what is done about the pair: its settings, and one small run of everything."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("compare_pair_methods")


def test_methods_have_settings_of_their_own(script: ModuleType) -> None:
    composed = importlib.import_module("cached_runs").composed
    settings = [str(composed((*script.MACRO, *overrides), 0)) for overrides in script.METHODS.values()]
    assert len(set(settings)) == len(script.METHODS)


def test_a_row_per_method(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = (*script.MACRO, "data.split={train:32,validation:64,test:64}", "search.epochs=1", "final.epochs=1")
    one_layer = ("space.layers=[{type:conv,filters:[2,3],kernel_size:3,stride:2}]", "space.activations=[relu]")
    monkeypatch.setattr(script, "MACRO", (*tiny, *one_layer, "search.warmup_epochs=0"))
    monkeypatch.setattr(script, "METHODS", {"tuned": script.METHODS["tuned"]})
    monkeypatch.setattr(script, "STARTS", script.STARTS[:1])
    monkeypatch.setattr(sys, "argv", ["", "--folder", str(tmp_path), "--jobs", "1", "--seeds", "3"])
    assert script.main() == 0
    printed = capsys.readouterr().out
    assert "from lr 0.0001, dropout 0.05, seeds [3]" in printed
    assert printed.endswith("compared: tuned\n")
