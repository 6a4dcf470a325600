"""What a run ran on: versions, machine, command, classes and task, in ``environment.json``, one entry per start."""

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from nas.data.class_names import require_same_classes
from nas.data.data_splits import DataSplits
from nas.distributed import current_ranks
from nas.errors import InvalidValue, require
from nas.operations.fast.library import lacking
from nas.run.checkpoint import make_folder, write_atomically
from nas.run.folder import RunFolder
from nas.tasks import RecordedTask, Task

log = logging.getLogger(__name__)
PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "torchmetrics", "matplotlib", "tensorboard")
CLASS_NAMES, DIGEST = "class_names", "data_sha256"  # entries of a run's first start


def environment(device: torch.device | str) -> dict[str, Any]:
    """The machine, the versions and the command of this process, as JSON values."""
    device = torch.device(device)
    return {
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": shlex.join(["python", *map(str, sys.argv)]),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
    }


def record_environment(
    folder: Path, device: torch.device | str, splits: DataSplits | None = None, task: Task | None = None
) -> None:
    """Append :func:`environment` to ``folder/environment.json``; a file that cannot be read is started afresh.

    Args:
        splits: The data of the run. A run that goes on needs classes of the same names as those it began with: its
            weights are for them. It needs the same data, too.
        task: What is learned of them: who reads the run's numbers finds there what they are.

    Raises:
        InvalidValue: The classes have other names, or the data have changed.
    """
    path = folder / "environment.json"
    starts, entry = _starts(path), environment(device)
    if splits is not None:
        goes_on = RunFolder(folder).holds_a_run()  # or it was killed before it began
        entry |= _of_data(splits, [one for one in starts if isinstance(one, dict)] if goes_on else [])
    if task is not None:
        entry["task"] = RecordedTask.of(task).to_json()
    make_folder(folder)
    write_atomically(path, (json.dumps([*starts, entry], indent=2) + "\n").encode())


def _starts(path: Path) -> list[Any]:
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return starts if isinstance(starts, list) else []


def _of_data(splits: DataSplits, recorded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Digest and class names of ``splits`` where no start has ``recorded`` any, after a look at those that one has."""
    began = next((one[CLASS_NAMES] for one in reversed(recorded) if isinstance(one.get(CLASS_NAMES), list)), None)
    digest = next((one[DIGEST] for one in reversed(recorded) if isinstance(one.get(DIGEST), str)), None)
    entry: dict[str, Any] = {}
    if began is not None:  # in front of the digest, which does not say what has changed
        way_out = "; a run that is resumed needs the classes that it began with"
        require_same_classes("data", splits.name, "the run", began, splits.class_names, way_out)
    if digest is not None:
        way_out = "its files have changed since the run began, and a run that is resumed needs the same"
        require(digest in splits.digests, "data", splits.name, way_out)
    elif splits.digest:
        entry[DIGEST] = splits.digest
    if splits.class_names is not None and began is None:
        entry[CLASS_NAMES] = list(splits.class_names)
    return entry


def log_missing_kernels(device: torch.device) -> None:
    """Log why the C++ kernels are missing, if they are: runs are several times slower without them.

    Raises:
        InvalidValue: ``NAS_KERNELS`` is neither on nor off.
    """
    if device.type == "cpu" and (reason := lacking()) is not None:
        log.info(f"without the C++ kernels, which make supernets several times as fast: {reason}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this repository, ``-dirty`` with uncommitted changes; None where it is no git checkout."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def checked_device(name: object) -> torch.device:
    """The device that ``name`` means: ``auto`` is the GPU where there is one; in a data-parallel run, one GPU each.

    Raises:
        InvalidValue: There is no such device here.
    """
    ranks = current_ranks()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.count > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', ranks.rank)}"
    allowed = "it must be auto, cpu, or cuda (cuda:1, ...) on a machine with that GPU"
    if not isinstance(name, str):
        raise InvalidValue("device", name, allowed)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidValue("device", name, allowed) from error
    here = device.type == "cpu" or (
        device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    )
    require(here, "device", name, allowed)
    return device
