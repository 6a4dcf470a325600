"""Every method's regret in a joint space whose truth is known.

    python scripts/benchmark_truth.py --truth truth_mnist --methods joint fixed random tpe random_short tpe_short \
        --budgets samples=1.25 multiply_adds=6,20 seconds=4 --seeds 10..29 --jobs 2

A truth is a file that ``make_truth.py`` wrote, or the name of one in ``scripts/truth``. The methods run live on the
problem that it is of: full trainings, short ones (two epochs, under their own schedule), and gradient searches, each
with the prior knowledge that ``truth_runs.py`` describes. Budgets are in mean trainings of the truth. What a search
found is trained three times from fresh seeds, exactly as the truth's rows, and is worth the mean of these.

Printed per budget: test accuracy and loss (mean ± std, worst), the percentile among the random candidates, the regret
against the best that is known, how many full trainings random search needs for the same, what was spent, and paired
permutation tests against ``--ours``, Holm-corrected, with what this number of seeds can tell apart. ``--diagnose`` adds
where the gradient searches lose it (``truth_diagnosis.py``). Tables, results (CSV) and anytime curves (CSV, PNG) go to
--folder. Further gradient searches are named by ``--variant name=override,override``; other arguments are settings of
the problem, needed where the truth's name is not that of an experiment.

Runs are kept below --folder and are not made again; ``--known`` reports on those that are there. Exit code 0 where ours
has the highest mean accuracy at every budget and is significantly ahead of random search with full trainings, 1 where
not, 2 for bad input, 75 where it was stopped: the same command goes on.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cached_runs import CachedRuns
from make_truth import QUIET, problem_of, typed_configuration
from truth_diagnosis import diagnose
from truth_instrument import Budget, Instrument
from truth_report import Found, Report, anytime, last_line, print_report
from truth_runs import BLACK_BOXES, COLUMNS, GRADIENTS, PRIORS, arms_of

from nas.errors import InvalidValue, UnusableInput, require
from nas.evaluation.surrogate import Surrogate
from nas.evaluation.truth import Truth, read_truth
from nas.run.entry_point import BAD_INPUT, FAILED
from nas.stopping import STOPPED, Stopped

ROOT = Path(__file__).resolve().parent.parent


def parsed_budgets(texts: Sequence[str]) -> list[Budget]:
    """``samples=1.25 multiply_adds=6,20`` as budgets.

    Raises:
        InvalidValue: A text is none.
    """
    found = []
    for text in texts:
        unit, _, numbers = text.partition("=")
        allowed = f"it must be {', '.join(COLUMNS)}, = and numbers of trainings, such as multiply_adds=6,20"
        good = unit in COLUMNS and re.fullmatch(r"\d+(\.\d+)?(,\d+(\.\d+)?)*", numbers) is not None
        require(good, "--budgets", text, allowed)
        for number in numbers.split(","):
            require(float(number) > 0, "--budgets", text, allowed)
            found.append(Budget(unit, float(number)))  # type: ignore[arg-type]
    return list(dict.fromkeys(found))


def parsed_seeds(texts: Sequence[str]) -> list[int]:
    """``10..29 40`` as numbers.

    Raises:
        InvalidValue: A text is none.
    """
    found: list[int] = []
    for text in texts:
        span = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", text)
        good = span is not None and int(span[1]) <= int(span[2] or span[1])
        require(good, "--seeds", text, "it must be a whole number, or two of them such as 10..29")
        assert span is not None
        found += range(int(span[1]), int(span[2] or span[1]) + 1)
    return list(dict.fromkeys(found))


def parsed_variants(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``name=override,override`` as gradient searches by name; a comma inside of brackets separates nothing."""
    found = {}
    for text in texts:
        name, _, overrides = text.partition("=")
        allowed = "it must be name=override,override with a name of its own, such as slow=search.epochs=20"
        require(bool(name and overrides) and name not in {**BLACK_BOXES, **GRADIENTS}, "--variant", text, allowed)
        found[name] = tuple(_split(overrides))
    return found


def _split(overrides: str) -> list[str]:
    depth, parts = 0, [""]
    for letter in overrides:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def located(text: str) -> Path:
    """The file of a truth that is named by its path or by its name in ``scripts/truth``."""
    kept = ROOT / "scripts" / "truth" / f"{text}.csv.gz"
    return kept if kept.is_file() else Path(text)


def problem_overrides(truth: Truth, path: Path, given: Sequence[str]) -> tuple[str, ...]:
    """The settings under which the truth's configuration comes out again.

    Raises:
        InvalidValue: They give another one; the first setting that differs is named.
    """
    experiment = path.name.split(".")[0]
    named = (ROOT / "conf" / "experiment" / f"{experiment}.yaml").is_file() and not any(
        one.startswith("experiment=") for one in given
    )
    overrides = (*((f"experiment={experiment}",) if named else ()), *given, *QUIET)
    here = json.loads(json.dumps(problem_of(typed_configuration(overrides)).configuration))
    starts = {f"hyperparameters.{name}.initial" for name in truth.space.ranges}  # a candidate has its own values
    for key, (theirs, ours) in differences(truth.configuration, here).items():
        allowed = f"the truth {path} was made with {key}={theirs}; give the settings it was made with"
        require(key in starts, key, ours, allowed)
    return overrides


def differences(one: Any, other: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """The leaves in which ``other`` differs from ``one``, but for the seed and for how hyperparameters are learned.

    What ``one`` does not have came later than it, with a default that leaves everything as it was.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for name, value in one.items():
            found |= differences(value, other.get(name), f"{key}.{name}" if key else name)
        return found
    learning = re.fullmatch(
        r"seed|hyperparameters\.gradient.*|hyperparameters\.\w+\.(learn|update|trust_region|basis|by)\b.*", key
    )
    return {} if one == other or learning else {key: (one, other)}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", required=True, help="a file of make_truth.py, or the name of one in scripts/truth")
    arms = f"{', '.join([*GRADIENTS, *BLACK_BOXES])}; with every prior, or with one: METHOD@PRIOR"
    parser.add_argument("--methods", nargs="+", default=["joint", *BLACK_BOXES], metavar="METHOD", help=arms)
    parser.add_argument("--priors", nargs="+", default=list(PRIORS), choices=PRIORS)
    parser.add_argument("--variant", action="append", default=[], help="name=override,override: a gradient search")
    parser.add_argument("--ours", default="joint", metavar="METHOD", help="which is tested against all others")
    parser.add_argument("--budgets", nargs="+", default=["samples=1.25", "multiply_adds=6,20", "seconds=4"])
    parser.add_argument("--seeds", nargs="+", default=["10..29"])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--folder", type=Path, help="where runs are kept and results go")
    parser.add_argument("--known", action="store_true", help="report on the runs that are there, make none")
    parser.add_argument("--diagnose", action="store_true", help="where the gradient searches lose it")
    parser.add_argument("overrides", nargs="*", help="settings of the problem")
    parsed, more = parser.parse_known_intermixed_args(arguments)
    if more:
        parser.error(f"there is no {more[0]}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    try:
        variants = parsed_variants(asked.variant)
        arms = arms_of([*asked.methods, *variants], asked.priors)
        known = {**GRADIENTS, **BLACK_BOXES, **variants}
        for name in asked.methods:
            method, _, prior = name.partition("@")
            allowed = f"it must be one of {', '.join(known)}, or one of them with a prior, such as joint@wide"
            require(method in known and prior in ("", *PRIORS), "--methods", name, allowed)
        present = list(dict.fromkeys(arm.method for arm in arms))
        require(asked.ours in present, "--ours", asked.ours, f"it must be one of {', '.join(present)}")
        require(asked.jobs >= 1, "--jobs", asked.jobs, "it must be at least 1")
        budgets, seeds = parsed_budgets(asked.budgets), parsed_seeds(asked.seeds)
        path = located(asked.truth)
        truth = read_truth(path)
        overrides = problem_overrides(truth, path, asked.overrides)
    except (InvalidValue, UnusableInput) as error:
        print(f"benchmark_truth.py: {error}", file=sys.stderr)
        return BAD_INPUT
    name = path.name.split(".")[0]
    folder = asked.folder or Path("runs") / "benchmark_truth" / name
    runs = CachedRuns(folder / "kept", asked.jobs)
    instrument = Instrument(truth, overrides, runs, asked.known, variants)
    try:
        surrogate = Surrogate(truth)
        found: list[Found] = []
        for seed in seeds:  # by seed, so that an early end is a fair one
            found += instrument.found(arms, budgets, seed)
        if not found:
            print("benchmark_truth.py: there is no run to report on", file=sys.stderr)
            return BAD_INPUT
        best = instrument.best_known(found, surrogate)
        ours = next((arm for arm in arms if arm.method == asked.ours), arms[0])
        report = Report(truth, found, ours, best)
        reached = print_report(report, name, [str(one) for one in budgets], surrogate, folder)
        curves = {
            (arm, seed): instrument.evaluations(arm, budgets, seed) for arm in arms for seed in seeds if arm.is_cut
        }
        anytime(folder, truth, surrogate, curves, found, max(one.trainings for one in budgets))
        if asked.diagnose:
            diagnose(instrument, surrogate, [arm for arm in arms if arm.is_gradient], budgets, seeds)
    except (KeyboardInterrupt, Stopped):
        print("benchmark_truth.py: stopped; started again, it goes on where it was", file=sys.stderr)
        return STOPPED
    print(last_line(report, name, reached, folder))
    return 0 if reached else FAILED


if __name__ == "__main__":
    sys.exit(main())
