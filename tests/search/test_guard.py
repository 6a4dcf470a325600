"""The guard over the weights: when it restarts them, and when it gives up."""

import math
from typing import Any

import pytest

from nas.errors import InvalidValue, RunFailed
from nas.search.callback import SeenStep
from nas.search.guard import Guard, GuardSettings, Interventions, SearchDiverged

INITIAL = 2.3


def guard_of(**settings: object) -> Guard:
    guard = Guard(GuardSettings(**settings), lambda reason: guard.forget(), Interventions())
    guard.begin(INITIAL)
    return guard


def broken_step(number: int) -> SeenStep:
    nothing: Any = None
    numbers = {"the training loss": 2.0, "the validation loss": math.nan, "the gradient of the weights": 1.0}
    return SeenStep(number, 0, nothing, nothing, None, {}, numbers)


def first_complaint(guard: Guard, steps: list[tuple[float, float]]) -> tuple[int, str] | None:
    for number, (loss, norm) in enumerate(steps):
        reason = guard.complaint(loss, norm)
        if reason is not None:
            return number, reason[1]
    return None


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.3, math.nan), (2.3, math.inf)])
def test_what_is_not_finite_is_told_at_once(loss, norm):
    named = "the gradient of the weights" if math.isfinite(loss) else "the loss"
    assert first_complaint(guard_of(), [(2.3, 1.0), (loss, norm)]) == (1, f"{named} is not finite")


def test_a_loss_that_stays_above_the_jump_is_told():
    number, reason = first_complaint(guard_of(), [(2.3, 1.0)] + [(6.0, 5.0)] * 20)
    assert number == 5  # the moving average passes 4.6 when 0.8^n is below 1.4 / 3.7
    assert reason == "the loss rose to 4.79 from 2.3"


def test_it_is_the_measured_initial_loss_that_counts():
    guard = guard_of()
    guard.begin(9.0)
    assert first_complaint(guard, [(9.0, 1.0)] + [(17.0, 1.0)] * 50) is None
    assert first_complaint(guard, [(25.0, 1.0)] * 50) is not None


def test_a_single_bad_batch_is_no_reason():
    assert first_complaint(guard_of(), [(2.0, 1.0), (8.0, 9.0)] + [(2.0, 1.0)] * 20) is None


def test_vanished_gradients_are_told_after_patience_steps():
    steps = [(2.3, 1.0)] + [(2.3, 1e-9)] * 30
    assert first_complaint(guard_of(patience=7), steps) == (7, "the gradient has vanished")


def test_a_sign_of_life_starts_the_patience_anew():
    steps = [(2.3, 1.0)] + ([(2.3, 1e-9)] * 6 + [(2.3, 0.5)]) * 4
    assert first_complaint(guard_of(patience=7), steps) is None


def test_small_gradients_at_a_low_loss_are_success():
    steps = [(2.3 * 0.9**number, 0.8**number) for number in range(100)]
    assert steps[-1][1] < 1e-9
    assert first_complaint(guard_of(patience=3), steps) is None


def test_a_slow_start_at_a_tiny_learning_rate_is_no_reason():
    steps = [(2.3 - 1e-4 * number, 1.0 + 0.1 * (-1) ** number) for number in range(500)]
    assert first_complaint(guard_of(patience=3), steps) is None


def test_restarts_are_counted_until_there_are_too_many():
    reasons: list[str] = []
    guard = Guard(GuardSettings(restarts=2), reasons.append, Interventions())
    guard.on_step(broken_step(3))
    guard.on_step(broken_step(5))
    assert reasons == ["step 3: the loss is not finite", "step 5: the loss is not finite"]
    assert guard.restarts == 2
    with pytest.raises(SearchDiverged) as error:
        guard.on_step(broken_step(7))
    advice = "lower hyperparameters.learning_rate.initial."
    assert str(error.value) == f"step 7: the loss is not finite, after 2 restarts; {advice}"
    assert isinstance(error.value, RunFailed)
    assert guard.restarts == len(reasons) == 2
    assert guard.interventions.by_kind() == {"loss_not_finite": 3}


def test_where_nothing_can_start_again_the_first_complaint_ends_the_search():
    guard = Guard(GuardSettings(), None, Interventions())
    with pytest.raises(SearchDiverged, match=r"^step 3: the loss is not finite; lower .*initial or learn it\.$"):
        guard.on_step(broken_step(3))


def test_after_a_restart_it_judges_afresh_by_the_same_initial_loss():
    guard = guard_of(patience=3)
    first_complaint(guard, [(2.3, 1.0), (2.3, 1e-9), (2.3, 1e-9)] + [(4.5, 1.0)] * 30)
    guard.on_step(broken_step(33))
    assert guard.restarts == 1
    assert guard.complaint(2.3, 1e-6) is None  # the norm that later ones are compared with
    assert first_complaint(guard, [(2.3, 1e-6)] * 20) is None
    assert guard.initial_loss == INITIAL


@pytest.mark.parametrize("cut", range(10))
def test_the_state_goes_on_where_it_was(cut):
    steps = [(2.3, 1.0), (2.4, 1e-9), (2.4, 0.1)] + [(2.3, 1e-9)] * 20
    guard = guard_of(patience=7)
    assert first_complaint(guard, steps[:cut]) is None
    resumed = Guard(GuardSettings(patience=7), None, Interventions())
    resumed.load_state_dict(guard.state_dict())
    assert first_complaint(resumed, steps[cut:]) == first_complaint(guard, steps[cut:])


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"jump": 1.0}, "jump=1.0 is not allowed: it must be above 1."),
        ({"patience": 0}, "patience=0 is not allowed: it must be at least 1."),
        ({"divisor": 1.0}, "divisor=1.0 is not allowed: it must be above 1."),
        ({"restarts": -1}, "restarts=-1 is not allowed: it must be at least 0."),
    ],
)
def test_impossible_settings_are_refused(setting, sentence):
    with pytest.raises(InvalidValue) as error:
        GuardSettings(**setting)
    assert str(error.value) == sentence
