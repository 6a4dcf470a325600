"""The result of evaluating a candidate, its cost, and the file that keeps all results of a run.

The file is a cache: no candidate is evaluated twice, and none is lost when a run is killed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.candidate import Candidate
from nas.evaluation.network_cost import TRAINING_PASS


@dataclass(frozen=True)
class Cost:
    """What was spent; costs add up.

    Attributes:
        samples: Images that went through a network, forward and backward or only forward.
        multiply_adds: What all these passes cost; one forward and backward pass costs three forward passes
            (``nas.evaluation.network_cost``).
        evaluations: Candidates that were evaluated.
        seconds: Processing time, summed over parallel jobs.
    """

    samples: int = 0
    multiply_adds: float = 0.0
    evaluations: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.samples + other.samples,
            self.multiply_adds + other.multiply_adds,
            self.evaluations + other.evaluations,
            self.seconds + other.seconds,
        )

    @staticmethod
    def of_passes(per_image: float, trained: int, measured: int, evaluations: int = 0, seconds: float = 0.0) -> "Cost":
        """The cost of passes through a network.

        Args:
            per_image: Multiply-adds of one image's forward pass.
            trained: Images that go forward and backward.
            measured: Images that only go forward.
            evaluations: Candidates that are evaluated thereby.
            seconds: Processing time.
        """
        passes = TRAINING_PASS * trained + measured
        return Cost(trained + measured, per_image * passes, evaluations, seconds)


@dataclass(frozen=True)
class Evaluation:
    """A candidate's metrics by name, and their cost.

    Metrics are ``accuracy`` (0 to 1), ``loss`` (cross-entropy in nats), ``macro_f1``, ``macro_recall``, ``parameters``,
    ``multiply_adds`` (one forward pass of one image), ``latency`` (seconds) and whatever else an evaluator measures.
    ``fidelity`` is the share of the full training that was made; it is below 1 if a pruner ended the training early.
    """

    candidate: Candidate
    metrics: Mapping[str, float]
    cost: Cost = field(default_factory=Cost)

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON values, with the candidate's fingerprint."""
        return {
            "fingerprint": self.candidate.fingerprint(),
            "candidate": self.candidate.to_json(),
            "metrics": dict(self.metrics),
            "cost": vars(self.cost).copy(),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Evaluation":
        """The inverse of :meth:`to_json`."""
        metrics = {str(name): float(value) for name, value in content["metrics"].items()}
        return Evaluation(Candidate.from_json(content["candidate"]), metrics, Cost(**content["cost"]))


class EvaluationCache:
    """``evaluations.jsonl``: one evaluation per line, appended as it is made.

    Args:
        path: The file. Evaluations that it holds already are read; a last line that a kill has cut short is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Evaluation] = {}
        whole = 0
        if path.exists():
            with open(path, "rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    try:
                        evaluation = Evaluation.from_json(json.loads(line))
                    except (ValueError, KeyError, TypeError):
                        break
                    self._known[evaluation.candidate.fingerprint()] = evaluation
                    whole += len(line)
            with open(path, "r+b") as file:
                file.truncate(whole)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Evaluation]:
        """All evaluations, in the order in which they were made."""
        return iter(self._known.values())

    def get(self, candidate: Candidate) -> Evaluation | None:
        """The evaluation of ``candidate``, or None if there is none."""
        return self._known.get(candidate.fingerprint())

    def add(self, evaluations: Sequence[Evaluation]) -> None:
        """Append ``evaluations`` to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            for evaluation in evaluations:
                self._known[evaluation.candidate.fingerprint()] = evaluation
                file.write(json.dumps(evaluation.to_json()) + "\n")
