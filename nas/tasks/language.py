"""The next token of a running text: cross-entropy per token, perplexity, bits per token."""

import math
from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.data.texts.text_stream import TextDataset
from nas.errors import UnusableInput
from nas.signature import Signature
from nas.tasks.task import NOTHING, Measure, Reduction, Task, Values

LARGEST_EXPONENT = 700.0  # of which a float holds the exponential


class Language(Task):
    """Logits (B, length, vocabulary) and tokens (B, length), each the one behind its input.

    What a memory adds to the training loss is not in here (``nas.operations.memory``).
    """

    unigram: Tensor

    name = "language"
    glanced = "token_accuracy"
    measures = (
        Measure("perplexity", "lower", "perplexity"),
        Measure("bits_per_token", "lower", "bits per token", "bits"),
    )

    @property
    def ignorance(self) -> float:
        return math.log(self.signature.outputs)

    def fitted(self, splits: DataSplits) -> tuple["Language", DataSplits]:
        text = splits.train
        if not isinstance(text, TextDataset):
            raise UnusableInput(f"The data set {splits.name} is no running text: task=language needs data=text.")
        (vocabulary,) = splits.categories
        task = copy(self)
        task.signature = Signature(splits.input_shape, vocabulary, "sequence", splits.categories)
        counts = text.tokens.bincount(minlength=vocabulary).double() + 1  # so that no token is impossible
        task.unigram = (counts / counts.sum()).log()
        return task, splits

    def loss(self, outputs: Tensor, targets: Tensor, values: Values = NOTHING, reduction: Reduction = "mean") -> Tensor:
        if reduction == "mean":
            return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())
        return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none").mean(1)

    def reported_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="sum")

    def glance(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(-1) == targets).to(torch.float64).mean()

    def trivial(self, targets: Tensor) -> Tensor:
        """How often each token is there in the training part."""
        return self.unigram.to(targets.device).expand(*targets.shape, -1)

    def measured_without_inputs(self, targets: Tensor) -> dict[str, float]:
        nats = -float(self.unigram.to(targets.device)[targets].mean())  # without a logit per token and place
        return _measures(nats)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name}

    def words(self, splits: DataSplits) -> str:
        return f"language: the next token of {splits.name}, one of {self.signature.outputs:,}"

    def training_in_words(self, splits: DataSplits) -> str:
        return f"{splits.train.targets.numel():,} training tokens"

    def metrics(self, device: torch.device) -> "LanguageMetrics":
        return LanguageMetrics()

    def rate_factor(self, targets: Tensor) -> float:
        """That of a shorter batch is its share of the full length, as in AWD-LSTM (Merity et al., 2018)."""
        return targets.shape[1] / self.signature.input_shape[0]

    def count(self, targets: Tensor) -> int:
        return targets.numel()

    def score(self, values: Mapping[str, float]) -> float:
        """Minus the nats per token: of order 1, unlike the perplexity."""
        return -math.log(values["perplexity"])


class LanguageMetrics:
    """Perplexity and bits per token, over all tokens."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._tokens = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        loss = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="sum")
        self._losses.append(loss.detach())
        self._tokens += targets.numel()

    def compute(self) -> dict[str, float]:
        nats = math.fsum(torch.stack(self._losses).tolist()) / self._tokens
        return _measures(nats)


def _measures(nats: float) -> dict[str, float]:
    """From the mean cross-entropy per token."""
    perplexity = math.exp(nats) if nats < LARGEST_EXPONENT else math.inf
    return {"perplexity": perplexity, "bits_per_token": nats / math.log(2)}
