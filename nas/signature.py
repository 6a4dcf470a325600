"""What goes into a network and what comes out: all that data and search spaces know of each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nas.errors import InvalidValue, require

Head = Literal["point", "dense", "sequence"]
INPUTS = {0: "rows", 1: "series", 2: "images"}  # by rank
PREDICTIONS: dict[Head, str] = {
    "point": "one prediction each",
    "dense": "a prediction per place",
    "sequence": "a prediction per token",
}
LARGEST_SIDE = 1_000_000
LARGEST_OUTPUT = 1_000_000
PADDING = 0  # the token behind the end of a text that is classified and shorter than others


@dataclass(frozen=True)
class Signature:
    """Shapes without the batch.

    Attributes:
        input_shape: (C, H, W) of an image, (C, L) of a series, (F,) of a table's row, (L,) of a text's token numbers.
        outputs: Numbers per prediction: classes, labels, targets, channels, or the size of a vocabulary.
        head: ``point`` is one prediction per sample, ``dense`` one per place, ``sequence`` one per token, made of the
            earlier ones only.
        categories: How many codes each categorical column has (the last columns of F), or (vocabulary,) of tokens.
        tokens: Whether the numbers of a row are tokens of a text that gets one prediction; with a ``sequence`` they
            are tokens in any case.
    """

    input_shape: tuple[int, ...]
    outputs: int
    head: Head = "point"
    categories: tuple[int, ...] = ()
    tokens: bool = False

    def __post_init__(self) -> None:
        shape, heads = self.input_shape, get_args(Head)
        good = 1 <= len(shape) <= 3 and all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in shape)
        require(good, "input_shape", list(shape), f"one to three whole numbers from 1 to {LARGEST_SIDE}")
        good = type(self.outputs) is int and 1 <= self.outputs <= LARGEST_OUTPUT
        require(good, "outputs", self.outputs, f"it must be a whole number from 1 to {LARGEST_OUTPUT}")
        require(self.head in heads, "head", self.head, f"it must be one of {', '.join(heads)}")
        has_places = self.rank > 0 or self.head != "dense"
        require(has_places, "head", self.head, "rows of numbers have no places to predict for")
        good = all(type(size) is int and 1 <= size <= LARGEST_OUTPUT for size in self.categories)
        good = good and len(self.categories) <= (shape[0] if self.rank == 0 else 0)
        allowed = f"whole numbers from 1 to {LARGEST_OUTPUT}, no more than a row has columns"
        require(good, "categories", list(self.categories), allowed)
        good = type(self.tokens) is bool and (not self.tokens or (self.rank == 0 and len(self.categories) == 1))
        require(good, "tokens", self.tokens, "it is for rows of tokens with the size of their vocabulary in categories")

    @property
    def rank(self) -> int:
        """How many dimensions a place has: 2 of an image, 1 of a series, 0 of a row or of tokens."""
        return len(self.input_shape) - 1

    @property
    def is_tokens(self) -> bool:
        """Whether the inputs are token numbers."""
        return self.tokens or (self.rank == 0 and self.head == "sequence")

    def example(self, batch: int, like: Tensor | None = None) -> Tensor:
        """Inputs of the right shape and type, all 0: (batch, *input_shape), int64 where they are token numbers.

        Args:
            batch: How many.
            like: Of whose device they are, and of whose type numbers are; by default torch's own.
        """
        like = torch.zeros(()) if like is None else like
        return like.new_zeros(batch, *self.input_shape, dtype=torch.int64 if self.is_tokens else like.dtype)

    def in_words(self) -> str:
        """``1x28x28 images with one prediction each``, for messages."""
        size = "x".join(map(str, self.input_shape))
        inputs = f"texts of {size} tokens" if self.is_tokens else f"rows of {size} numbers"
        inputs = f"{size} {INPUTS[self.rank]}" if self.rank else inputs
        return f"{inputs} with {PREDICTIONS[self.head]}"

    def to_json(self) -> dict[str, Any]:
        entries = {
            "input_shape": list(self.input_shape),
            "outputs": self.outputs,
            "head": self.head,
            "categories": list(self.categories),
        }
        return entries | ({"tokens": True} if self.tokens else {})

    @classmethod
    def from_json(cls, values: object) -> "Signature":
        """The inverse of :meth:`to_json`.

        Raises:
            InvalidValue: An entry is missing or not allowed.
        """
        if not isinstance(values, Mapping):
            raise InvalidValue("signature", values, "it must be an object")
        shape, categories = values.get("input_shape"), values.get("categories", [])
        require(isinstance(shape, list), "input_shape", shape, "it must be a list")
        require(isinstance(categories, list), "categories", categories, "it must be a list")
        head, tokens = values.get("head", "point"), values.get("tokens", False)
        return cls(tuple(shape), values.get("outputs"), head, tuple(categories), tokens)  # type: ignore[arg-type]
