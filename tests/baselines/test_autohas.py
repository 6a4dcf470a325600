"""AutoHAS: temporary steps that leave nothing behind, basis values, the mode at the end, and going on after a kill."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

import train_search
from nas.baselines.autohas import AutoHAS, on_basis
from nas.candidate import Candidate, Hyperparameters
from nas.configuration import assemble
from nas.errors import InvalidValue

CONF = str(Path(__file__).resolve().parents[2] / "conf")
TINY = (
    "experiment=debug",
    "method=autohas",
    "method.basis=4",
    "data.split={train:64,validation:48,test:48}",
    "training.batch_size=16",
    "tracking.console=quiet",
    "tracking.tensorboard=false",
    "device=cpu",
)
STEPS = 6


def made(path: Path, *overrides: str) -> AutoHAS:
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("train_search", [*TINY, f"method.steps={STEPS}", *overrides])
    parts = train_search.built_parts(config, path)
    found: AutoHAS = assemble(config.method, "method", {**vars(parts), "parts": parts})
    return found


def weights(search: AutoHAS) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in search.evaluator.supernet.weight_parameters()]  # type: ignore[attr-defined]


def test_a_temporary_step_leaves_nothing_behind(tmp_path: Path) -> None:
    """Two candidates that differ in the learning rate alone are worth different things, to the same shared weights."""
    found = []
    for rate in (1e-5, 0.5):
        search = made(tmp_path)
        asked = search.strategy.ask()[0]
        values = Hyperparameters({**asked.hyperparameters, "learning_rate": rate})
        evaluations = search.evaluator.evaluate([Candidate(asked.architecture, values)] * 2)
        found.append((weights(search), [one.metrics["loss"] for one in evaluations]))
    assert all(torch.equal(one, other) for one, other in zip(found[0][0], found[1][0], strict=True))
    assert found[0][1] != found[1][1]
    assert not any(torch.equal(one, other) for one, other in zip(found[0][0], weights(made(tmp_path)), strict=True)), (
        "the shared weights take steps of their own"
    )


def test_hyperparameters_come_from_a_basis_from_end_to_end(tmp_path: Path) -> None:
    search = made(tmp_path)
    ranges = search.strategy.space.ranges
    rates: Any = ranges["learning_rate"]
    assert rates.options == pytest.approx([1e-5 * (0.5 / 1e-5) ** (one / 3) for one in range(4)])
    dropouts: Any = ranges["dropout"]
    assert dropouts.options == pytest.approx([0.0, 1 / 6, 1 / 3, 0.5])
    assert on_basis(search.strategy.space, 7).ranges == ranges  # what has options keeps them


def test_it_returns_the_mode_of_its_policy_and_pays_for_paths(tmp_path: Path) -> None:
    search = made(tmp_path)
    result = search.search()
    rows = search.strategy.policy.marginals()
    for choice, row in zip(search.strategy.space.choices, rows, strict=False):
        assert result.candidate.architecture[choice.name] == choice.options[row.index(max(row))]
    assert result.step == STEPS
    assert result.cost.samples == STEPS * (2 * 16 + 16) + 48
    evaluations = search.history.evaluations
    prices = [search.setup.multiply_adds(one.candidate.architecture) for one in evaluations]
    assert result.cost.multiply_adds == sum(price * (3 * 32 + 16) for price in prices[:-1]) + prices[-1] * 48
    assert result.summary.endswith("6 steps")


def test_it_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoHAS, "due", lambda _: True)
    expected = made(tmp_path / "whole").search()
    killed = made(tmp_path / "killed")
    advance = killed.advance

    def until_killed() -> None:
        if killed.step == 4:
            raise KeyboardInterrupt
        advance()

    monkeypatch.setattr(killed, "advance", until_killed)
    with pytest.raises(KeyboardInterrupt):
        killed.search()
    resumed = made(tmp_path / "killed")
    found = resumed.search()
    assert found.candidate == expected.candidate
    assert found.metrics == expected.metrics
    names = [(tmp_path / run / "metrics.csv").read_bytes() for run in ("whole", "killed")]
    assert names[0] == names[1]


def test_a_budget_ends_it_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    result = made(tmp_path / "poor", "budget.samples=200").search()
    assert result.cost.samples <= 200
    assert 0 < result.step < STEPS
    with pytest.raises(InvalidValue, match=r"basis=1 .* it must be at least 2"):
        made(tmp_path / "one", "method.basis=1")
    lstm = "method.strategy.policy={_target_:nas.baselines.LSTMController}"
    with pytest.raises(InvalidValue, match="take Factorised"):
        made(tmp_path / "lstm", lstm)
