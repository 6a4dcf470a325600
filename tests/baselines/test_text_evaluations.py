"""A black-box search over a running text: killed between evaluations or within one, it goes on to the same bytes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.baselines.evolution import AgingEvolution
from nas.baselines.hyperband import Hyperband
from nas.baselines.search import BlackBoxSearch
from nas.candidate import Hyperparameters, Range
from nas.data.texts.text import Text, TextSplit
from nas.evaluation.budget import Budget
from nas.evaluation.objective import Fixed
from nas.evaluation.scratch import TrainedFromScratch
from nas.evaluation.training_setup import TrainingSetup
from nas.run.folder import RunFolder
from nas.run.randomness import Randomness
from nas.run.tracking import TrackingSettings
from nas.spaces import Recurrent
from nas.tasks import Auto
from nas.training.retraining import FinalSettings, Retraining
from nas.training.settings import TrainingSettings
from tests.killing import Killed

EPOCHS, STEPS = 2, 3  # of an evaluation


@pytest.fixture
def setup(tmp_path: Path) -> TrainingSetup:
    """Two steps an epoch over 130 characters in four rows, a memory carried between them."""
    (tmp_path / "book.txt").write_text("abcabdabcabe" * 15, encoding="utf-8")
    split = TextSplit(0.2, 0.1)
    source = Text(file=str(tmp_path / "book.txt"), level="character", length=8, varied_lengths=True, split=split)
    task, splits = Auto().fitted(source.load())
    ranges = {"learning_rate": Range(1e-2, 1.0, "log")}
    return TrainingSetup(
        space=Recurrent(4, 4, nodes=2, signature=task.signature, ranges=ranges),
        task=task,
        train=splits.train,
        validation=splits.validation,
        mean=splits.mean,
        std=splits.std,
        augmentation=None,  # type: ignore[arg-type]
        training=TrainingSettings(4, 0.0, 0.25, "constant"),
        final=FinalSettings(EPOCHS, "learned", None, 0.0, 0.4, "linear", 100),
        held=Hyperparameters({"weight_decay": 1e-6, "dropout_cell_h": 0.2}),
        bound={},
        seed=0,
        device=torch.device("cpu"),
    )


def evaluated(folder: Path) -> list[str]:
    """What is recorded of each evaluation, once, but for the time on the clock."""
    found = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    for one in found:
        del one["cost"]["seconds"]
    return list(dict.fromkeys(map(json.dumps, found)))


STRATEGIES: dict[str, Callable[..., Any]] = {
    "evolution": partial(AgingEvolution, population=2),
    "hyperband": partial(Hyperband, [1], 2),
}


@pytest.mark.parametrize("strategy", ["evolution", pytest.param("hyperband", marks=pytest.mark.slow)])
def test_killed_between_or_within_evaluations_it_goes_on_to_the_same_bytes(
    strategy: str, setup: TrainingSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, last = [0], [-1]
    own = Retraining._one_step

    def one_step(retraining: Retraining) -> tuple[Tensor, float]:
        if steps[0] == last[0]:
            raise Killed
        steps[0] += 1
        return own(retraining)

    monkeypatch.setattr(Retraining, "_one_step", one_step)

    def search(folder: str, kill_at: int = -1) -> BlackBoxSearch:
        steps[0], last[0] = 0, kill_at
        objective = Fixed({"bits_per_token": -1.0}, 0.0, {}, space=setup.space)
        return BlackBoxSearch(
            STRATEGIES[strategy],
            space=setup.space,
            setup=setup,
            evaluator=TrainedFromScratch(EPOCHS, [1], setup=setup, objective=objective),
            objective=objective,
            budget=Budget(evaluations=5),
            tracking=TrackingSettings(tensorboard=False, console="quiet"),
            randomness=Randomness(0),
            folder=RunFolder(tmp_path / folder),
        )

    candidate, whole = search("whole").search().candidate, tmp_path / "whole"
    taken = steps[0]
    between = 2 * EPOCHS * STEPS
    for kill_at in (between, between + 1, taken - 1):
        folder = f"killed at {kill_at}"
        with pytest.raises(Killed):
            search(folder, kill_at).search()
        assert search(folder).search().candidate == candidate
        assert (tmp_path / folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
        assert evaluated(tmp_path / folder) == evaluated(whole)
        if strategy == "evolution":  # a pruner is shown everything since the last checkpoint again
            assert steps[0] == taken - kill_at + kill_at % (EPOCHS * STEPS), "nothing finished is evaluated again"
