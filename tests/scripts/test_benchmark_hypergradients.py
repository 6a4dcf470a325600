"""Every hypergradient of the benchmark takes a step."""

import pytest

SMALL = ["experiment=debug", "training.batch_size=8"]


def test_a_step_of_every_hypergradient_is_timed(script) -> None:
    module = script("benchmark_hypergradients")
    for name, case in module.CASES.items():
        bench = module.Bench(case, SMALL)
        assert set(bench.problem.hyperparameters.learned()) == set(case.learned), name
        assert bench.ratio() > 0


def test_too_few_repeats_are_refused(script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark_hypergradients.py", "--repeats", "3"])
    with pytest.raises(SystemExit) as exit_:
        script("benchmark_hypergradients").main()
    assert exit_.value.code == 2
