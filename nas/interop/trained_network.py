"""A trained network as data: ``network.json`` beside ``weights.pt`` has what ``network.py`` has as a program."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from nas.data.data_splits import DataSplits
from nas.errors import InvalidValue, UnusableInput
from nas.interop.original_state import load_weights
from nas.run.candidate_file import CandidateFile, fingerprint, parse_candidate
from nas.run.checkpoint import write_atomically
from nas.tasks import Task

FILE, WEIGHTS = "network.json", "weights.pt"
LARGEST_FILE = 10_000_000  # bytes


@dataclass(frozen=True)
class TrainedNetwork:
    """What is known of the data that a network was trained on, and what it is.

    Attributes:
        found: Its candidate, with the preparation, the task and the classes of these data.
        mean, std: The numbers per channel that normalise prepared inputs.
        target_names: What is said of each sample, where the data have names.
    """

    found: CandidateFile
    mean: tuple[float, ...]
    std: tuple[float, ...]
    target_names: tuple[str, ...]

    @classmethod
    def of(cls, found: CandidateFile, splits: DataSplits, task: Task) -> "TrainedNetwork":
        """The network of the candidate ``found``, trained on ``splits``: the search may have had other data."""
        own: dict[str, Any] = {"data": splits.name, "digest": splits.digest, "class_names": splits.class_names}
        own |= {"preparation": splits.preparation, "task": task.to_json(), "trajectory": {}}
        return cls(replace(found, **own), splits.mean, splits.std, splits.target_names)

    def write(self, folder: Path) -> None:
        """Write it into ``folder``, where ``weights.pt`` is."""
        numbers = {"mean": list(self.mean), "std": list(self.std), "target_names": list(self.target_names)}
        content = {"candidate": self.found.to_json(), **numbers}
        text = json.dumps({**content, "fingerprint": fingerprint(content)}, indent=2, allow_nan=False)
        write_atomically(folder / FILE, (text + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> "TrainedNetwork":
        """The inverse of :meth:`write`; nothing in the file is executed.

        Raises:
            UnusableInput: The file cannot be read, or was changed.
        """
        path = folder / FILE
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise UnusableInput(f"{path} is larger than {LARGEST_FILE:,} bytes.")
            content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found = {name: content[name] for name in ("candidate", "mean", "std", "target_names")}
            if fingerprint(found) != content["fingerprint"]:
                raise UnusableInput(f"{path} has been changed since it was written.")
            candidate = parse_candidate(found.pop("candidate"))
        except OSError as error:
            raise UnusableInput(f"{path} cannot be read: {error.strerror}.") from error
        except InvalidValue as error:
            raise UnusableInput(f"{path} cannot be used: {error}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnusableInput(f"{path} is no description of a trained network.") from error
        return cls(candidate, *(tuple(values) for values in found.values()))

    def network(self, folder: Path) -> nn.Module:
        """The network with the weights in ``folder``.

        Raises:
            UnusableInput: They cannot be read, or do not fit.
        """
        network = self.found.space.network(self.found.candidate.architecture)
        try:
            load_weights(network, folder / WEIGHTS, self.found.class_names)
        except InvalidValue as error:
            raise UnusableInput(f"{folder / WEIGHTS} cannot be used: {error.allowed}.") from error
        return network
