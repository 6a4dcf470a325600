"""The gradient search as a whole, a few steps long, on the digits."""

import csv
import itertools
import logging
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.bilevel.by_kind import ByKind
from nas.bilevel.exact import Exact
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.forward_accumulation import ForwardAccumulation
from nas.bilevel.implicit import NeumannSeries
from nas.bilevel.last_step import LastStep
from nas.candidate import Architecture, Candidate
from nas.data.augmentation import Augmentation
from nas.data.data_splits import DataSplits
from nas.errors import InvalidValue
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import DropoutRate, LearningRate, WeightDecay
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.run.finiteness import NotFinite
from nas.run.randomness import Randomness
from nas.search.callback import Callback, SeenStep
from nas.search.gradient_search import GradientSearch
from nas.search.guard import GuardSettings, SearchDiverged
from nas.search.record import normalised_entropy
from nas.spaces.macro.space import Macro
from nas.stopping import Stopped
from nas.training.settings import TrainingSettings
from tests.killing import Killed
from tests.problems import QUIET, digits, search_parts

STEPS_PER_EPOCH = 4
LAYERS = [
    {"type": "conv", "filters": [4, 8], "kernel_size": [1, 3]},
    {"type": "pool", "pool_size": 2, "kind": ["max", "average"]},
    {"type": "dense", "units": [8, 16]},
]


@pytest.fixture(scope="module")
def splits() -> DataSplits:
    return digits()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged for the user, in ``messages``."""
    caplog.set_level(logging.INFO, "nas")
    return caplog


@dataclass
class Run:
    """The settings of a search, each with a default."""

    relaxation: str = "softmax"
    architecture: Any = field(default_factory=FirstOrder)
    hyperparameters: Any = field(default_factory=Exact)
    learned: bool = True
    rate: float = 0.05
    highest_rate: float = 0.5
    seed: int = 0
    log_every: int = 1
    on_non_finite: Any = "restart"
    compile: bool = False
    search: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] = field(default_factory=dict)
    temperature: Temperature = field(default_factory=lambda: Temperature(2.0, 0.5))

    def made(self, splits: DataSplits, path: Path) -> GradientSearch:
        relaxation = {"softmax": Softmax, "gumbel": GumbelSoftmax}[self.relaxation](self.temperature)
        settings = {"epochs": 3, "warmup_epochs": 1, "hyperparameter_every": 2, **self.search}
        return GradientSearch(
            search_parts(
                path,
                space=Macro(LAYERS, ["relu", "tanh"], signature=splits.signature),
                splits=splits,
                augmentation=Augmentation(1, False, 2),
                relaxation=relaxation,
                architecture_gradient=self.architecture,
                hyperparameter_gradient=self.hyperparameters if self.learned else None,
                hyperparameters=HyperparameterSet(
                    {
                        "learning_rate": LearningRate(
                            self.rate, 1e-5, self.highest_rate, "log", self.learned, CosineNormalised(0.3)
                        ),
                        "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", False),
                        "dropout": DropoutRate(0.3, 0.0, 0.9, "logit", self.learned, AdamUpdate(0.1), cap=0.5),
                    }
                ),
                search={**settings, "guard": GuardSettings(**self.guard)},
                training=TrainingSettings(
                    16, 0.9, 5.0, "cosine", on_non_finite=self.on_non_finite, compile=self.compile
                ),
                tracking=replace(QUIET, log_every=self.log_every),
                randomness=Randomness(self.seed),
            )
        )


def before_every_step(search: GradientSearch, action: Callable[[], object]) -> None:
    """Do ``action`` just before each weight step."""

    original = search.problem.step

    def stepping(*arguments: Any) -> Any:
        action()
        return original(*arguments)

    search.problem.step = stepping


def before_step(search: GradientSearch, number: int, action: Callable[[], object]) -> None:
    """Do ``action`` just before the weight step that follows ``number`` steps."""
    before_every_step(search, lambda: action() if search.step == number else None)


def poison(search: GradientSearch) -> None:
    with torch.no_grad():
        search.supernet.classifier.weight[0, 0] = math.nan


def alphas(search: GradientSearch) -> dict[str, torch.Tensor]:
    return {name: alpha.detach().clone() for name, alpha in search.supernet.alpha.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def rows(path: Path, tag: str) -> list[tuple[int, float]]:
    with (path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [(int(row["step"]), float(row["value"])) for row in csv.DictReader(file) if row["tag"] == tag]


def metrics(path: Path) -> bytes:
    return (path / "metrics.csv").read_bytes()


class AtEveryStep(Callback):
    def __init__(self, action: Callable[[SeenStep], object]) -> None:
        self.on_step = action


def kill() -> None:
    raise Killed


# ---------------------------------------------------------------- the ordinary course


def test_a_search_moves_everything_and_returns_its_candidate(splits, tmp_path):
    search = Run().made(splits, tmp_path)
    before = alphas(search)
    result = search.search()
    candidate = result.candidate
    assert result.step == search.step == search.total_steps == 3 * STEPS_PER_EPOCH
    candidate.architecture.check(search.parts.space.choices)
    assert not equal(before, alphas(search))
    numbers = search.hyperparameters.numbers()
    assert numbers["learning_rate"] != pytest.approx(0.05)
    assert numbers["dropout"] != pytest.approx(0.3)
    assert candidate.hyperparameters == search.trajectory.tail_average()
    assert candidate.hyperparameters["weight_decay"] == 3e-4
    assert len(rows(tmp_path, "step/training_loss")) == search.total_steps
    assert [step for step, _ in rows(tmp_path, "train/loss")] == [4, 8, 12]
    assert not list(tmp_path.glob("tensorboard"))


def test_the_warm_up_leaves_alpha_alone_and_not_the_hyperparameters(splits, tmp_path):
    search = Run(search={"epochs": 2, "warmup_epochs": 1}).made(splits, tmp_path)
    before, after = alphas(search), {}
    before_step(search, STEPS_PER_EPOCH - 1, lambda: after.update(alphas(search)))
    search.search()
    assert equal(before, after)
    assert not equal(before, alphas(search))
    rates = dict(rows(tmp_path, "hyperparameters/learning_rate"))
    assert rates[1] != 0.05


def test_hyperparameters_move_at_every_so_many_steps_and_alpha_at_each(splits, tmp_path):
    search = Run(search={"epochs": 2, "warmup_epochs": 0, "hyperparameter_every": 3}).made(splits, tmp_path)
    seen = [alphas(search)]
    search.callbacks["alphas"] = AtEveryStep(lambda _: seen.append(alphas(search)))
    search.search()
    assert not any(equal(before, after) for before, after in itertools.pairwise(seen))
    values = [0.05, *(value for _, value in rows(tmp_path, "hyperparameters/dropout"))]
    moved = [step for step in range(2, 9) if values[step] != values[step - 1]]
    assert moved == [4, 7]  # the steps with the numbers 0, 3 and 6, counted from one
    for tag in ("gradient/architecture", "gradient/dropout", "gradient/weights"):
        assert [step for step, _ in rows(tmp_path, tag)] == [4, 8]  # means of the two epochs


def test_temperature_and_learning_rate_follow_their_schedules(splits, tmp_path):
    search = Run(learned=False).made(splits, tmp_path)
    temperatures, rates = [], []

    def looking(_: SeenStep) -> None:
        temperatures.append(search.supernet.relaxation.temperature)
        rates.append(search.problem.optimiser.param_groups[0]["lr"])

    search.callbacks["schedules"] = AtEveryStep(looking)
    search.search()
    places = [step / 12 for step in range(12)]
    assert temperatures == pytest.approx([2.0 * 0.25**place for place in places])
    assert rates == pytest.approx([0.05 * 0.5 * (1 + math.cos(math.pi * place)) for place in places])


def test_fixed_hyperparameters_stay(splits, tmp_path):
    search = Run(learned=False).made(splits, tmp_path)
    result = search.search()
    assert dict(result.candidate.hyperparameters) == {"learning_rate": 0.05, "weight_decay": 3e-4, "dropout": 0.3}
    assert {value for _, value in rows(tmp_path, "hyperparameters/learning_rate")} == {0.05}
    assert result.settled.keys() == {"architecture"}


def test_without_an_architecture_gradient_alpha_stays(splits, tmp_path):
    search = Run(architecture=None).made(splits, tmp_path)
    before = alphas(search)
    search.search()
    assert equal(before, alphas(search))
    assert rows(tmp_path, "gradient/architecture") == []


def test_with_neither_it_trains_the_weights_and_touches_no_validation_image_until_the_end(splits, tmp_path):
    search = Run(architecture=None, learned=False).made(splits, tmp_path)
    order = search.randomness.on_cpu("validation order").get_state()
    search.search()
    assert rows(tmp_path, "validation/loss") == []
    assert torch.equal(order, search.randomness.on_cpu("validation order").get_state())
    assert len(rows(tmp_path, "supernet/validation_loss")) == 1


def test_hypergradients_that_cannot_serve_are_refused_before_anything_is_written(splits, tmp_path):
    with pytest.raises(InvalidValue, match=r"hyperparameters\.gradient=null is not allowed"):
        Run(hyperparameters=None).made(splits, tmp_path)
    with pytest.raises(InvalidValue, match=r"hyperparameters\.gradient=FirstOrder is not allowed"):
        Run(hyperparameters=FirstOrder()).made(splits, tmp_path)
    for architecture, hyperparameters in ((Exact(), LastStep()), (LastStep(), Exact())):
        refused = r"=Exact is not allowed: beside (hypergradient=)?LastStep, which looks back"
        with pytest.raises(InvalidValue, match=refused):
            Run(architecture=architecture, hyperparameters=hyperparameters).made(splits, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_differentiated_twice_is_not_compiled(splits, tmp_path):
    for hypergradient in (Exact(), LastStep()):  # for dropout, which acts through the training loss
        with pytest.raises(InvalidValue, match="cannot differentiate twice"):
            Run(compile=True, hyperparameters=hypergradient).made(splits, tmp_path)
    with pytest.raises(InvalidValue, match="cannot differentiate twice"):
        Run(compile=True, architecture=Exact(), learned=False).made(splits, tmp_path)
    Run(compile=True, learned=False).made(splits, tmp_path)


def test_a_search_begun_compiled_goes_on_uncompiled(splits, tmp_path, nothing_compiled, said):
    compiled = Run(compile=True, learned=False).made(splits, tmp_path)
    before_step(compiled, 7, kill)
    with pytest.raises(Killed):
        compiled.search()
    assert said.messages[0].startswith("the first steps compile: minutes")
    assert nothing_compiled.graphs > 0
    found = Run(learned=False).made(splits, tmp_path).search().candidate
    eager = Run(learned=False).made(splits, tmp_path / "eager")
    assert found == eager.search().candidate
    assert rows(tmp_path, "train/loss") == [
        (step, pytest.approx(loss, rel=1e-3)) for step, loss in rows(tmp_path / "eager", "train/loss")
    ]


def test_every_sample_is_counted(splits, tmp_path):
    search = Run(search={"epochs": 2, "warmup_epochs": 1, "hyperparameter_every": 2}).made(splits, tmp_path)
    result = search.search()
    weight_steps, architecture_steps, hyperparameter_steps = 8, 4, 4
    passes = weight_steps + architecture_steps + 2 * hyperparameter_steps  # first order, exact
    whole_validation_split = 48  # measured at the start, for the guard, and at the end
    assert result.metrics["samples"] == 16 * passes + 2 * whole_validation_split


def test_looking_back_spends_no_more_samples_than_first_order(splits, tmp_path):
    search = Run(hyperparameters=LastStep(), search={"epochs": 2, "hyperparameter_every": 1}).made(splits, tmp_path)
    result = search.search()
    numbers = search.hyperparameters.numbers()
    assert numbers["learning_rate"] != pytest.approx(0.05)
    assert numbers["dropout"] != pytest.approx(0.3)
    assert result.metrics["samples"] == 16 * (8 + 8) + 2 * 48  # one pass of each batch, and the whole split


# ---------------------------------------------------------------- the end


def test_it_stops_as_soon_as_everything_has_settled(splits, tmp_path):
    search = Run(
        architecture=None,
        search={"epochs": 8, "warmup_epochs": 0, "stop": "settled", "settled_epochs": 3, "settled_ratio": 5.0},
    ).made(splits, tmp_path)
    result = search.search()
    assert search.step == 3 * STEPS_PER_EPOCH
    assert all(result.has_settled().values())


def test_it_goes_on_while_something_moves_or_unless_it_was_asked_to_stop(splits, tmp_path):
    moving = {"epochs": 4, "warmup_epochs": 0, "stop": "settled", "settled_epochs": 2, "settled_ratio": 1.0 + 1e-9}
    for name, settings in {"moving": moving, "not asked": {**moving, "stop": "epochs", "settled_ratio": 1e3}}.items():
        search = Run(architecture=None, search=settings).made(splits, tmp_path / name)
        search.search()
        assert search.step == 4 * STEPS_PER_EPOCH, name


# ---------------------------------------------------------------- the guard


def test_a_nan_starts_the_weights_again_at_a_lower_rate_and_keeps_alpha(splits, tmp_path, said):
    search = Run(search={"warmup_epochs": 0}).made(splits, tmp_path)
    initial = {name: entry.clone() for name, entry in search.supernet.state_dict().items()}
    at_restart: dict[str, Any] = {}
    upper_level_step = search.bilevel_optimiser.upper_step

    def note_and_poison() -> None:
        at_restart["rate"], at_restart["alphas"] = search.hyperparameters.numbers()["learning_rate"], alphas(search)
        poison(search)

    def looking(*arguments):
        if search.step == 6:
            at_restart["state after"] = {name: entry.clone() for name, entry in search.supernet.state_dict().items()}
            assert not search.problem.optimiser.state
            assert equal(alphas(search), at_restart["alphas"])
            assert search.hyperparameters.numbers()["learning_rate"] == pytest.approx(at_restart["rate"] / 4)
        return upper_level_step(*arguments)

    before_step(search, 5, note_and_poison)
    search.bilevel_optimiser.upper_step = looking
    result = search.search()
    for name, entry in at_restart["state after"].items():
        assert name.startswith("alpha.") or torch.equal(entry, initial[name]), name
    assert search.guard.restarts == 1
    assert result.metrics["restarts"] == 1
    assert rows(tmp_path, "guard/restart") == [(6, 1.0)]
    rate = f"{at_restart['rate'] / 4:.3g}"
    assert said.messages == [f"step 6: the loss is not finite; the weights start again, learning_rate {rate}"]
    assert all(bool(torch.isfinite(entry).all()) for entry in search.supernet.state_dict().values())


def test_what_was_learned_before_a_restart_is_no_part_of_the_average(splits, tmp_path):
    search = Run(architecture=None, search={"epochs": 2}).made(splits, tmp_path)
    before_step(search, 5, lambda: poison(search))
    candidate = search.search().candidate
    rates = [value for step, value in rows(tmp_path, "hyperparameters/learning_rate") if step > 6]
    assert len(rates) == 2
    assert candidate.hyperparameters["learning_rate"] == pytest.approx(rates[-1])


def test_a_restart_at_the_very_last_step_leaves_the_lowered_rate_and_nothing_settled(splits, tmp_path):
    search = Run(architecture=None, search={"epochs": 2}).made(splits, tmp_path)
    before_step(search, 7, lambda: poison(search))
    result = search.search()
    (_, last) = rows(tmp_path, "hyperparameters/learning_rate")[-1]
    assert result.candidate.hyperparameters["learning_rate"] == pytest.approx(last / 4)
    assert not any(result.has_settled().values())


def test_an_absurd_learning_rate_is_lowered_until_the_network_lives(splits, tmp_path):
    run = Run(rate=3e3, highest_rate=1e4, search={"epochs": 12}, guard={"divisor": 100.0})
    search = run.made(splits, tmp_path)
    search.search()
    assert 1 <= search.guard.restarts <= 5
    assert search.hyperparameters.numbers()["learning_rate"] < 30
    final = rows(tmp_path, "supernet/validation_loss")[-1][1]
    assert final < 2 * search.guard.initial_loss


def test_a_network_that_will_not_live_ends_the_search(splits, tmp_path):
    search = Run(guard={"restarts": 2}).made(splits, tmp_path)
    before_every_step(search, lambda: poison(search))
    with pytest.raises(SearchDiverged, match=r"^step 3: the loss is not finite, after 2 restarts; lower hyperpara"):
        search.search()


def test_with_a_fixed_learning_rate_divergence_ends_the_search(splits, tmp_path):
    search = Run(learned=False).made(splits, tmp_path)
    before_step(search, 5, lambda: poison(search))
    found = (
        r"^step 6: the training loss is nan; the last good checkpoint is of step 4; lower .*initial or learn it, or set"
    )
    with pytest.raises(NotFinite, match=found):
        search.search()


def test_an_alpha_that_is_not_finite_is_named_with_its_step(splits, tmp_path):
    search = Run(learned=False).made(splits, tmp_path)

    def spoil() -> None:
        with torch.no_grad():
            search.supernet.alpha["layer2-kind"][1] = math.nan

    before_step(search, 5, spoil)
    with pytest.raises(FloatingPointError, match=r"^step 6: alpha of layer2\.kind is not finite: \[.*nan\]"):
        search.search()


def test_with_a_learned_rate_an_alpha_that_is_not_finite_is_set_back_with_the_weights(splits, tmp_path):
    search = Run(search={"warmup_epochs": 0}).made(splits, tmp_path)

    def spoil() -> None:
        with torch.no_grad():
            search.supernet.alpha["layer2-kind"][1] = math.nan

    before_step(search, 5, spoil)
    search.search()
    assert search.guard.restarts == 1
    assert all(bool(torch.isfinite(alpha).all()) for alpha in search.supernet.architecture_parameters())


# ---------------------------------------------------------------- what is told at the end


def test_interventions_are_told_once_counted_by_kind_and_named_at_the_end(splits, tmp_path, said):
    search = Run(rate=0.4, search={"warmup_epochs": 0}).made(splits, tmp_path)
    held = {"learning_rate": replace(search.hyperparameters.entries["learning_rate"], trust_region=1e-3)}
    search.hyperparameters.entries.update(held)
    before_step(search, 5, lambda: poison(search))
    result = search.search()
    counts = search.interventions.by_kind()
    assert counts["loss_not_finite"] == 1
    assert 4 <= counts["trust_region"] <= 6  # one in two of twelve steps, and it hardly ever moves by less
    for kind, count in counts.items():
        assert rows(tmp_path, f"intervention/{kind}")[-1] == (12, float(count))
    assert said.messages.count("step 0: the change of learning_rate is cut to its trust region") == 1
    assert result.remarks["interventions"] == search.interventions.in_words()
    assert f"trust_region {counts['trust_region']} (learning_rate)" in search.interventions.in_words()


def test_a_search_too_short_to_settle_says_so(splits, tmp_path):
    search = Run(rate=0.3, search={"epochs": 2, "settled_epochs": 3}).made(splits, tmp_path)
    result = search.search()
    assert result.has_settled() == {"architecture": False, "learning_rate": False, "dropout": False}
    told = result.remarks["not settled"]
    assert told == "architecture, dropout, learning_rate: too early to tell, 2 epochs of 3"


def test_a_search_that_learned_nothing_has_not_settled(splits, tmp_path):
    search = Run(architecture=None, rate=1e-5, search={"settled_ratio": 5.0}, highest_rate=2e-5).made(splits, tmp_path)
    result = search.search()
    assert not any(result.has_settled().values())
    assert "nothing was learned: validation loss" in result.remarks["not settled"]


def test_a_candidate_at_its_cap_is_an_intervention(splits, tmp_path):
    search = Run(architecture=None).made(splits, tmp_path)
    before_step(search, 6, lambda: search.hyperparameters.set_value("dropout", 0.89))
    assert search.search().candidate.hyperparameters["dropout"] == 0.5
    assert search.interventions.by_kind()["cap"] == 1


# ---------------------------------------------------------------- what is not finite, by policy


@pytest.mark.parametrize("learned", [True, False])
def test_a_rollback_goes_on_from_the_last_good_checkpoint_at_a_lower_rate(learned, splits, tmp_path, said):
    search = Run(learned=learned, on_non_finite="rollback", search={"warmup_epochs": 0}).made(splits, tmp_path)
    poisoned: list[int] = []
    before_step(search, 5, lambda: poisoned.append(5) or (poison(search) if len(poisoned) == 1 else None))
    search.search()
    assert poisoned == [5, 5], "the same steps were taken again"
    assert said.messages == [
        "step 6: the training loss is nan; the last good checkpoint is of step 4: going on from there, "
        "the learning rate divided by 4"
    ]
    steps = [step for step, _ in rows(tmp_path, "step/training_loss")]
    assert steps == list(range(1, search.total_steps + 1)), "none twice, none missing"
    assert all(math.isfinite(loss) for _, loss in rows(tmp_path, "step/training_loss"))
    assert search.guard.restarts == 0
    undisturbed = Run(learned=learned, search={"warmup_epochs": 0}).made(splits, tmp_path / "undisturbed")
    undisturbed.search()
    assert search.meter.samples > undisturbed.meter.samples, "the steps that were taken back are paid for"
    one, other = (dict(rows(path, "hyperparameters/learning_rate")) for path in (tmp_path, tmp_path / "undisturbed"))
    if learned:
        assert one[5] < 0.5 * other[5]
    else:
        assert search.problem.schedule_factor == pytest.approx(undisturbed.problem.schedule_factor / 4)


def test_a_rollback_outlives_a_kill(splits, tmp_path):
    search = Run(learned=False, on_non_finite="rollback").made(splits, tmp_path)
    poisoned: list[int] = []
    before_step(search, 4, lambda: poisoned.append(4) or (poison(search) if len(poisoned) == 1 else None))

    def kill() -> None:
        if len(poisoned) == 2:
            raise KeyboardInterrupt

    before_every_step(search, kill)
    with pytest.raises(KeyboardInterrupt):
        search.search()
    again = Run(learned=False, on_non_finite="rollback").made(splits, tmp_path)
    again.search()
    assert again.rollbacks == 1


def test_what_does_not_heal_ends_the_search(splits, tmp_path):
    search = Run(on_non_finite="rollback").made(splits, tmp_path)
    before_step(search, 5, lambda: poison(search))
    with pytest.raises(
        NotFinite, match=r"^step 6: the training loss is nan, after 5 rollbacks; the last good .* step 4;"
    ):
        search.search()


def test_stop_means_stop_even_where_the_guard_could_restart(splits, tmp_path):
    search = Run(on_non_finite="stop").made(splits, tmp_path)
    before_step(search, 5, lambda: poison(search))
    with pytest.raises(NotFinite, match=r"^step 6: the training loss is nan; the last good checkpoint is of step 4; "):
        search.search()


def test_weights_that_are_not_finite_are_never_saved(splits, tmp_path):
    search = Run(learned=False, on_non_finite="stop").made(splits, tmp_path)

    def spoil_afterwards(*arguments, original=search.problem.step):
        result = original(*arguments)
        if search.step == 5:
            poison(search)
        return result

    search.problem.step = spoil_afterwards
    with pytest.raises(NotFinite, match=r"^step 6: an entry of classifier\.weight is nan; the last good .* step 4"):
        search.search()


# ---------------------------------------------------------------- the same again


def labels_seen(search: GradientSearch) -> list[list[int]]:
    seen: list[list[int]] = []
    search.callbacks["labels"] = AtEveryStep(lambda step: seen.append(step.training.targets.tolist()))
    return seen


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_another_order(relaxation, splits, tmp_path):
    results: dict[str, tuple[Candidate, bytes, list[list[int]]]] = {}
    for name, seed in {"one": 0, "again": 0, "another": 1}.items():
        search = Run(relaxation=relaxation, seed=seed).made(splits, tmp_path / name)
        seen = labels_seen(search)
        results[name] = search.search().candidate, metrics(tmp_path / name), seen
    assert results["one"] == results["again"]
    assert results["one"][1] != results["another"][1]
    assert results["one"][2][0] != results["another"][2][0]
    assert results["one"][2][0] != results["one"][2][STEPS_PER_EPOCH]  # nor is one epoch like the next


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
@pytest.mark.parametrize("step", [0, 2, 4, 6, 8, 10, 11])
def test_a_killed_search_goes_on_as_if_nothing_had_happened(step, relaxation, splits, tmp_path, said):
    """Checkpoints are written every third step and after each epoch, which is four steps long."""
    whole = Run(relaxation=relaxation).made(splits, tmp_path / "whole")
    expected = whole.search()

    killed = Run(relaxation=relaxation).made(splits, tmp_path / "killed")
    before_step(killed, step, kill)
    with pytest.raises(Killed):
        killed.search()
    resumed = Run(relaxation=relaxation).made(splits, tmp_path / "killed")
    found = resumed.search()
    assert said.messages == [f"resumed at step {step - min(step % 3, step % STEPS_PER_EPOCH)}"]
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert found.candidate == expected.candidate
    assert found.metrics == expected.metrics
    assert found.settled == expected.settled
    assert found.remarks == expected.remarks
    assert found.trajectory == expected.trajectory
    assert (found.step, found.epoch) == (expected.step, expected.epoch)
    assert replace(found.cost, seconds=0.0) == replace(expected.cost, seconds=0.0)
    assert equal(resumed.supernet.state_dict(), whole.supernet.state_dict())


@pytest.mark.parametrize(
    "hypergradient",
    [ForwardAccumulation, lambda: ByKind(NeumannSeries(2), ForwardAccumulation(3, 0.5)), LastStep],
    ids=["rtho", "by kind", "last step"],
)
def test_a_hypergradient_with_a_memory_goes_on_too(hypergradient, splits, tmp_path):
    expected = Run(hyperparameters=hypergradient()).made(splits, tmp_path / "whole").search().candidate
    killed = Run(hyperparameters=hypergradient()).made(splits, tmp_path / "killed")
    before_step(killed, 8, kill)
    with pytest.raises(Killed):
        killed.search()
    resumed = Run(hyperparameters=hypergradient()).made(splits, tmp_path / "killed")
    assert resumed.search().candidate == expected
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_a_restart_makes_a_hypergradient_forget(splits, tmp_path):
    hypergradient = ForwardAccumulation(None)
    search = Run(hyperparameters=hypergradient, search={"epochs": 2}).made(splits, tmp_path)
    before_step(search, 5, lambda: poison(search))
    search.search()
    assert hypergradient.state_dict()["age"] == 2  # of eight steps, those after the sixth


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_killed_between_the_last_step_and_the_end_it_measures_the_same(relaxation, splits, tmp_path):
    whole = Run(relaxation=relaxation).made(splits, tmp_path / "whole")
    expected = whole.search().candidate
    killed = Run(relaxation=relaxation).made(splits, tmp_path / "killed")
    killed.end = kill
    with pytest.raises(Killed):
        killed.search()
    resumed = Run(relaxation=relaxation).made(splits, tmp_path / "killed")
    assert resumed.search().candidate == expected
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_a_search_that_is_asked_to_stop_saves_and_goes_on_from_there(splits, tmp_path, said):
    expected = Run().made(splits, tmp_path / "whole").search().candidate
    asked = Run().made(splits, tmp_path / "asked")
    before_step(asked, 4, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Stopped) as stop:
        asked.search()
    assert stop.value.step == 5
    assert Run().made(splits, tmp_path / "asked").search().candidate == expected
    assert said.messages == ["resumed at step 5"]
    assert metrics(tmp_path / "asked") == metrics(tmp_path / "whole")


def test_a_search_that_had_restarted_goes_on_too(splits, tmp_path):
    def poisoned(path: Path) -> GradientSearch:
        search = Run().made(splits, path)
        before_step(search, 4, lambda: poison(search))
        return search

    whole = poisoned(tmp_path / "whole")
    expected = whole.search().candidate
    killed = poisoned(tmp_path / "killed")
    before_step(killed, 8, kill)
    with pytest.raises(Killed):
        killed.search()
    resumed = poisoned(tmp_path / "killed")
    assert resumed.search().candidate == expected
    assert resumed.guard.restarts == whole.guard.restarts == 1
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_a_finished_search_that_is_resumed_is_finished(splits, tmp_path):
    expected = Run().made(splits, tmp_path).search().candidate
    before = metrics(tmp_path)
    again = Run().made(splits, tmp_path)
    assert again.search().candidate == expected
    assert metrics(tmp_path) == before


# ---------------------------------------------------------------- what a user adds


class LowestLoss(Callback):
    """Remembers the lowest training loss since the weights began, and what alpha preferred after each epoch."""

    def __init__(self) -> None:
        self.lowest, self.preferred = math.inf, list[dict[str, str]]()

    def on_step(self, seen: SeenStep) -> None:
        self.lowest = min(self.lowest, seen.numbers["the training loss"])

    def on_epoch(self, step: int, epoch: int, preferred: Architecture) -> None:
        self.preferred.append(dict(preferred))

    def forget(self) -> None:
        self.lowest = math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"lowest": self.lowest, "preferred": self.preferred}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lowest, self.preferred = state["lowest"], state["preferred"]


def watched(splits: DataSplits, path: Path) -> tuple[GradientSearch, LowestLoss]:
    search = Run().made(splits, path)
    search.callbacks["lowest loss"] = mine = LowestLoss()
    return search, mine


def test_a_callback_sees_every_step_and_epoch_and_is_part_of_the_checkpoint(splits, tmp_path):
    search, mine = watched(splits, tmp_path / "whole")
    expected = search.search()
    losses = rows(tmp_path / "whole", "step/training_loss")
    assert mine.lowest == pytest.approx(min(loss for _, loss in losses))
    assert mine.preferred[-1] == dict(expected.candidate.architecture)
    assert len(mine.preferred) == 3

    killed, _ = watched(splits, tmp_path / "killed")
    before_step(killed, 7, kill)
    with pytest.raises(Killed):
        killed.search()
    resumed, again = watched(splits, tmp_path / "killed")
    resumed.search()
    assert again.state_dict() == mine.state_dict()
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_a_callback_forgets_the_step_for_which_the_weights_start_again(splits, tmp_path):
    search, mine = watched(splits, tmp_path)
    before_step(search, 5, lambda: poison(search))
    after: list[float] = []
    before_step(search, 6, lambda: after.append(mine.lowest))
    search.search()
    assert after == [math.inf]
    losses = [loss for step, loss in rows(tmp_path, "step/training_loss") if step > 6]
    assert mine.lowest == pytest.approx(min(losses))


# ---------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"epochs": 0}, "epochs=0 is not allowed: it must be at least 1."),
        ({"warmup_epochs": 4}, "warmup_epochs=4 is not allowed: it must be from 0 to epochs=3."),
        ({"warmup_epochs": -1}, "warmup_epochs=-1 is not allowed: it must be from 0 to epochs=3."),
        ({"hyperparameter_every": 0}, "hyperparameter_every=0 is not allowed: it must be at least 1."),
        ({"settled_epochs": 1}, "settled_epochs=1 is not allowed: it must be at least 2."),
        ({"settled_ratio": 1.0}, "settled_ratio=1.0 is not allowed: it must be above 1."),
        ({"checkpoint_every": 0}, "checkpoint_every=0 is not allowed: it must be at least 1."),
    ],
)
def test_impossible_settings_are_refused(setting, sentence, splits, tmp_path):
    with pytest.raises(InvalidValue) as error:
        Run(search=setting).made(splits, tmp_path)
    assert str(error.value) == sentence


def test_entropy_is_a_share_of_the_largest():
    assert normalised_entropy([0.25] * 4) == pytest.approx(1.0)
    assert normalised_entropy([1.0, 0.0, 0.0]) == 0.0
    assert normalised_entropy([1.0]) == 0.0
    assert normalised_entropy([0.5, 0.5, 0.0, 0.0]) == pytest.approx(0.5)
