"""Discretisation by removal, against a count by hand and against the numbers of the original."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.candidate import Architecture
from nas.data.batches import Batch, first_images
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.search.discretisation import Trained
from nas.search.gradient_search import GradientSearch
from nas.search.removal import Decisions, Removal, drawn_order
from nas.search.tuning import Tuning
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet
from nas.tasks import Classification
from tests.killing import assert_same_bytes, assert_same_results, killed
from tests.problems import SMOOTH_LAYERS, batch_for, search_parts, seeded_supernet

SHAPE = (1, 6, 6)
SPACES: dict[str, SearchSpace] = {
    "macro": Macro(SMOOTH_LAYERS, ["softplus"], signature=Signature(SHAPE, 3)),
    "nasbench201": NasBench201(channels=2, cells_per_stage=1, signature=Signature(SHAPE, 3)),
    "darts": Darts(
        channels=2,
        cells=2,
        steps=2,
        multiplier=2,
        stem_multiplier=1,
        operations=["none", "skip_connect", "avg_pool_3x3"],
        signature=Signature(SHAPE, 3),
    ),
}
BATCH = batch_for(4, size=8)


def loss(supernet: Supernet, weights: dict[str, Tensor]) -> float:
    """Measured without any of the package's ways to measure."""
    before = {name: entry.clone() for name, entry in supernet.state_dict().items()}
    with torch.no_grad():
        value = float(F.cross_entropy(supernet(BATCH.inputs, weights), BATCH.targets))
    supernet.load_state_dict(before)
    return value


def by_hand(supernet: Supernet, space: SearchSpace, generator: torch.Generator) -> Architecture:
    """Row by row in the drawn order, written down once more."""
    order = drawn_order(supernet, space, generator)
    weights = {name: alpha.detach().softmax(-1).view(-1, alpha.shape[-1]) for name, alpha in supernet.alpha.items()}
    shapes = {name: alpha.shape for name, alpha in supernet.alpha.items()}
    places = {row: (name, at) for name in weights for at, (row, _) in enumerate(supernet.alpha_rows(name))}
    labels = {row: options for name in weights for row, options in supernet.alpha_rows(name)}

    def without(row: str, columns: list[int]) -> float:
        name, at = places[row]
        changed = {one: entry.clone() for one, entry in weights.items()}
        changed[name][at, columns] = 0.0
        return loss(supernet, {one: entry.view(shapes[one]) for one, entry in changed.items()})

    decided: dict[str, dict[str, float]] = {}
    for row in order.rows:
        able = [at for at, label in enumerate(labels[row]) if label != "none" or space.name != "darts"]
        losses = [without(row, [at]) for at in able]
        best = able[losses.index(max(losses))]
        name, at = places[row]
        weights[name][at] = 0.0
        weights[name][at, best] = 1.0
        decided[row] = {label: float(place == best) for place, label in enumerate(labels[row])}
    for rows, kept in order.rivals:
        losses = {row: without(row, list(range(len(labels[row])))) for row in rows}
        for row in sorted(rows, key=lambda one: -losses[one])[kept:]:
            name, at = places[row]
            weights[name][at] = 0.0
            decided[row] = dict.fromkeys(labels[row], 0.0)
    return space.preferred(decided)


@pytest.mark.parametrize("name", SPACES)
def test_it_keeps_what_costs_most_to_lose(name: str) -> None:
    space = SPACES[name]
    supernet, _ = seeded_supernet(space)
    before = {key: entry.clone() for key, entry in supernet.state_dict().items()}
    handed_out = 0

    def batches(most: int) -> Iterator[Batch]:
        nonlocal handed_out
        for batch in first_images([BATCH], most):
            handed_out += len(batch.targets)
            yield batch

    expected = by_hand(supernet, space, torch.Generator().manual_seed(5))
    rule = Removal(images=8)
    found = rule.choose(Trained(supernet, space, batches, torch.Generator().manual_seed(5)))
    assert found == expected
    assert 0 < handed_out <= rule.images(space, 8)
    assert all(torch.equal(entry, before[key]) for key, entry in supernet.state_dict().items())


def test_ties_go_to_the_first_option_and_to_the_first_edges() -> None:
    space = SPACES["darts"]
    supernet, _ = seeded_supernet(space)
    decisions = Decisions(supernet, space, lambda weights: 1.0)
    order = drawn_order(supernet, space, torch.Generator().manual_seed(0))
    genotype = space.genotype(decisions.made_in(order))  # type: ignore[attr-defined]
    assert genotype.normal == genotype.reduce == (("skip_connect", 0), ("skip_connect", 1)) * 2


def test_what_was_taken_away_does_not_come_back() -> None:
    space = SPACES["darts"]
    supernet, _ = seeded_supernet(space)
    kept = torch.tensor([1.0, 0.0, 1.0]).expand(5, 3)  # no skips
    supernet.keep("normal", kept)
    found = Removal(images=8).choose(Trained(supernet, space, lambda most: [BATCH], torch.Generator().manual_seed(0)))
    assert space.skips(found) == []


def test_every_order_visits_every_row_once_and_cells_in_turn() -> None:
    supernet, _ = seeded_supernet(SPACES["darts"])
    orders = [drawn_order(supernet, SPACES["darts"], torch.Generator().manual_seed(seed)) for seed in range(5)]
    names = [row for name in supernet.alpha for row, _ in supernet.alpha_rows(name)]
    for order in orders:
        assert sorted(order.rows) == sorted(names)
        assert [row.split(".")[0] for row in order.rows] == ["normal", "reduce"] * 5
        assert len(order.rivals) == 2  # the other nodes have two edges
    assert len({tuple(order.rows) for order in orders}) > 1


def test_a_search_that_chooses_by_removal_is_the_same_once_resumed(tmp_path: Path) -> None:
    def made(folder: str) -> GradientSearch:
        return GradientSearch(search_parts(tmp_path / folder, discretisation=Removal(images=20), search={"epochs": 1}))

    whole, broken = made("whole").search(), made("killed")
    with killed(broken.reader, "measure_and_choose", lambda *_: True):
        broken.search()
    assert_same_results(made("killed").search(), whole)
    assert_same_bytes(tmp_path / "killed", tmp_path / "whole")


def test_between_two_rounds_it_tunes_with_what_is_decided() -> None:
    space = SPACES["darts"]
    supernet, _ = seeded_supernet(space)
    order = drawn_order(supernet, space, torch.Generator().manual_seed(0))
    seen: list[int] = []

    def between(number: int, times: int) -> None:
        weights = supernet.operation_weights()
        one_hot = sum(int((entry == 1).any(-1).sum()) for entry in weights.values())
        gone = sum(int((entry == 0).all(-1).sum()) for entry in weights.values())
        seen.append(one_hot + gone)
        assert (number, times) == (len(seen) - 1, 5)
        assert gone == 0

    before = supernet.operation_weights()
    Decisions(supernet, space, lambda weights: 1.0).made_in(order, between)
    assert seen == [2, 4, 6, 8, 10]  # rows of five edges in each of two cells; the last round drops edges
    assert all(torch.equal(entry, before[name]) for name, entry in supernet.operation_weights().items())


def test_a_search_that_tunes_meanwhile_pays_for_it_and_stays_as_it_was(tmp_path: Path) -> None:
    def searched(folder: str, tuning: int) -> tuple[GradientSearch, int]:
        rule = Removal(images=20, tuning=tuning)
        search = GradientSearch(search_parts(tmp_path / folder, discretisation=rule, search={"epochs": 1}))
        return search, search.search().cost.samples

    (plain, cheap), (tuned, dear), (again, same) = searched("plain", 0), searched("tuned", 1), searched("again", 1)
    rounds = len(plain.parts.space.choices)
    assert dear == same == cheap + (rounds - 1) * 4 * 16 * 2  # a training and a validation batch in each of four steps
    assert again.result().candidate == tuned.result().candidate
    states = [search.supernet.state_dict() for search in (plain, tuned)]
    assert all(torch.equal(entry, states[1][name]) for name, entry in states[0].items())
    assert searched("tuned", 1)[0].result().candidate == tuned.result().candidate


def test_tuning_steps_are_as_large_as_the_task_asks_for(tmp_path: Path) -> None:
    class ShortBatches(Classification):
        def rate_factor(self, targets: Tensor) -> float:
            return 0.25

    def last_factor(folder: str, task: Classification) -> float:
        parts = search_parts(tmp_path / folder, discretisation=Removal(images=20), search={"epochs": 1})
        search = GradientSearch(replace(parts, task=task))
        Tuning(search, lambda: False)(1, 0, 1)
        return search.problem.schedule_factor

    assert last_factor("short", ShortBatches()) == 0.25 * last_factor("usual", Classification())


def test_a_relaxed_supernet_is_measured_in_double_precision() -> None:
    supernet, space = seeded_supernet(SPACES["macro"])
    weights = Softmax(Temperature())
    relaxed = {name: weights(alpha).detach() for name, alpha in supernet.alpha.items()}
    assert Removal(images=8).harm(Trained(supernet, space, lambda most: [BATCH]))(relaxed) == pytest.approx(
        loss(supernet, relaxed), abs=1e-12
    )
