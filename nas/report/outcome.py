"""The outcome of a search or of a retraining in words and as a drawing."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.candidate import Architecture
from nas.report.cell_drawing import draw_cells
from nas.report.cell_graph import captioned_cells
from nas.report.drawing import WIDTH, Block, draw_chain
from nas.run.candidate_file import CandidateFile
from nas.signature import Signature
from nas.spaces.space import SearchSpace
from nas.tasks import measures_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def architecture_in_words(found: CandidateFile) -> str:
    """``conv 5x5 32 relu - max pool 2x2 /2 - dense 256 relu``, without the layers that were left out."""
    layers = found.space.layer_descriptions(found.candidate.architecture)
    kept = " - ".join(f"{layer.label} {layer.detail}".strip() for layer in layers if layer.kind != "skip")
    return kept or "no hidden layer"


INPUTS = {0: "row", 1: "series", 2: "image"}
OUTPUTS = {  # by task
    "classification": ("class", "classes"),
    "multi_label": ("label", "labels"),
    "regression": ("target", "targets"),
    "dense_classification": ("class", "classes"),
    "dense_regression": ("target", "targets"),
    "language": ("token", "tokens"),
}


def architecture_figure(found: CandidateFile) -> "Figure":
    """The found architecture as a drawing with a title; see :func:`space_figure`."""
    return space_figure(
        found.space, found.candidate.architecture, f"Found on {found.data}", task_name=found.task["name"]
    )


def space_figure(
    space: SearchSpace,
    architecture: Architecture,
    title: str = "",
    width: float = WIDTH,
    task_name: str = "classification",
) -> "Figure":
    """Draw cells as graphs, any other architecture as a chain of layers from input to output, skipped layers dashed.

    Args:
        space: The architecture's space.
        architecture: The architecture to draw.
        title: The figure's title; may be empty.
        width: The largest width of a chain of layers in inches; a cell takes the width it needs.
        task_name: The name of the task, which says what comes out.
    """
    if cells := captioned_cells(space, architecture):
        return draw_cells(cells, title)
    signature = space.signature
    shape = " x ".join(map(str, signature.input_shape))
    kind = "text" if signature.is_tokens else INPUTS[signature.rank]
    places = f"{shape} tokens" if signature.is_tokens else f"{shape} columns"
    blocks = [Block("input", kind, shape if signature.rank else places)]
    blocks += [Block(*layer) for layer in space.layer_descriptions(architecture)]
    one, several = OUTPUTS.get(task_name, ("output", "outputs"))
    outputs = f"{signature.outputs} {one if signature.outputs == 1 else several}"
    blocks.append(Block("output", "classifier" if task_name == "classification" else "head", outputs))
    return draw_chain(blocks, title, width)


def samples_in_words(signature: Signature) -> str:
    """``images``, ``texts``, or ``pieces of 35 tokens``; of any others ``samples``."""
    if signature.is_tokens:
        return f"pieces of {signature.input_shape[0]} tokens" if signature.head == "sequence" else "texts"
    return "images" if signature.rank == 2 else "samples"


def hyperparameters_in_words(found: CandidateFile) -> str:
    """``learning_rate 0.0123, dropout 0.31 (not settled), ...``."""
    parts = []
    for name, value in found.candidate.hyperparameters.items():
        parts.append(f"{name} {value:.3g}" + ("" if found.settled.get(name, True) else " (not settled)"))
    return ", ".join(parts)


def search_outcome(found: CandidateFile, seconds: float) -> dict[str, str]:
    """The rows of the table at the end of a search."""
    settled = "" if found.settled.get("architecture", True) else " (not settled)"
    return {
        "data": found.data,
        "architecture": architecture_in_words(found) + settled,
        "hyperparameters": f"{hyperparameters_in_words(found)}, schedule {found.schedule}",
        "search time": f"{seconds:.0f} s",
    }


def final_outcome(found: CandidateFile, result: dict[str, Any], search_seconds: float | None) -> dict[str, str]:
    """The rows of the table at the end of a retraining."""
    used = ", ".join(f"{name} {value:.3g}" for name, value in result["hyperparameters"].items())
    return {
        "data": found.data,
        "architecture": architecture_in_words(found),
        "hyperparameters": f"{used}, schedule {result['schedule']}",
        "parameters": f"{result['parameters']:,}",
        "search time": "unknown" if search_seconds is None else f"{search_seconds:.0f} s",
        **{f"test {one.words}": one.told(result[f"test_{one.name}"]) for one in measures_of(result)},
        "test loss": f"{result['test_loss']:.4f}",
        **without_inputs(result),
    }


def without_inputs(result: Mapping[str, Any]) -> dict[str, str]:
    """What each measure is without looking at any input; empty where nobody asked."""
    trivial = result.get("trivial")
    if not isinstance(trivial, Mapping):
        return {}
    found = [(one, trivial.get(one.name)) for one in measures_of(result)]
    return {f"{one.words} without inputs": one.told(value) for one, value in found if isinstance(value, int | float)}


def recorded_seconds(folder: Path) -> float | None:
    """The seconds that the run in ``folder`` took by its ``timing.csv``, or None if the file does not say."""
    try:
        with open(folder / "timing.csv", encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("tag") == "time/total_seconds"]
        return float(rows[-1]["value"]) if rows else None
    except (OSError, ValueError):
        return None
