"""A gradient search over a text: states go on from batch to batch, and from a checkpoint."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.bilevel.exact import Exact
from nas.data.batches import Batch
from nas.data.texts.text import Text, TextSplit
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import LayerDropoutRate, LearningRate, MemoryPenalty, WeightDecay
from nas.hyperparameters.rules import AdamUpdate
from nas.search.gradient_search import GradientSearch
from nas.spaces import Recurrent
from nas.tasks import Auto
from nas.training.settings import TrainingSettings
from tests.killing import assert_same_bytes, assert_same_results, killed_in_search
from tests.problems import search_parts


def search_of(folder: Path) -> GradientSearch:
    """Two epochs over 240 characters; every hyperparameter is learned by its exact gradient."""
    torch.manual_seed(0)
    text = folder.parent / "book.txt"
    text.write_text("abcabdabcabe" * 20, encoding="utf-8")
    source = Text(file=str(text), level="character", length=5, varied_lengths=True, split=TextSplit(0.2, 0.1))
    task, splits = Auto().fitted(source.load())
    entries = {
        "learning_rate": LearningRate(0.2, 1e-3, 50.0, "log", True, AdamUpdate(0.1)),
        "weight_decay": WeightDecay(1e-3, 1e-6, 1e-1, "log", True, AdamUpdate(0.1)),
        "dropout_cell_h": LayerDropoutRate(0.2, 0.0, 0.9, "logit", True, AdamUpdate(0.1), layer="cell_h"),
        "temporal_penalty": MemoryPenalty(1e-3, 1e-5, 1.0, "log", True, AdamUpdate(0.1)),
    }
    parts = search_parts(
        folder,
        splits=splits,
        task=task,
        space=Recurrent(4, 4, nodes=2, signature=task.signature),
        architecture_gradient=Exact(),
        hyperparameters=HyperparameterSet(entries),
        training=TrainingSettings(4, 0.0, 0.25, "constant"),
        augmentation=None,
    )
    return GradientSearch(parts)


def test_the_states_of_both_splits_go_on_and_begin_again_with_the_text(tmp_path: Path) -> None:
    search = search_of(tmp_path / "run")
    seen: list[tuple[Batch, Batch, Tensor]] = []
    own = search.bilevel_optimiser.step

    def watched(training: Batch, validation: Batch | None, requests: object) -> object:
        assert validation is not None
        outcome = own(training, validation, requests)  # type: ignore[arg-type]
        assert not isinstance(outcome.weight_step.logits, Tensor)
        seen.append((training, validation, outcome.weight_step.logits.state))
        return outcome

    search.bilevel_optimiser.step = watched  # type: ignore[method-assign, assignment]
    search.search()
    assert seen[0][0].state is None
    empty = [training.state is None for training, _, _ in seen]
    assert empty.count(True) == 2 + search.guard.restarts  # as often as the text begins
    for (_, _, after), (training, _, _) in pairwise(seen):
        assert training.state is None or torch.equal(training.state, after)
    carried = [validation.state for _, validation, _ in seen if validation.state is not None]
    assert carried
    assert not any(state.requires_grad for state in carried)


@pytest.mark.parametrize("step", [4, pytest.param(13, marks=pytest.mark.slow)])
def test_killed_in_the_middle_of_a_text_it_goes_on_as_if_nothing_had_happened(step: int, tmp_path: Path) -> None:
    whole = search_of(tmp_path / "whole")
    expected = whole.search()
    with killed_in_search(0, step):
        search_of(tmp_path / "killed").search()
    resumed = search_of(tmp_path / "killed")
    assert_same_results(resumed.search(), expected)
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole")
    for name, tensor in whole.supernet.state_dict().items():
        assert torch.equal(tensor, resumed.supernet.state_dict()[name]), name
