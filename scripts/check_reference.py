"""Replays files of reference numbers and says how far this package is off them.

    python scripts/check_reference.py FILE [FILE...]

A FILE is one of
- a search trajectory of quark0/darts (.npz with ``init/...``, batches and what the original computed from them),
- the evaluation logits of a stand-alone network, of quark0/darts or of NAS-Bench-201 (.npz with ``state/...``),
- a list of parameter counts, of published genotypes or of NAS-Bench-201 cells (.json).

Everything is computed in float64. The error of a quantity is the largest absolute difference over the largest absolute
value of the reference. Exit code: 0 if every error is within its tolerance, 1 if one is past it, 2 if a file cannot be
read or is of no known kind.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import InvalidValue, UnusableInput
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import LearningRate, WeightDecay
from nas.interop.original_state import load_original
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.report.tables import comparison_table, print_table
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.network import DartsNetwork
from nas.spaces.darts.space import Darts
from nas.spaces.darts.supernet import DartsSupernet
from nas.spaces.nasbench201.choices import parse_architecture
from nas.spaces.nasbench201.space import NasBench201

FORWARD = 1e-10  # logits and losses
FIRST_ORDER = 1e-9
SECOND_ORDER = 1e-6
WHOLE_STEPS = 1e-6
EQUAL = 0.0
COUNTED_NETWORK = re.compile(r"(cifar10|cifar100|imagenet)_C(\d{1,4})_L(\d{1,3})")
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
LARGEST_JSON = 10_000_000  # bytes
LARGEST_WIDTH, LARGEST_DEPTH, LARGEST_CLASSES, LARGEST_STEPS = 1024, 200, 100_000, 10_000


@dataclass(frozen=True)
class Comparison:
    """One quantity: its largest relative error and what it may be."""

    quantity: str
    error: float
    tolerance: float

    @property
    def reached(self) -> bool:
        return self.error <= self.tolerance


def compared(quantity: str, ours: Tensor, reference: Tensor, tolerance: float) -> Comparison:
    """The largest absolute difference over the largest absolute reference; infinite where a value is not finite."""
    if ours.shape != reference.shape:
        raise UnusableInput(f"{quantity} has shape {tuple(reference.shape)}, the replay gives {tuple(ours.shape)}.")
    ours, reference = ours.detach().double(), reference.double()
    difference, size = float((ours - reference).abs().max()), float(reference.abs().max())
    error = 0.0 if difference == 0 else difference / size if size > 0 else math.inf
    return Comparison(quantity, error if math.isfinite(error) else math.inf, tolerance)


def compared_equal(quantity: str, ours: object, reference: object) -> Comparison:
    return Comparison(quantity, 0.0 if ours == reference else math.inf, EQUAL)


class ArrayFile:
    """The entries of a .npz file, checked as they are asked for."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays

    def has(self, *names: str) -> bool:
        return all(name in self.arrays for name in names)

    def tensor(self, name: str, dimensions: int | None = None) -> Tensor:
        """Numbers, in float64 or int64, of the given rank."""
        array = self._entry(name)
        if array.dtype.kind not in "fiu" or array.size == 0:
            raise UnusableInput(f"its entry {name} holds no numbers.")
        if dimensions is not None and array.ndim != dimensions:
            raise UnusableInput(f"its entry {name} has {array.ndim} dimensions, not {dimensions}.")
        return torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else np.int64))

    def text(self, name: str) -> str:
        array = self._entry(name)
        if array.dtype.kind != "U" or array.ndim != 0:
            raise UnusableInput(f"its entry {name} is no text.")
        return str(array)

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            raise UnusableInput(f"its entry {name} is no JSON.") from error

    def state(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self.tensor(name) for name in self.arrays if name.startswith(prefix)}

    def _entry(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UnusableInput(f"it has no entry {name}.")
        return self.arrays[name]


class Configuration:
    """The constants a file was computed with, checked as they are asked for."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, Mapping):
            raise UnusableInput("its configuration is no object.")
        self.values = values

    def whole(self, name: str, largest: int) -> int:
        value = self.values.get(name)
        if type(value) is not int or not 0 < value <= largest:
            raise UnusableInput(
                f"its configuration has {name}={value!r} instead of a whole number from 1 to {largest}."
            )
        return value

    def number(self, name: str) -> float:
        return self._number(name, self.values.get(name))

    def shares(self, name: str, length: int) -> tuple[float, ...]:
        """Numbers from 0 to below 1."""
        values = self.numbers(name, length)
        if max(values) >= 1:
            raise UnusableInput(f"its configuration has {name}={list(values)} instead of numbers below 1.")
        return values

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        values = self.values.get(name)
        if not isinstance(values, list) or len(values) != length:
            raise UnusableInput(f"its configuration has {name}={values!r} instead of {length} numbers.")
        return tuple(self._number(name, value) for value in values)

    @staticmethod
    def _number(name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UnusableInput(f"its configuration has {name}={value!r} instead of a number of at least 0.")
        return float(value)


def parameters_of(make: Callable[[], nn.Module]) -> int:
    """How many parameters the network has that ``make`` builds; no memory is spent on them."""
    with torch.device("meta"):
        network = make()
    return sum(parameter.numel() for parameter in network.parameters())


def replay_darts_evaluation(file: ArrayFile) -> Iterator[Comparison]:
    """The logits of the stand-alone network of DARTS cells in evaluation mode."""
    configuration = Configuration(file.json("config"))
    state, images = file.state("state/"), file.tensor("x", dimensions=4)
    genotype = Genotype.from_mapping(file.json("genotype"))
    channels = configuration.whole("C", LARGEST_WIDTH)
    imagenet = "stem0.0.weight" in state
    network = DartsNetwork(
        genotype,
        in_channels=images.shape[1],
        channels=channels,
        cells=configuration.whole("layers", LARGEST_DEPTH),
        classes=configuration.whole("classes", LARGEST_CLASSES),
        kind="imagenet" if imagenet else "cifar",
        auxiliary=any(name.startswith("auxiliary_head.") for name in state),
    )
    load_original(network.double(), state)
    with torch.no_grad():
        logits = network.eval()(images.double())
    yield compared("eval_logits", logits, file.tensor("eval_logits"), FORWARD)


def replay_nasbench201_evaluation(file: ArrayFile) -> Iterator[Comparison]:
    """The logits of a NAS-Bench-201 network in evaluation mode."""
    configuration = Configuration(file.json("config"))
    images = file.tensor("x", dimensions=4)
    space = NasBench201(
        channels=configuration.whole("C", LARGEST_WIDTH),
        cells_per_stage=configuration.whole("N", LARGEST_DEPTH),
        input_shape=images.shape[1:],
        classes=configuration.whole("classes", LARGEST_CLASSES),
    )
    network = space.network(parse_architecture(file.text("arch"))).double()
    load_original(network, file.state("state/"))
    with torch.no_grad():
        logits = network.eval()(images.double())
    yield compared("eval_logits", logits, file.tensor("eval_logits"), FORWARD)


class SearchReplay:
    """A DARTS search, step by step as the original does it."""

    def __init__(self, file: ArrayFile) -> None:
        self.file = file
        self.configuration = Configuration(file.json("config"))
        self.steps = self.configuration.whole("search_steps", LARGEST_STEPS)
        self.images, self.labels = file.tensor("x", dimensions=5).double(), file.tensor("y", dimensions=2)
        if self.labels.shape != self.images.shape[:2] or len(self.images) < 2 * self.steps:
            raise UnusableInput(f"its x and y hold no two batches for each of {self.steps} steps.")
        classes = self.configuration.whole("classes", LARGEST_CLASSES)
        if self.labels.dtype != torch.int64 or not 0 <= int(self.labels.min()) <= int(self.labels.max()) < classes:
            raise UnusableInput(f"its y holds a label that is none of {classes} classes.")
        self.space = Darts(
            channels=self.configuration.whole("C", LARGEST_WIDTH),
            cells=self.configuration.whole("layers", LARGEST_DEPTH),
            steps=self.configuration.whole("steps", LARGEST_DEPTH),
            multiplier=self.configuration.whole("multiplier", LARGEST_DEPTH),
            stem_multiplier=self.configuration.whole("stem_multiplier", LARGEST_DEPTH),
            # The original's order of summation: the difference of a badly conditioned search magnifies any other.
            implementation="plain",
            input_shape=self.images.shape[2:],
            classes=classes,
        )

    def problem(self) -> BilevelProblem:
        """The search at its start."""
        number = self.configuration.number
        supernet = self.space.supernet(Softmax(Temperature())).double()
        initial = self.file.state("init/")
        initial |= {name: self.file.tensor(f"init/{name}", 2) for name in ("alphas_normal", "alphas_reduce")}
        load_original(supernet, initial)
        optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=number("lr"), momentum=number("momentum"))
        hyperparameters = HyperparameterSet(
            {
                "learning_rate": LearningRate(number("lr"), 0.0, 1.0, "linear", learn=False),
                "weight_decay": WeightDecay(number("weight_decay"), 0.0, 1.0, "linear", learn=False),
            }
        )
        return BilevelProblem(supernet, optimiser, hyperparameters, gradient_clip=number("grad_clip"))

    def batch(self, index: int) -> Batch:
        return Batch(self.images[index], self.labels[index])

    def compare(self) -> Iterator[Comparison]:
        """Every quantity in the file, the cheap ones first."""
        problem = self.problem()
        validation = self.batch(1)
        with torch.no_grad():
            loss, logits = problem.validation_loss(problem.weights(), validation)
        yield compared("first/val_logits", logits, self.file.tensor("first/val_logits"), FORWARD)
        yield compared("first/val_loss", loss, self.file.tensor("first/val_loss"), FORWARD)
        second_order = FiniteDifference(self.configuration.number("finite_difference_scale"))
        strategies: list[tuple[str, Hypergradient, float]] = [
            ("first", FirstOrder(), FIRST_ORDER),
            ("second", second_order, SECOND_ORDER),
        ]
        for order, strategy, tolerance in strategies:
            problem = self.problem()
            alpha = problem.supernet.alpha
            report = strategy.gradients(problem, self.batch(0), validation, list(alpha.values()))
            for name, gradient in zip(alpha, report.gradients, strict=True):
                entry = f"{order}/grad_alphas_{name}"
                yield compared(entry, gradient, self.file.tensor(entry), tolerance)
        for order, strategy, _ in strategies:
            yield from self._whole_steps(order, strategy)

    def _whole_steps(self, order: str, strategy: Hypergradient) -> Iterator[Comparison]:
        problem = self.problem()
        supernet = problem.supernet
        assert isinstance(supernet, DartsSupernet)
        first_beta, second_beta = self.configuration.shares("arch_betas", 2)
        architecture_optimiser = torch.optim.Adam(
            supernet.architecture_parameters(),
            lr=self.configuration.number("arch_lr"),
            betas=(first_beta, second_beta),
            weight_decay=self.configuration.number("arch_weight_decay"),
        )
        losses = []
        for step in range(self.steps):
            training, validation = self.batch(2 * step), self.batch(2 * step + 1)
            alphas = supernet.architecture_parameters()
            report = strategy.gradients(problem, training, validation, alphas)
            for alpha, gradient in zip(alphas, report.gradients, strict=True):
                alpha.grad = gradient
            architecture_optimiser.step()
            losses.append(problem.step(training).loss)
        found = {
            f"train_losses_{self.steps}_steps": torch.stack(losses),
            "alphas_normal_after": supernet.alpha["normal"],
            "alphas_reduce_after": supernet.alpha["reduce"],
            "stem_weight_after": supernet.get_parameter("stem.0.weight"),
            "classifier_weight_after": supernet.classifier.weight,
        }
        for name, tensor in found.items():
            yield compared(f"{order}/{name}", tensor, self.file.tensor(f"{order}/{name}"), WHOLE_STEPS)
        reference = Genotype.from_mapping(self.file.json(f"{order}/genotype_after"))
        try:
            ours = self.space.genotype(supernet.discretise())
        except FloatingPointError:  # an alpha that is not finite, already told as past its tolerance
            ours = None
        yield compared_equal(f"{order}/genotype_after", ours, reference)


def replay_search(file: ArrayFile) -> Iterator[Comparison]:
    """Forward pass, architecture gradients and whole search steps of DARTS, first and second order."""
    yield from SearchReplay(file).compare()


def replay_genotype_parameters(entries: Mapping[str, Any]) -> Iterator[Comparison]:
    """The parameter counts of published genotypes."""
    for name, entry in entries.items():
        if not isinstance(entry, Mapping):
            raise UnusableInput(f"its entry {name} is no object.")
        genotype = Genotype.from_mapping(entry.get("genotype"))
        for network, counts in entry.items():
            if network == "genotype":
                continue
            match = COUNTED_NETWORK.fullmatch(network)
            if match is None or not isinstance(counts, Mapping):
                raise UnusableInput(f"its entry {name}.{network} names no known network, cifar10_C36_L20 for example.")
            data, channels, cells = match[1], int(match[2]), int(match[3])
            if not (1 <= channels <= LARGEST_WIDTH and 1 <= cells <= LARGEST_DEPTH):
                raise UnusableInput(f"its entry {name}.{network} names a network of an impossible size.")
            for count, auxiliary in {"parameters_without_auxiliary": False, "parameters_total": True}.items():
                found = parameters_of(
                    lambda g=genotype, c=channels, n=cells, d=data, a=auxiliary: DartsNetwork(  # type: ignore[misc]
                        g,
                        in_channels=3,
                        channels=c,
                        cells=n,
                        classes=CLASSES[d],
                        kind="imagenet" if d == "imagenet" else "cifar",
                        auxiliary=a,
                    )
                )
                yield counted(f"{name}/{network}/{count}", found, counts.get(count))


def replay_nasbench201_parameters(entries: list[Any]) -> Iterator[Comparison]:
    """The parameter counts of NAS-Bench-201 cells."""
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise UnusableInput("one of its entries is no object.")
        values = Configuration(entry)
        architecture = parse_architecture(entry.get("arch"))
        space = NasBench201(
            channels=values.whole("channels", LARGEST_WIDTH),
            cells_per_stage=values.whole("cells_per_stage", LARGEST_DEPTH),
            input_shape=(3, 32, 32),
            classes=values.whole("classes", LARGEST_CLASSES),
        )
        found = parameters_of(lambda s=space, a=architecture: s.network(a))  # type: ignore[misc]
        yield counted(f"{entry['arch']}/parameters", found, entry.get("parameters"))


def counted(quantity: str, ours: int, reference: object) -> Comparison:
    if type(reference) is not int or reference <= 0:
        raise UnusableInput(f"{quantity} is {reference!r} instead of a whole number above 0.")
    return Comparison(quantity, abs(ours - reference) / reference, EQUAL)


def is_archive(path: Path) -> bool:
    """Whether ``path`` begins as a .npz file does; anything else can only be JSON."""
    with path.open("rb") as stream:
        return stream.read(2) == b"PK"


def read_arrays(path: Path) -> ArrayFile:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return ArrayFile({name: archive[name] for name in archive.files})
    except Exception as error:
        # numpy and zipfile raise many types for damaged archives: OSError, ValueError, BadZipFile, zlib.error, ...
        raise UnusableInput("it is not a readable .npz file without pickled objects.") from error


def read_json(path: Path) -> Any:
    if path.stat().st_size > LARGEST_JSON:
        raise UnusableInput(f"it is larger than {LARGEST_JSON} bytes.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnusableInput("it is neither a .npz file nor readable JSON.") from error


def replayed(path: Path) -> tuple[str, list[Comparison]]:
    """As :func:`replay`, with the errors of the operating system and of PyTorch as they come."""
    if not is_archive(path):
        content = read_json(path)
        if isinstance(content, dict):
            return "parameter counts of DARTS genotypes", list(replay_genotype_parameters(content))
        if isinstance(content, list):
            return "parameter counts of NAS-Bench-201 cells", list(replay_nasbench201_parameters(content))
        raise UnusableInput("it holds no parameter counts.")
    file = read_arrays(path)
    if file.has("init/alphas_normal"):
        return "search of DARTS cells", list(replay_search(file))
    if file.has("eval_logits", "genotype"):
        return "network of DARTS cells", list(replay_darts_evaluation(file))
    if file.has("eval_logits", "arch"):
        return "NAS-Bench-201 network", list(replay_nasbench201_evaluation(file))
    raise UnusableInput("it is no kind of reference file known here.")


def replay(path: Path) -> tuple[str, list[Comparison]]:
    """What ``path`` is, and how everything in it compares.

    Raises:
        UnusableInput: It cannot be read, or is nothing that can be replayed.
        InvalidValue: It describes an impossible network.
    """
    try:
        kind, comparisons = replayed(path)
        if not comparisons:
            raise UnusableInput("it holds nothing to compare.")
        return kind, comparisons
    except OSError as error:
        raise UnusableInput(f"it cannot be read ({error.strerror}).") from error
    except RuntimeError as error:
        # PyTorch's own complaint about shapes that do not fit each other, images that are too small for example.
        raise UnusableInput(f"its network cannot compute its images ({str(error).splitlines()[0]}).") from error


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    files: list[Path] = parser.parse_args(arguments).files
    unusable = past = quantities = 0
    for path in files:
        try:
            kind, comparisons = replay(path)
        except (UnusableInput, InvalidValue) as error:
            unusable += 1
            print(f"{path} cannot be replayed: {error}", file=sys.stderr)
            continue
        rows = [
            (
                comparison.quantity,
                f"{comparison.error:.1e}",
                f"{comparison.tolerance:.0e}" if comparison.tolerance else "equal",
                "ok" if comparison.reached else "past",
            )
            for comparison in comparisons
        ]
        quantities += len(rows)
        past += sum(not comparison.reached for comparison in comparisons)
        print_table(comparison_table(f"{path}: {kind}", ("quantity", "largest relative error", "tolerance", ""), rows))
    unread = f", {unusable} of {len(files)} files unusable" if unusable else ""
    print(f"{quantities - past} of {quantities} quantities within tolerance{unread}")
    return 2 if unusable else 1 if past else 0


if __name__ == "__main__":
    sys.exit(main())
