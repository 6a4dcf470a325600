"""A run folder written by hand, so that every number on its page is known."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

CANDIDATE = {
    "schema": 1,
    "data": "digits",
    "space": {
        "name": "macro",
        "input_shape": [1, 8, 8],
        "classes": 10,
        "settings": {
            "layers": [
                {"type": "conv", "filters": [8, 16], "kernel_size": 3},
                {"type": "pool", "pool_size": 2, "kind": ["max", "average"]},
            ],
            "activations": ["relu"],
        },
    },
    "architecture": {"layer1.filters": "16", "layer2.kind": "max"},
    "hyperparameters": {"learning_rate": 0.05, "dropout": 0.2},
    "schedule": "cosine",
    "schedule_end": 0.0,
    "settled": {"architecture": True, "learning_rate": False},
}
# Per epoch of 10 steps: filters go to 16 in epoch 2 for good; kind is max, average for one epoch, max again.
PROBABILITIES = {
    "layer1.filters/8": [0.6, 0.4, 0.3, 0.2],
    "layer1.filters/16": [0.4, 0.6, 0.7, 0.8],
    "layer2.kind/max": [0.55, 0.52, 0.45, 0.9],
    "layer2.kind/average": [0.45, 0.48, 0.55, 0.1],
}
CONFIGURATION = {
    "seed": 7,
    "hyperparameters": {
        "learning_rate": {"initial": 0.01, "learn": True, "scale": "log"},
        "dropout": {"initial": 0.3, "learn": True, "scale": "logit"},
        "weight_decay": {"initial": 3.0e-4, "learn": False, "scale": "log"},
    },
}


def write_curves(path: Path, curves: Mapping[str, list[tuple[int, int, object]]]) -> None:
    """``curves``: tag to (step, epoch, value)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("step", "epoch", "tag", "value"))
        for tag, points in curves.items():
            rows.writerows((step, epoch, tag, value) for step, epoch, value in points)


def by_epoch(values: list[float]) -> list[tuple[int, int, object]]:
    return [(10 * (epoch + 1), epoch, value) for epoch, value in enumerate(values)]


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a finished search of four epochs, with other ``curves`` or another ``candidate`` if given."""

    def write(curves: Mapping[str, list[tuple[int, int, object]]] | None = None, candidate: object = CANDIDATE) -> Path:
        folder = tmp_path / "run"
        known = {
            "train/loss": by_epoch([2.0, 1.5, 1.0, 0.5]),
            "validation/loss": by_epoch([2.1, 1.4, 1.1, 0.7]),
            "train/accuracy": by_epoch([0.2, 0.5, 0.7, 0.9]),
            "validation/accuracy": by_epoch([0.3, 0.5, 0.8, 0.75]),
            "gradient/weights": by_epoch([1.0, 0.5, 0.2, 0.1]),
            "gradient/architecture": by_epoch([0.01, 0.02, 0.01, 0.005]),
            "hyperparameters/learning_rate": [(5, 0, 0.01), (15, 1, 0.02), (25, 2, 0.04), (35, 3, 0.05)],
            "hyperparameters/dropout": [(5, 0, 0.3), (15, 1, 0.25), (25, 2, 0.2), (35, 3, 0.2)],
            "hyperparameters/weight_decay": [(5, 0, 3e-4), (15, 1, 3e-4)],
            "guard/restarts": by_epoch([0, 1, 1, 1]),
            "guard/restart": [(13, 1, 1.0)],
            "budget/samples": by_epoch([1000, 2000, 3000, 4000]),
            "entropy/layer1.filters": by_epoch([0.97, 0.97, 0.88, 0.72]),
            "supernet/validation_accuracy": [(40, 3, 0.78)],
            "supernet/validation_loss": [(40, 3, 0.65)],
            **{f"probability/{tag}": by_epoch(values) for tag, values in PROBABILITIES.items()},
        }
        write_curves(folder / "metrics.csv", known if curves is None else curves)
        write_curves(folder / "timing.csv", {"time/total_seconds": by_epoch([30, 60, 90, 125])})
        (folder / "candidate.json").write_text(json.dumps(candidate))
        (folder / ".hydra").mkdir(exist_ok=True)
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION))
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["seed=7"]))
        return folder

    return write
