"""What is learned from the data: what the outputs mean, the loss, the measures, and which of them is the score."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.signature import Signature

Values = Mapping[str, Tensor | float]  # hyperparameters by name; a tensor is in the graph of what is learned
Reduction = Literal["mean", "none"]
NOTHING: Values = {}


class Measure(NamedTuple):
    """A number that tells how well a network does.

    Attributes:
        name: As in ``result.json`` behind ``test_``.
        better: Which numbers are good ones.
        words: How a sentence calls it.
        unit: ``%`` where it is a share that is told in percent; the unit of the numbers otherwise, which may be empty.
    """

    name: str
    better: Literal["higher", "lower"]
    words: str
    unit: str = ""

    @property
    def is_ratio(self) -> bool:
        """Whether it is 1 at best and told as it is, such as R²: beyond four decimals there is nothing to tell."""
        return self.better == "higher" and not self.unit

    def told(self, value: float) -> str:
        """``value`` as a sentence has it: four digits, or all before the point; tiny ones with a power of ten."""
        if self.unit == "%":
            return f"{100 * value:.2f} %"
        value = round(value, 4) + 0.0 if self.is_ratio and math.isfinite(value) else value  # -0.0 is told as 0
        return f"{value:{',.0f' if 1000 <= abs(value) < 1e15 else '.4g'}} {self.unit}".rstrip()


class Metrics(Protocol):
    """What is summed up over batches to compute a task's measures."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in a batch, on the device of the metrics."""

    def compute(self) -> dict[str, float]:
        """By measure its value over all batches."""


@runtime_checkable
class MetricsOfEach(Metrics, Protocol):
    """Metrics that also tell one output, such as a label, from the others."""

    def each(self) -> dict[Measure, list[float]]:
        """By measure its value for each output, NaN where it has none; empty where there is one output only."""


class Prediction(NamedTuple):
    """What is said of one target of a sample, as a file has it.

    Attributes:
        target: Its name.
        true, predicted: Classes by name, or numbers in their own units; ``true`` is empty where it is not known.
        probability: Of what is predicted: that of the class, or that the label is there; empty for numbers.
    """

    target: str
    true: str
    predicted: str
    probability: str = ""


def task_in_words(task: "Task", splits: DataSplits) -> str:
    """What is learned from how much, as a run's first lines say it."""
    return f"task: {task.words(splits)} ({task.training_in_words(splits)})"


def constant_outputs(output: Tensor, targets: Tensor) -> Tensor:
    """``output`` (K,) for each of ``targets`` (N, ...): (N, K), what is said without a look at any input."""
    return output.to(targets.device).expand(len(targets), -1)


class TaskChoice(Protocol):
    """What a configuration says of the task: a task without data, or a rule that chooses one."""

    def fitted(self, splits: DataSplits) -> tuple["Task", DataSplits]:
        """See :meth:`Task.fitted`."""


class Task(ABC):
    """What the outputs of a network mean.

    A configuration builds it without data; :meth:`fitted` makes the one that a run works with.

    Attributes:
        name: As in ``conf/task/<name>.yaml``.
        measures: The first is the main one.
        glanced: The name of what :meth:`glance` gives, as in the tags of ``metrics.csv``.
        signature: What goes into a network and what comes out, once fitted.
        ignorance: The loss of a network that knows nothing.
        output: What one of several outputs is called; ``class`` where they are the logits of classes.
    """

    name: ClassVar[str]
    glanced: ClassVar[str]
    output: ClassVar[str] = "target"
    measures: tuple[Measure, ...]
    signature: Signature

    @property
    @abstractmethod
    def ignorance(self) -> float: ...

    @property
    def glances_at_main(self) -> bool:
        """Whether :meth:`glance` gives the main measure itself."""
        return self.glanced == self.measures[0].name

    @abstractmethod
    def fitted(self, splits: DataSplits) -> tuple["Task", DataSplits]:
        """This task for the data ``splits``, and these with targets as the loss takes them.

        What is measured on targets, such as weights of classes, is measured on the training part.

        Raises:
            UnusableInput: The targets are not those of such a task.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, values: Values = NOTHING, reduction: Reduction = "mean") -> Tensor:
        """What training minimises, and the architecture on the validation split; differentiable twice.

        Args:
            outputs: (B, ...) of a network, float32 at least.
            targets: (B, ...).
            values: The hyperparameters that act in the loss, such as ``label_smoothing``, maybe in a graph.
            reduction: ``mean`` over the samples, 0-dim, or ``none``, (B,).
        """

    @abstractmethod
    def reported_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss without weights and smoothing, summed over the samples, 0-dim."""

    @abstractmethod
    def glance(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A measure of one batch, 0-dim, that is cheap enough to be recorded at every step."""

    @abstractmethod
    def metrics(self, device: torch.device) -> Metrics:
        """Fresh ones, on ``device``."""

    @abstractmethod
    def trivial(self, targets: Tensor) -> Tensor:
        """The outputs for ``targets`` (N, ...) of what knows the training targets and looks at no input."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Its name, settings, and what was measured on the training part."""

    @abstractmethod
    def words(self, splits: DataSplits) -> str:
        """What is learned, as the first line of a run tells it."""

    def training_in_words(self, splits: DataSplits) -> str:
        """How much there is to learn from."""
        return f"{len(splits.train):,} training samples"

    def predictions(self, outputs: Tensor, targets: Tensor, splits: DataSplits) -> list[list[Prediction]]:
        """By sample what ``outputs`` (B, ...) say of each of its targets (B, ...), be it known or not.

        Empty where nothing is told of single samples.

        Args:
            outputs: Of a network.
            targets: As the loss takes them.
            splits: The data, which have the names.
        """
        return []

    def read_targets(self, cells: Sequence[Sequence[Any]], names: Sequence[str]) -> Tensor:
        """Targets as the loss takes them, of what a file of new data has; what is none of them is not known.

        Nothing is known where a task does not say otherwise.

        Args:
            cells: Of each target N values, empty texts where there is none.
            names: What the outputs are called.
        """
        return torch.full((len(cells[0]), len(names)), math.nan)

    def places(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """What is true and what is said of the places of samples; None where a target is of no place.

        Each is (B, ...) int64 classes, ``UNKNOWN_CLASS`` where none is known, or (B, K, ...) float64 numbers in the
        targets' own units, NaN where none is known.

        Args:
            outputs: Of a network, for B samples.
            targets: As the loss takes them.
        """
        return None

    def target_scale(self) -> tuple[list[float], list[float]] | None:
        """Mean and deviation of each target, (K,), where the outputs are standardised targets; None elsewhere."""
        return None

    def output_names(self, splits: DataSplits) -> list[str]:
        """What the outputs are called in the data; numbers from 1 where they have no names there."""
        count = self.signature.outputs
        names = (splits.class_names if self.output == "class" else splits.target_names) or ()
        return [*names] or [f"{self.output} {number + 1}" if count > 1 else self.output for number in range(count)]

    def told(self, values: Mapping[str, float]) -> str:
        """The main measure in words."""
        main = self.measures[0]
        return f"{main.words} {main.told(values[main.name])}"

    def measured_without_inputs(self, targets: Tensor) -> dict[str, float]:
        """The measures of :meth:`trivial`, so that no number stands alone."""
        metrics = self.metrics(targets.device)
        metrics.update(self.trivial(targets), targets)
        return metrics.compute()

    def rate_factor(self, targets: Tensor) -> float:
        """What the learning rate of a step on ``targets`` is multiplied by."""
        return 1.0

    def count(self, targets: Tensor) -> int:
        """How many things :meth:`reported_loss` sums up."""
        return len(targets)

    def score(self, values: Mapping[str, float]) -> float:
        """What a search maximises, of order 1: the main measure, or minus it where lower is better."""
        main = self.measures[0]
        return values[main.name] if main.better == "higher" else -values[main.name]
