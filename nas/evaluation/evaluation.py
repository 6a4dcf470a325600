"""What an evaluation has found out about a candidate, and what it has cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
