"""The surrogate on a made-up truth, whose right answers are known, and the evaluator that asks it."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import train_search
from nas.candidate import Candidate, Categorical, Choice, Hyperparameters, Range
from nas.errors import InvalidValue
from nas.evaluation.evaluation import EvaluationCache
from nas.evaluation.evaluator import SuccessiveHalving
from nas.evaluation.objective import Fixed
from nas.evaluation.surrogate import Encoding, Surrogate, with_option
from nas.evaluation.surrogate_lookup import SurrogateLookup
from nas.evaluation.training_setup import TrainingSetup
from nas.evaluation.truth import Truth
from nas.signature import Signature
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201

CONF = Path(__file__).resolve().parents[2] / "conf"
NOISE = 0.03


@pytest.fixture(scope="module")
def surrogate(truth: Truth) -> Surrogate:
    return Surrogate(truth, (1, 4))


@pytest.fixture(scope="module")
def path(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> str:
    found = tmp_path_factory.mktemp("truth") / "truth.csv.gz"
    truth.write(found)
    return str(found)


@pytest.fixture
def lookup(path: str, setup: TrainingSetup, accuracy: Fixed) -> Callable[..., SurrogateLookup]:
    def made(space: Any = setup.space, setup: TrainingSetup = setup, **settings: Any) -> SurrogateLookup:
        return SurrogateLookup(path, space=space, setup=setup, objective=accuracy, **settings)

    return made


def drawn(setup: TrainingSetup, count: int) -> list[Candidate]:
    generator = torch.Generator().manual_seed(11)
    return [setup.space.sample(generator) for _ in range(count)]


def test_numbers_are_encoded_by_their_logarithm_and_other_options_by_columns_of_their_own() -> None:
    space = NasBench201(signature=Signature((3, 8, 8), 10), ranges={"weight_decay": Range(1e-4, 1e-2, "log")})
    space._choices = (Choice("width", ("4", "8", "16")), Choice("kind", ("max", "average")), *space.choices[:1])
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    candidate = Candidate(architecture, Hyperparameters({"weight_decay": 1e-3}))
    operations = space.choices[2]
    for width, place in (("4", 0.0), ("8", 0.5), ("16", 1.0)):
        one = with_option(with_option(candidate, "width", width), "kind", "average")
        (row,) = Encoding(space)([with_option(one, operations.name, operations.options[1])])
        assert row.tolist() == pytest.approx([place, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.5])


def test_what_nobody_has_trained_is_foretold(
    surrogate: Surrogate, setup: TrainingSetup, log_loss: Callable[..., float]
) -> None:
    candidates = drawn(setup, 100)
    actual = np.array([log_loss(setup.space, one) for one in candidates])
    mean, deviation = surrogate.predict(candidates)
    assert surrogate.targets[2] == ("validation_loss", 4)
    errors = mean[:, 2] - actual
    assert 1 - errors.var() / actual.var() > 0.97
    assert np.abs(errors / deviation[:, 2]).mean() < 1.5, "the deviation tells how wrong it is"
    assert np.allclose(surrogate.means(candidates), mean)
    assert np.allclose(mean[:, 0], mean[:, 2] + math.log(1.6), atol=0.1), "the curve after one epoch"
    losses = surrogate.natural(mean)
    assert losses[:, 2] == pytest.approx(np.exp(mean[:, 2]))
    assert losses[:, 3] == pytest.approx(np.exp(-losses[:, 2]), abs=0.05)
    assert losses[:, 4] == pytest.approx(1.1 * losses[:, 2], rel=0.1)


def test_the_same_truth_gives_the_same_numbers_and_their_quality(truth: Truth, surrogate: Surrogate) -> None:
    again = Surrogate(truth, (1, 4))
    candidates = [row.candidate for row in truth.first]
    assert np.array_equal(again.means(candidates), surrogate.means(candidates))
    quality = surrogate.quality
    assert again.quality == quality
    assert quality.candidates == 80
    assert quality.r2 > 0.95
    assert quality.rank > 0.95
    assert quality.r2_better < quality.r2
    assert "R2 0.9" in quality.in_words()


def test_a_choice_has_the_effect_that_it_has(surrogate: Surrogate, truth: Truth) -> None:
    for place, choice in enumerate(truth.space.choices, start=1):
        found = surrogate.partial_dependence(choice.name)
        assert list(found) == list(choice.options)
        first, second = found.values()
        assert second - first == pytest.approx(0.6 / place, abs=0.05)
    with pytest.raises(InvalidValue, match=r"choice=layer9.*layer1\.filters"):
        surrogate.partial_dependence("layer9")


def test_broken_trainings_count_as_bad_ones(truth: Truth) -> None:
    broken = replace(truth.rows[0], results={**truth.rows[0].results, "validation_loss": math.inf})
    huge = replace(truth.rows[5], results={**truth.rows[5].results, "validation_loss": 1e12})
    surrogate = Surrogate(replace(truth, rows=[broken, *truth.rows[1:5], huge, *truth.rows[6:]]))
    assert np.isfinite(surrogate.means([row.candidate for row in truth.first])).all()
    assert surrogate._values[0, 0] == surrogate._values[5, 0] == pytest.approx(math.log(2 * math.log(10)))


def test_noise_is_that_of_repeated_trainings(lookup: Callable[..., SurrogateLookup], setup: TrainingSetup) -> None:
    candidates = drawn(setup, 300)
    exact = lookup(noise=False).evaluate(candidates)
    noisy = lookup().evaluate(candidates)
    differences = [
        math.log(one.metrics["loss"] / other.metrics["loss"]) for one, other in zip(noisy, exact, strict=True)
    ]
    assert np.std(differences) == pytest.approx(NOISE, rel=0.3)  # 20 repeated candidates tell it no better
    assert abs(np.mean(differences)) < 0.006
    assert all(one.metrics["test_loss"] == other.metrics["test_loss"] for one, other in zip(noisy, exact, strict=True))
    accuracies = [one.metrics["accuracy"] - other.metrics["accuracy"] for one, other in zip(noisy, exact, strict=True)]
    assert np.corrcoef(differences, accuracies)[0, 1] < -0.9, "a training with a lucky loss has a lucky accuracy"


def test_a_candidate_is_worth_the_same_whenever_it_is_asked_for(
    lookup: Callable[..., SurrogateLookup], setup: TrainingSetup
) -> None:
    candidates = drawn(setup, 6)
    together = lookup().evaluate(candidates)
    alone = [lookup().evaluate([one])[0] for one in reversed(candidates)]
    for one, other in zip(together, reversed(alone), strict=True):
        assert one.metrics == other.metrics
    other_seed = lookup(setup=replace(setup, seed=1)).evaluate(candidates)
    assert other_seed[0].metrics["loss"] != together[0].metrics["loss"]
    assert lookup().evaluate([]) == []


def test_a_look_costs_what_the_training_would_have_cost(
    lookup: Callable[..., SurrogateLookup], setup: TrainingSetup
) -> None:
    (candidate,) = drawn(setup, 1)
    size = int(candidate.hyperparameters["batch_size"])
    trained = len(setup.train) // size * size
    for epochs in (None, 2):
        evaluator = lookup(epochs=epochs)
        (found,) = evaluator.evaluate([candidate])
        samples = (epochs or 4) * trained
        per_image = setup.multiply_adds(candidate.architecture)
        assert (found.cost.samples, found.cost.evaluations) == (samples + len(setup.validation), 1)
        assert found.cost.multiply_adds == per_image * (3 * samples + len(setup.validation))
        assert evaluator.price(candidate) == found.cost
        assert set(found.metrics) == {
            *("loss", "accuracy", "test_loss", "test_accuracy", "parameters", "multiply_adds", "fidelity")
        }


def test_short_trainings_are_read_off_the_curve_and_it_says_so(
    lookup: Callable[..., SurrogateLookup], setup: TrainingSetup, caplog: pytest.LogCaptureFixture
) -> None:
    candidates = drawn(setup, 5)
    with caplog.at_level(logging.INFO):
        short = lookup(epochs=1, noise=False).evaluate(candidates)
    assert "no training of 1 epochs" in caplog.text
    assert "in the better half" in caplog.text
    for one, other in zip(short, lookup(noise=False).evaluate(candidates), strict=True):
        assert one.metrics["loss"] == pytest.approx(1.6 * other.metrics["loss"], rel=0.1)
        assert one.metrics["test_loss"] == pytest.approx(other.metrics["test_loss"], rel=1e-9)


def test_a_pruner_ends_trainings_at_rungs(lookup: Callable[..., SurrogateLookup], setup: TrainingSetup) -> None:
    candidates = drawn(setup, 8)
    evaluator = lookup(rungs=[1, 2])
    found = evaluator.evaluate(candidates, SuccessiveHalving(2.0))
    fidelities = [one.metrics["fidelity"] for one in found]
    assert sorted(fidelities) == [0.25] * 4 + [0.5] * 2 + [1.0] * 2
    first = lookup(epochs=1).evaluate(candidates)
    best = sorted(range(8), key=lambda one: -first[one].metrics["accuracy"])[:4]
    assert {one for one in range(8) if fidelities[one] > 0.25} == set(best)
    for one in found:
        epochs, measured = round(4 * one.metrics["fidelity"]), {0.25: 1, 0.5: 2, 1.0: 3}[one.metrics["fidelity"]]
        assert one.cost == setup.price(one.candidate, epochs, measured)
    assert all(one.metrics["fidelity"] == 1.0 for one in evaluator.evaluate(candidates))


def test_what_does_not_fit_the_truth_is_refused(
    lookup: Callable[..., SurrogateLookup], setup: TrainingSetup, make_truth: Callable[..., Truth], tmp_path: Path
) -> None:
    def bounded(**ranges: Any) -> Any:
        space = Macro(**setup.space.settings(), signature=Signature(setup.space.input_shape, setup.space.classes))
        space.ranges = {**setup.space.ranges, **ranges}
        return space

    lookup(space=bounded(learning_rate=Range(1e-2, 0.1, "log"), batch_size=Categorical(8, (8, 16))))
    with pytest.raises(InvalidValue, match=r"hyperparameters\.learning_rate=0\.0001 to 0\.1.*0\.001 to 0\.3"):
        lookup(space=bounded(learning_rate=Range(1e-4, 0.1, "log")))
    with pytest.raises(InvalidValue, match=r"hyperparameters\.batch_size=16, 64 .*8, 16, 32"):
        lookup(space=bounded(batch_size=Categorical(16, (16, 64))))
    with pytest.raises(InvalidValue, match=r"hyperparameters\.mixing=0 to 1 .*learning_rate, dropout, batch_size"):
        lookup(space=bounded(mixing=Range(0.0, 1.0)))
    fixed = bounded()
    fixed.ranges = {}
    (found,) = lookup(space=fixed, noise=False).evaluate(
        [replace(drawn(setup, 1)[0], hyperparameters=Hyperparameters())]
    )
    held = Candidate(found.candidate.architecture, setup.held)
    (same,) = lookup(noise=False).evaluate([held])
    assert same.metrics == found.metrics
    outside = replace(setup, held=Hyperparameters({**setup.held, "dropout": 0.9}))
    with pytest.raises(InvalidValue, match=r"hyperparameters\.dropout=0\.9 .*0 to 0\.5"):
        lookup(space=fixed, setup=outside)
    decayed = replace(setup, held=Hyperparameters({**setup.held, "weight_decay": 0.1}))
    with pytest.raises(InvalidValue, match=r"hyperparameters\.weight_decay=0\.1 .*made with 0\.0003"):
        lookup(setup=decayed)
    other = Macro(**{**setup.space.settings(), "activations": ["relu", "sigmoid"]}, signature=Signature((1, 8, 8), 10))
    with pytest.raises(InvalidValue, match="another space"):
        lookup(space=other)
    with pytest.raises(InvalidValue, match="epochs=5"):
        lookup(epochs=5)
    with pytest.raises(InvalidValue, match="rungs"):
        lookup(rungs=[2, 2])
    quiet = tmp_path / "quiet.csv"
    make_truth(setup.space, {"final": {"epochs": 2}}, rows=12, repeats=0).write(quiet)
    with pytest.raises(InvalidValue, match=r"noise=.*no repeated trainings"):
        SurrogateLookup(str(quiet), space=setup.space, setup=setup, objective=lookup().objective)
    with pytest.raises(InvalidValue, match="path=nowhere"):
        SurrogateLookup("nowhere", space=setup.space, setup=setup, objective=lookup().objective)


def composed(*overrides: str) -> Any:
    small = (
        "experiment=debug",
        "data.split={train:128,validation:64,test:300}",
        "training.batch_size=32",
        "tracking.console=quiet",
        "tracking.tensorboard=false",
    )
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train_search", overrides=[*small, *overrides])


@pytest.fixture(scope="module")
def debug_truth(make_truth: Callable[..., Truth], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("debug")
    config = composed()
    parts = train_search.built_parts(config, folder)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    make_truth(parts.space, {**plain, "final": {"epochs": 3}}).write(folder / "truth.csv.gz")
    return str(folder / "truth.csv.gz")


@pytest.mark.parametrize("method", ["random", "tpe", "evolution"])
def test_searches_run_on_it(method: str, debug_truth: str, tmp_path: Path) -> None:
    names = f"method={method}", "evaluation=surrogate", f"evaluation.path={debug_truth}", "budget.evaluations=12"
    results = [train_search.search(composed(*names), tmp_path / folder)[0] for folder in ("one", "two")]
    assert results[0].candidate == results[1].candidate
    assert results[0].cost.evaluations == 12
    assert results[0].cost.samples > 11 * 3 * 96, "the trainings' price, but for a repeated candidate"
    assert "best/test_accuracy" in results[0].metrics


def test_a_strategy_draws_the_same_candidates_live(debug_truth: str, tmp_path: Path) -> None:
    names = "method=random", "budget.evaluations=2"
    train_search.search(composed(*names, "evaluation.epochs=1"), tmp_path / "live")
    train_search.search(
        composed(*names, "evaluation=surrogate", f"evaluation.path={debug_truth}"), tmp_path / "foretold"
    )
    live, foretold = (
        [one.candidate for one in EvaluationCache(tmp_path / name / "evaluations.jsonl")]
        for name in ("live", "foretold")
    )
    assert live == foretold
