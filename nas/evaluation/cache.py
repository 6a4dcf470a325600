"""Evaluations by candidate, kept in a file, so that none is made twice and none is lost when a run is killed."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from nas.candidate import Candidate
from nas.evaluation.evaluation import Evaluation


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
