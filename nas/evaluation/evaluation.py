"""What an evaluation has found out about a candidate, and what it has cost."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.candidate import Candidate


@dataclass(frozen=True)
class Cost:
    """What was spent; costs add up.

    Attributes:
        samples: Images that went through a network, forward and backward or for a measurement.
        multiply_adds: Of all these passes; one forward and backward costs three forward passes
            (``nas.evaluation.network_cost``).
        evaluations: Candidates that were evaluated.
        seconds: Of processing, added up over parallel jobs.
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


@dataclass(frozen=True)
class Evaluation:
    """A candidate's metrics by name and their cost.

    Metrics are ``accuracy`` (0 to 1), ``loss`` (cross-entropy in nats), ``macro_f1``, ``macro_recall``, ``parameters``,
    ``multiply_adds`` (one forward pass of one image), ``latency`` (seconds) and whatever else an evaluator knows.
    ``fidelity`` is the share of the full evaluation that was made: below 1 where a pruner ended it early.
    """

    candidate: Candidate
    metrics: Mapping[str, float]
    cost: Cost = field(default_factory=Cost)

    def to_json(self) -> dict[str, Any]:
        """JSON values; the space's name stands beside the architecture."""
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
        path: The file; what it holds already is read. A last line that a kill has cut short is dropped.
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
        """In the order in which they were made."""
        return iter(self._known.values())

    def get(self, candidate: Candidate) -> Evaluation | None:
        return self._known.get(candidate.fingerprint())

    def add(self, evaluations: Sequence[Evaluation]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            for evaluation in evaluations:
                self._known[evaluation.candidate.fingerprint()] = evaluation
                file.write(json.dumps(evaluation.to_json()) + "\n")
