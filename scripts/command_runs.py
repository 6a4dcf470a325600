"""Runs of the two commands a user has, train_search.py and train_final.py, and the rows of a table made of them.

What is there already is not run again, and what was begun is resumed.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from nas.candidate import Candidate
from nas.report.tables import mean_and_deviation
from nas.run.candidate_file import read_candidate_file

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("", "runs", "test accuracy %", "worst", "parameters", "samples per search", "seconds")


@dataclass
class CommandRuns:
    """Where the runs are, what is set for all of them, and which of them failed."""

    folder: Path
    overrides: list[str]
    failures: list[str] = field(default_factory=list)

    def _command(self, script: str, arguments: list[str], folder: Path) -> None:
        """Run an entry point on one thread, its output into a log beside its run folder."""
        log = folder.parent / f"{folder.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as output:
            command = [sys.executable, str(ROOT / script), *arguments]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            code = subprocess.run(command, stdout=output, stderr=output, env=environment, check=False).returncode
        if code != 0:
            self.failures.append(f"{script} {' '.join(arguments)} ended with {code}: see {log}")

    def search(self, name: str, seed: int, settings: Sequence[str] = ()) -> Path:
        """A search into the run folder of that ``name`` and ``seed``, or what is left of it to do."""
        folder = self.folder / f"{name.replace(',', '').replace(' ', '_')}-{seed}"
        if not (folder / "candidate.json").exists():
            start = [*settings, *self.overrides, f"seed={seed}", f"hydra.run.dir={folder}"]
            begun = (folder / "checkpoints").exists()
            self._command("train_search.py", [f"resume={folder}"] if begun else start, folder)
        return folder

    def retrain(self, candidate: Path | None, folder: Path, seed: int) -> dict[str, Any] | None:
        """The result of retraining ``candidate``, a run folder or a file, into ``folder``; None where it failed."""
        if candidate is None:
            return None
        result = folder / "result.json"
        if not result.exists():
            start = [f"candidate={candidate}", *self.overrides, f"seed={seed}", f"hydra.run.dir={folder}"]
            arguments = [f"resume={folder}"] if (folder / "checkpoints").exists() else start
            self._command("train_final.py", arguments, folder)
        return json.loads(result.read_text()) if result.exists() else None

    def random_candidate(self, search: Path, seed: int, index: int) -> Path | None:
        """The file of a random architecture of the space, number ``index``; None where ``search`` has failed.

        It has the hyperparameters that ``search``, the one with this ``seed``, ended in.
        """
        if not (search / "candidate.json").exists():
            return None
        found = read_candidate_file(search / "candidate.json")
        generator = torch.Generator().manual_seed(1_000_003 * seed + index)
        architecture = found.space.sample(generator).architecture
        path = self.folder / f"random-{index}" / "candidate.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(found, candidate=Candidate(architecture, found.candidate.hyperparameters), settled={}).write(path)
        return path


def recorded_values(path: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of ``tag`` in a run's CSV file; empty where there is no file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [(int(row["step"]), float(row["value"])) for row in csv.DictReader(file) if row["tag"] == tag]


def last_value(path: Path, tag: str) -> float | None:
    """The last value of ``tag`` in a run's CSV file."""
    values = recorded_values(path, tag)
    return values[-1][1] if values else None


@dataclass(frozen=True)
class Row:
    """One line of the table: per run its test accuracy in per cent, parameters and what its search has spent."""

    accuracies: list[float]
    parameters: list[float]
    search_samples: list[float]
    search_seconds: list[float]

    @classmethod
    def of(cls, results: Sequence[dict[str, Any] | None], searches: Sequence[Path]) -> "Row":
        """What ``results`` and the run folders of their ``searches`` say; a failed run is left out."""
        good = [result for result in results if result is not None]
        samples = [last_value(folder / "metrics.csv", "budget/samples") for folder in searches]
        seconds = [last_value(folder / "timing.csv", "time/total_seconds") for folder in searches]
        return cls(
            [100 * result["test_accuracy"] for result in good],
            [result["parameters"] for result in good],
            [value for value in samples if value is not None],
            [value for value in seconds if value is not None],
        )

    def cells(self, name: str) -> tuple[str, ...]:
        """Its texts for :data:`COLUMNS`; there must be a result."""
        return (
            name,
            str(len(self.accuracies)),
            mean_and_deviation(self.accuracies, 2),
            f"{min(self.accuracies):.2f}",
            f"{statistics.fmean(self.parameters):,.0f}",
            f"{statistics.fmean(self.search_samples):,.0f}" if self.search_samples else "-",
            f"{statistics.fmean(self.search_seconds):.0f}" if self.search_seconds else "-",
        )


def conclusion(what: str, targets: Mapping[str, bool], failures: Sequence[str]) -> int:
    """Print which targets are reached, which runs failed, and a last line about both; returns the exit code."""
    for sentence, reached in targets.items():
        print(f"{'reached' if reached else 'MISSED '}  {sentence}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    print(f"{what}: {sum(targets.values())} of {len(targets)} targets reached, {len(failures)} runs failed")
    return 0 if all(targets.values()) and not failures else 1


def parsed_arguments(description: str | None, seeds: Sequence[int], folder: str) -> argparse.Namespace:
    """The command line of a script that runs them: ``seeds``, ``folder``, ``jobs`` and ``overrides``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--folder", type=Path, default=Path(folder), help="where the runs go, or are")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("overrides", nargs="*", help="settings for every run, such as search.epochs=2")
    given = parser.parse_args()
    given.seeds = list(dict.fromkeys(given.seeds))
    if min(given.seeds) < 0 or given.jobs < 1:
        parser.error("--seeds must be at least 0 and --jobs at least 1")
    return given
