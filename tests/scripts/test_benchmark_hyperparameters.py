"""The benchmark of learned hyperparameters: its statistics, its kept results, and one small run of everything."""

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TINY = ("experiment=few_images", "data.split={train:32,validation:64,test:64}", "search.epochs=1", "final.epochs=1")
ONE_LAYER = ("space.layers=[{type:conv,filters:2,kernel_size:3,stride:2}]", "space.activations=[relu]")
PLAIN = (*TINY, *ONE_LAYER, "search.warmup_epochs=0", "hypergradient=none", "hyperparameters=fixed")


@pytest.fixture
def script(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmark_hyperparameters")


def test_paired_differences_against_all_sign_flips(script: ModuleType) -> None:
    ours, theirs = [0.91, 0.92, 0.93, 0.94, 0.95, 0.96], [0.90] * 6
    result = script.paired(ours, theirs)
    assert result.mean == pytest.approx(3.5)
    assert result.p == pytest.approx(2 / 2**6)  # only all signs as they are, or all flipped, are as extreme
    assert 2 < result.low < 3 < 4 < result.high < 5
    assert result.won
    assert not script.paired(theirs, ours).won


def test_one_enormous_difference_is_no_win(script: ModuleType) -> None:
    many = [0.9 + 0.001 * number for number in range(10)]
    result = script.paired([0.9, *many[1:]], [0.1, *many[1:]])
    assert result.mean == pytest.approx(8.0)
    assert not result.won


def test_equal_pairs_show_no_difference(script: ModuleType) -> None:
    same = script.paired([0.9, 0.8], [0.9, 0.8])
    assert (same.mean, same.p, same.won) == (0.0, 1.0, False)
    with pytest.raises(ValueError, match="two pairs"):
        script.paired([0.9], [0.8])


def test_percentile_counts_ties_half(script: ModuleType) -> None:
    assert script.percentile(3, [1, 2, 3, 4]) == 62.5
    assert script.percentile(5, [1, 2]) == 100


def test_ratio_of_a_failed_run_is_infinite(script: ModuleType) -> None:
    assert script.ratio(0.3, 0.2) == pytest.approx(1.5)
    assert script.ratio(math.inf, 0.2) == math.inf
    assert script.ratio(math.nan, 0.2) == math.inf


def test_a_failed_training_counts_as_guessing(script: ModuleType) -> None:
    good = [script.Outcome(validation_loss=loss, test_accuracy=0.9) for loss in (0.1, 0.3)]
    median = script.Retrained.of([*good, script.Outcome(failure="diverged")])
    assert (median.validation_loss, median.test_accuracy) == (0.3, 0.9)
    assert script.Retrained.of([script.Outcome(failure="diverged")]).test_accuracy == script.CHANCE


def test_finalists_are_the_lowest_losses(script: ModuleType) -> None:
    cells = {(rate, 0.0): script.Outcome(validation_loss=loss) for rate, loss in ((1, 0.5), (2, 0.2), (3, math.inf))}
    assert script.finalists(cells, 2) == [(2, 0.0), (1, 0.0)]


def test_targets_are_told_one_by_one(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    targets = script.Targets()
    targets.check(True, "one")
    targets.check(False, "two")
    assert capsys.readouterr().out == "reached  one\nMISSED   two\n"
    assert (targets.reached, len(targets.lines)) == (1, 2)


def test_results_are_kept_by_settings_and_seed(script: ModuleType, tmp_path: Path) -> None:
    runs = script.CachedRuns(tmp_path, jobs=1)
    (search,) = runs.outcomes([script.Search(PLAIN, 0)], "search")
    text = script.candidate_text(search.candidate, learning_rate=0.02)
    first, again = runs.outcomes([script.Training(text, PLAIN, 1), script.Training(text, PLAIN, 1)], "training")
    assert first == again
    assert runs.computed == 2
    assert script.CachedRuns(tmp_path, jobs=1).outcomes([script.Training(text, PLAIN, 1)], "training") == [first]
    (other,) = runs.outcomes([script.Training(text, (*PLAIN, "training.batch_size=16"), 1)], "training")
    assert runs.computed == 3
    assert other.validation_loss != first.validation_loss
    assert first.samples == 32 + 64


def test_a_run_that_diverges_is_a_result(script: ModuleType, tmp_path: Path) -> None:
    runs = script.CachedRuns(tmp_path, jobs=1)
    hopeless = (*PLAIN, "hyperparameters.learning_rate.initial=1e30", "search.epochs=20", "training.gradient_clip=null")
    (outcome,) = runs.outcomes([script.Search(hopeless, 0)], "search")
    assert outcome.failure
    assert outcome.validation_loss == math.inf
    assert not outcome.candidate


@pytest.mark.slow
def test_everything_once(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CNN_RATES", "RATES"):
        monkeypatch.setattr(script, name, (0.01, 0.1))
    for name in ("CNN_DROPOUTS", "DROPOUTS"):
        monkeypatch.setattr(script, name, (0.0, 0.5))
    scale = script.Scale((0.01,), (0.5,), ((0.01, 0.05), (0.5, 0.8)), [0], [0], [(0.01, 0.0), (0.1, 0.0)], 2, 1)
    overrides = [*TINY[1:], "search.warmup_epochs=0"]
    benchmark = script.Benchmark(script.CachedRuns(tmp_path, jobs=1), scale, overrides)
    benchmark.run()
    printed = capsys.readouterr().out
    assert len(benchmark.targets.lines) == 10
    for line in ("Noise floor", "learning rate alone", "dropout alone", "benefit over fixed", "percentile", "The bill"):
        assert line in printed
    computed = benchmark.runs.computed
    benchmark.run()
    assert benchmark.runs.computed == computed  # everything was kept
