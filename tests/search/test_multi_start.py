"""The search from several starts."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.errors import InvalidValue
from nas.evaluation.budget import Budget
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import DropoutRate, LearningRate, WeightDecay
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised
from nas.operations.stochastic import without_noise
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.search.gradient_search import GradientSearch
from nas.search.guard import SearchDiverged
from nas.search.multi_start import MultiStart
from nas.search.result import SearchResult
from tests.killing import assert_same_bytes, assert_same_results, killed_in_search
from tests.problems import search_parts

STARTS = [{"learning_rate": 1e-4}, {"learning_rate": 0.05, "dropout": 0.1}, {"learning_rate": 1e-3}]


def made(folder: Path, **settings: Any) -> MultiStart:
    own = {"starts": STARTS, "start_epochs": 1}
    own |= {name: settings.pop(name) for name in own if name in settings}
    hyperparameters = HyperparameterSet(
        {
            "learning_rate": LearningRate(0.01, 1e-5, 0.5, "log", True, CosineNormalised(0.1)),
            "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", False),
            "dropout": DropoutRate(0.3, 0.0, 0.9, "logit", True, AdamUpdate(0.1)),
        }
    )
    usual = {
        "relaxation": GumbelSoftmax(Temperature(1.0, 1.0)),
        "hyperparameters": hyperparameters,
        "search": {"warmup_epochs": 1},
    }
    parts = search_parts(folder, **{**usual, **settings})
    return MultiStart(**own, parts=parts)


def first_state(search: GradientSearch) -> dict[str, torch.Tensor]:
    return {name: entry.clone() for name, entry in search.supernet.state_dict().items()}


def at_the_end(search: GradientSearch) -> float:
    """The validation loss of the supernet that ``search`` left, with each batch's own statistics."""
    search.supernet.train()
    losses, count = 0.0, 0
    with without_noise(search.supernet), torch.no_grad():
        for batch in search.reader.batches():
            logits = search.supernet(batch.inputs, search.supernet.mean_weights())
            losses += float(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum"))
            count += len(batch.targets)
    return losses / count


def test_the_long_search_begins_where_the_best_short_one_has_come(tmp_path, monkeypatch):
    begun: list[tuple[float, float, dict[str, torch.Tensor]]] = []
    searches: list[GradientSearch] = []
    ended: list[SearchResult] = []
    original = GradientSearch.search

    def noting(self):
        numbers = self.hyperparameters.numbers()
        begun.append((numbers["learning_rate"], numbers["dropout"], first_state(self)))
        searches.append(self)
        ended.append(original(self))
        return ended[-1]

    monkeypatch.setattr(GradientSearch, "search", noting)
    found = made(tmp_path).search()
    assert [one[0] for one in begun[:3]] == pytest.approx([1e-4, 0.05, 1e-3])
    assert [one[1] for one in begun[:3]] == pytest.approx([0.3, 0.1, 0.3])
    for name, entry in begun[0][2].items():
        assert torch.equal(entry, begun[1][2][name])  # all short ones begin with the same weights
    losses = [at_the_end(one) for one in searches[:3]]
    assert losses != [one.metrics["supernet/validation_loss"] for one in ended[:3]]  # by running averages, which lag
    assert found.remarks["validation loss by start"] == ", ".join(f"{loss:.4g}" for loss in losses)
    best = searches[losses.index(min(losses))]
    average = best.trajectory.tail_average()
    assert begun[3][:2] == pytest.approx((average["learning_rate"], average["dropout"]))
    for name, alpha in best.supernet.alpha.items():
        assert torch.equal(begun[3][2][f"alpha.{name}"], alpha)
    assert not torch.equal(begun[3][2]["classifier.weight"], first_state(best)["classifier.weight"])
    compared = 3 * len(searches[0].parts.splits.validation)
    assert found.cost.samples == found.metrics["samples"] == sum(one.cost.samples for one in ended) + compared
    assert found.seconds == pytest.approx(sum(one.seconds for one in ended))
    assert found.candidate == ended[3].candidate


@pytest.mark.parametrize(("number", "step"), [(1, 2), (3, 1), (3, 5)])
def test_killed_in_any_of_them_it_goes_on_as_if_nothing_had_happened(number, step, tmp_path):
    expected = made(tmp_path / "whole").search()
    with killed_in_search(number, step):
        made(tmp_path / "killed").search()
    assert_same_results(made(tmp_path / "killed").search(), expected)
    names = ("metrics.csv", "starts/1/metrics.csv", "trajectory.csv")
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole", *names)


def test_a_budget_is_that_of_all_together(tmp_path, caplog):
    caplog.set_level(logging.INFO, "nas")
    whole = made(tmp_path / "plenty").search().cost.samples
    for share in (0.3, 0.8):
        limit = int(share * whole)
        assert made(tmp_path / str(share), budget=Budget(samples=limit)).search().cost.samples <= limit
    assert any("the budget is too small" in one for one in caplog.messages)


def test_a_start_that_diverges_is_given_up_and_paid_for(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "nas")
    original, spent = GradientSearch.search, []

    def diverging(self):
        found = original(self)
        spent.append(found.cost.samples)
        if len(spent) == 2:
            with torch.no_grad():
                next(iter(self.supernet.alpha.values())).fill_(math.nan)  # there is no candidate to read off
            raise SearchDiverged("step 3: the loss is not finite, after 5 restarts.")
        return found

    monkeypatch.setattr(GradientSearch, "search", diverging)
    several = made(tmp_path)
    found = several.search()
    assert found.remarks["validation loss by start"].split(", ")[1] == "inf"
    assert found.cost.samples == sum(spent) + 2 * len(several.parts.splits.validation)
    assert "this start is given up: step 3: the loss is not finite, after 5 restarts." in caplog.messages


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"starts": [{}]}, "starts=1"),
        ({"start_epochs": 0}, "start_epochs=0"),
        ({"starts": [{}, {"weight_decay": 0.1}]}, "starts\\[1\\].weight_decay=0.1"),
        ({"starts": [{}, {"learning_rate": 7.0}]}, "starts\\[1\\].learning_rate=7.0"),
    ],
)
def test_impossible_starts_are_refused(settings, key, tmp_path):
    with pytest.raises(InvalidValue, match=key):
        made(tmp_path, **settings)
