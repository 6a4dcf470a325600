"""Continuous hyperparameters that the hypergradient learns: each a raw parameter with a bijection into its range.

The weight step sees the value; the update rule sees the raw parameter. A class says how its value acts: on the weight
update (learning rate, weight decay, momentum) or through the training loss (dropout, label smoothing, cutout, ...), and
under which names the training loop knows it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from nas.candidate import Range, Scale
from nas.errors import require
from nas.hyperparameters.mixture import check_basis, maximum_entropy_logits, mean_place
from nas.hyperparameters.rules import CosineNormalised, Update
from nas.operations.memory import ACTIVATION_PENALTY, TEMPORAL_PENALTY, Remembers
from nas.operations.stochastic import (
    LAYER_DROPOUT,
    Dropout,
    DropPath,
    layer_dropouts,
    set_drop_path,
    set_dropout,
    set_layer_dropout,
)

# What a hypergradient may be asked for: alpha, or a hyperparameter by where it acts, see Hyperparameter.kind.
Kind = Literal["architecture", "loss", "decay", "update"]
LOGIT_BOUND = 7.0  # keeps sigmoid(raw) off 0 and 1 by 1e-3, where its gradient would vanish
LOGIT_MARGIN = 1 / (1 + math.exp(LOGIT_BOUND))


@dataclass(frozen=True)
class Hyperparameter:
    """One entry of ``conf/hyperparameters``.

    Args:
        initial: The value at the start, and for good where it is not learned.
        low, high, scale: Its range while it is learned, and the measure in which it moves.
        learn: Whether the hypergradient moves it.
        update: The rule that moves the raw parameter.
        cap: The largest value a candidate may carry; the search itself may go up to ``high``.
        trust_region: The most that one step may change the raw parameter: the logarithm of a value on a log scale, the
            logit of its place on a logit scale, the value itself on a linear one. None: as its update rule has it.
        rises: Whether a fixed value that acts through the loss goes up to ``initial`` from 0 in a straight line over
            the search.
        by: What learns it. ``trainings`` leaves it at ``initial`` in a gradient search, and to what trains candidates:
            black-box methods, ``method=coarse_to_fine`` and ``method=cross_validated``.
        basis: The value is a mixture of so many, evenly spaced on its scale, weighted by the softmax of as many raw
            parameters (AutoHAS, Dong et al., 2020, in its differentiable form). Null: it has one raw parameter.
    """

    acts_through_loss: ClassVar[bool]
    limits: ClassVar[tuple[float, float]] = (0.0, math.inf)
    neutral: ClassVar[float | None] = None  # a candidate does not mention it where it is fixed at this value

    initial: float
    low: float
    high: float
    scale: Scale
    learn: bool
    update: Update | None = None
    cap: float | None = None
    trust_region: float | None = None
    rises: bool = False
    by: Literal["gradient", "trainings"] = "gradient"
    basis: int | None = None

    def __post_init__(self) -> None:
        lowest, highest = self.limits
        able = self.acts_through_loss and not self.learn
        require(able or not self.rises, "rises", True, "only what acts through the loss and is not learned can rise")
        inside = math.isfinite(self.initial) and lowest <= self.initial <= highest
        require(inside, "initial", self.initial, _between(lowest, highest))
        if not self.learn:
            return
        require(lowest <= self.low <= highest, "low", self.low, _between(lowest, highest))
        require(lowest <= self.high <= highest, "high", self.high, _between(lowest, highest))
        _ = self.range  # refuses an impossible range
        strict = self.scale == "logit" and self.moves and self.basis is None
        inside = self.low < self.initial < self.high if strict else self.low <= self.initial <= self.high
        allowed = f"it must lie {'strictly ' if strict else ''}between low={self.low} and high={self.high}"
        require(inside, "initial", self.initial, allowed)
        ruled = self.update is not None or not self.moves
        require(ruled, "update", None, "a learned hyperparameter needs an update rule")
        check_basis(self.basis, self.update)
        cosine = isinstance(self, LearningRate | RateFactor) and self.scale == "log"
        good = cosine or not isinstance(self.update, CosineNormalised)
        require(good, "update", "CosineNormalised", "it is for a learning rate on a log scale, take AdamUpdate")
        good = self.cap is None or self.low < self.cap <= self.high
        require(good, "cap", self.cap, f"it must be null or above low={self.low} and at most high={self.high}")
        region = self.trust_region
        good = region is None or (region > 0 and math.isfinite(region))
        require(good, "trust_region", region, "it must be null or a number above 0")

    @property
    def moves(self) -> bool:
        """Whether the hypergradient moves it."""
        return self.learn and self.by == "gradient"

    @property
    def names(self) -> tuple[str, ...]:
        """What the training loop calls it: an entry must have one of these names. Empty: any, :meth:`bind` does all."""
        return ()

    @property
    def kind(self) -> Kind:
        """``loss``: it acts through the training loss; ``update``: on the weight update alone; ``decay``: on the update
        as the gradient of a penalty on the weights would."""
        return "loss" if self.acts_through_loss else "update"

    @property
    def range(self) -> Range:
        return Range(self.low, self.high, self.scale)

    def raw(self, value: float) -> float | list[float]:
        """The raw parameter whose value is ``value``; on a logit scale, the closest one within its bounds.

        With a basis, the raw parameters of the mixture with the largest entropy of those with this value.
        """
        if self.basis is not None:
            place = self.range.to_unit(value)
            return maximum_entropy_logits(min(max(place, LOGIT_MARGIN), 1 - LOGIT_MARGIN), self.basis)
        if self.scale == "log":
            return math.log(value)
        if self.scale == "logit":
            place = min(max((value - self.low) / (self.high - self.low), LOGIT_MARGIN), 1 - LOGIT_MARGIN)
            return math.log(place / (1 - place))
        return value

    def nearest(self, value: float) -> float:
        """The value that a learned one can take closest to ``value``."""
        raw = torch.tensor(self.raw(min(max(value, self.low), self.high)), dtype=torch.float64)
        return min(max(float(self.value(raw)), self.low), self.high)

    def raw_bounds(self) -> tuple[float, float]:
        if self.basis is not None:
            return -math.inf, math.inf
        if self.scale == "log":
            return math.log(self.low), math.log(self.high)
        return (-LOGIT_BOUND, LOGIT_BOUND) if self.scale == "logit" else (self.low, self.high)

    def fixed_value(self, progress: float) -> float:
        """The value where it is not learned, when the share ``progress`` (0 to 1) of the search is done."""
        return self.initial * progress if self.rises else self.initial

    def value(self, raw: Tensor) -> Tensor:
        """The value of a raw parameter; differentiable, 0-dim. ``raw``: 0-dim, or (basis,)."""
        if self.basis is not None:
            place = mean_place(raw)
            return self.low * (self.high / self.low) ** place if self.scale == "log" else self._at(place)
        if self.scale == "log":
            return raw.exp()
        return self._at(raw.sigmoid()) if self.scale == "logit" else raw * 1.0

    def _at(self, place: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * place

    def average(self, values: Tensor) -> float:
        """The mean in the scale's own measure (geometric for ``log``), at most ``cap``. ``values``: (steps,)."""
        mean = self._mean(values)
        return mean if self.cap is None else min(mean, self.cap)

    def _mean(self, values: Tensor) -> float:
        return float(values.log().mean().exp() if self.scale == "log" else values.mean())

    def exceeds_cap(self, values: Tensor) -> bool:
        """Whether their mean is above ``cap``, where there is one."""
        return self.cap is not None and self._mean(values) > self.cap

    def raw_length(self, length: float) -> float:
        """How far the raw parameter has to go for the value to go ``length``: of its logarithm on a log scale; in the
        middle of the range on a logit one, where it is quickest; in the middle of a basis of two."""
        if self.basis is not None:
            return 4 * length / (math.log(self.high / self.low) if self.scale == "log" else self.high - self.low)
        return 4 * length / (self.high - self.low) if self.scale == "logit" else length

    @torch.no_grad()
    def project(self, raw: nn.Parameter, before: Tensor) -> list[str]:
        """Bring ``raw``, which was ``before`` its move, back into its trust region and its range, in place.

        Returns:
            The kinds of interventions (``nas.hyperparameters.collection``) that this took.
        """
        kinds = []
        region = self.trust_region
        if region is not None and float((raw - before).abs().max()) > region * (1 + 1e-9):
            raw.copy_(before + (raw - before).clamp(-region, region))
            kinds.append("trust_region")
        low, high = self.raw_bounds()
        if not low <= float(raw.min()) <= float(raw.max()) <= high:
            raw.clamp_(low, high)
            kinds.append("bound")
        return kinds

    def bind(self, network: nn.Module, value: Tensor | float) -> None:
        """Make ``network`` compute with ``value``; nothing to do for what acts on the weight update."""

    def acts_on(self, network: nn.Module) -> bool:
        """Whether ``network`` has anything that this hyperparameter could change."""
        return True


# The learning rates.


class LearningRate(Hyperparameter):
    """The base learning rate; what the weight step uses is this times the schedule's factor."""

    acts_through_loss = False
    names = ("learning_rate",)

    def __post_init__(self) -> None:
        require(self.initial > 0, "initial", self.initial, "it must be above 0")
        super().__post_init__()


# Weights by what they are, read off their dimensions, so that each group can have a learning rate of its own: the same
# rule for every space, for its supernet and for what is found.
Group = Literal["convolution", "dense", "normalisation"]
GROUPS: tuple[Group, ...] = get_args(Group)
RATE_FACTORS = {group: f"rate_factor_{group}" for group in GROUPS}  # the names of their hyperparameters


class RateFactor(Hyperparameter):
    """What the learning rate of one group of weights is multiplied by (``nas.training.sgd``)."""

    acts_through_loss = False
    names = tuple(RATE_FACTORS.values())
    neutral = 1.0


def group_of(weight: Tensor) -> Group:
    """``convolution``: kernels; ``dense``: matrices; ``normalisation``: vectors (scales, shifts and biases)."""
    return "convolution" if weight.dim() > 2 else "dense" if weight.dim() == 2 else "normalisation"


def learning_rates(values: Mapping[str, Tensor | float]) -> dict[Group, Tensor | float]:
    """Every group's learning rate: the common one times the group's factor, where ``values`` have one."""
    common = values["learning_rate"]
    return {group: common * values[name] if name in values else common for group, name in RATE_FACTORS.items()}


# What else acts on the weight update.


class WeightDecay(Hyperparameter):
    """The factor of the L2 term in the SGD update."""

    acts_through_loss = False
    names = ("weight_decay",)
    kind = "decay"


class Momentum(Hyperparameter):
    """The factor of SGD's momentum buffer; one step shows how the buffer of the steps before helps, not its future."""

    acts_through_loss = False
    names = ("momentum",)
    limits = (0.0, 0.999)


OF_THE_STEP = frozenset({"learning_rate", "weight_decay", "momentum", *RATE_FACTORS.values()})  # not of its gradient

# What acts through the training loss.


class DropoutRate(Hyperparameter):
    """The rate of every dropout layer."""

    acts_through_loss = True
    names = ("dropout",)
    limits = (0.0, 0.99)

    def bind(self, network: nn.Module, value: Tensor | float) -> None:
        set_dropout(network, value)

    def acts_on(self, network: nn.Module) -> bool:
        return any(type(module) is Dropout for module in network.modules())  # torch's own takes no tensor for a rate


@dataclass(frozen=True)
class LayerDropoutRate(Hyperparameter):
    """The rate of the dropout behind one layer of a chain.

    Args:
        layer: Its place, ``layer2``; the entry is to be called ``dropout_layer2``.
    """

    acts_through_loss = True
    limits = (0.0, 0.99)
    neutral = 0.0

    layer: str = field(kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"{LAYER_DROPOUT}{self.layer}",)

    def bind(self, network: nn.Module, value: Tensor | float) -> None:
        set_layer_dropout(network, self.layer, value)

    def acts_on(self, network: nn.Module) -> bool:
        return bool(layer_dropouts(network, self.layer))


class MemoryPenalty(Hyperparameter):
    """The weight of what a memory adds to the training loss (``nas.operations.memory``)."""

    acts_through_loss = True
    names = (ACTIVATION_PENALTY, TEMPORAL_PENALTY)
    neutral = 0.0

    def acts_on(self, network: nn.Module) -> bool:
        return isinstance(network, Remembers)


class DropPathRate(Hyperparameter):
    """The rate of every drop-path layer."""

    acts_through_loss = True
    names = ("drop_path",)
    limits = (0.0, 0.99)

    def bind(self, network: nn.Module, value: Tensor | float) -> None:
        set_drop_path(network, value)

    def acts_on(self, network: nn.Module) -> bool:
        return any(isinstance(module, DropPath) for module in network.modules())


class LabelSmoothing(Hyperparameter):
    """The share of every label that is spread over all classes; the validation loss has none."""

    acts_through_loss = True
    names = ("label_smoothing",)
    limits = (0.0, 0.99)
    neutral = 0.0


class Cutout(Hyperparameter):
    """The side of the faded square as a share of the image's (``nas.training.augment``).

    At 0 the square's area has no slope: a learned one starts above.
    """

    acts_through_loss = True
    names = ("cutout",)
    limits = (0.0, 2.0)
    neutral = 0.0

    def __post_init__(self) -> None:
        require(not self.moves or self.initial > 0, "initial", self.initial, "a learned one must start above 0")
        super().__post_init__()


class Mixing(Hyperparameter):
    """The strength of mixup (``nas.training.augment``): 1 fades an image at most by half into another."""

    acts_through_loss = True
    names = ("mixing",)
    limits = (0.0, 1.0)
    neutral = 0.0


def _between(low: float, high: float) -> str:
    return f"it must be {f'finite and at least {low:g}' if math.isinf(high) else f'a number from {low:g} to {high:g}'}"
