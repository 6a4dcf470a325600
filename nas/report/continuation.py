"""A text that a retrained language model goes on with, to be read: no measure says as much of what it has learned."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from nas.data.data_splits import DataSplits
from nas.data.texts.text_stream import TextDataset
from nas.data.texts.text_tokens import END, UNKNOWN
from nas.operations.memory import Remembers

CONTINUATION = "continuation"  # in result.json
TEMPERATURE = 0.8
GIVEN = {"word": 30, "character": 120}  # tokens
DRAWN = {"word": 60, "character": 400}


class Continuation(NamedTuple):
    """The beginning of the test part, and what the network says after it."""

    beginning: str
    continued: str
    temperature: float = TEMPERATURE


def continued_text(network: nn.Module, splits: DataSplits, generator: Generator) -> dict[str, Any]:
    """The entry of ``result.json``; empty where the data are no running text, and where the network gives no number.

    Args:
        generator: On the CPU; one number is drawn per token.
    """
    text = splits.test
    if not isinstance(text, TextDataset):
        return {}
    level, vocabulary = splits.preparation["level"], splits.preparation["vocabulary"]
    given, training = text.tokens[: GIVEN[level]].to(next(network.parameters()).device), network.training
    drawn = _drawn(network.eval(), given, DRAWN[level], text.length, vocabulary.index(UNKNOWN), generator)
    network.train(training)
    if drawn is None:
        return {}
    beginning, continued = (_text(tokens, level, vocabulary) for tokens in (given.tolist(), drawn))
    return {CONTINUATION: Continuation(beginning, continued)._asdict()}


def continuation_of(result: Mapping[str, Any]) -> Continuation | None:
    """What a ``result.json`` holds, or None."""
    entry = result.get(CONTINUATION)
    if not isinstance(entry, dict):
        return None
    beginning, continued, temperature = map(entry.get, Continuation._fields)
    if isinstance(beginning, str) and isinstance(continued, str) and isinstance(temperature, int | float):
        return Continuation(beginning, continued, temperature)
    return None


@torch.no_grad()
def _drawn(
    network: nn.Module, given: Tensor, count: int, length: int, unknown: int, generator: Generator
) -> list[int] | None:
    """``count`` tokens behind ``given``, each from the softmax of logits / temperature; ``unknown`` is never drawn.

    A network without a memory sees the last ``length`` tokens.
    """
    tokens, state, fresh = given[None], None, given[None]
    for _ in range(count):
        if isinstance(network, Remembers):
            found = network.recall(fresh, state)
            logits, state = found.logits, found.state
        else:
            logits = network(tokens[:, -length:])
        last = logits[0, -1].double().cpu()
        if not bool(last.isfinite().all()):
            return None
        last[unknown] = -torch.inf
        fresh = torch.multinomial((last / TEMPERATURE).softmax(0), 1, generator=generator)[None].to(tokens.device)
        tokens = torch.cat([tokens, fresh], 1)
    drawn: list[int] = tokens[0, len(given) :].tolist()
    return drawn


def _text(tokens: Sequence[int], level: str, vocabulary: Sequence[str]) -> str:
    """Tokens as they are read: the inverse of :func:`tokens_of` (nas.data.texts), but for blanks between words."""
    texts = [vocabulary[token] for token in tokens]
    if level == "character":
        return "".join(texts)
    return re.sub(r" ?\n ?", "\n", " ".join("\n" if text == END else text for text in texts))
