"""Which tokens of a text are known."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from nas.data.texts.text_tokens import END, UNKNOWN

Level = Literal["word", "character"]


@dataclass(frozen=True)
class Counted:
    """A vocabulary that is made by counting.

    Attributes:
        level: Whether a token is a word or a character.
        most: How many tokens it has at most, with ``<unk>``.
        at_least: How often a word must be there to be one of them.
    """

    level: Level
    most: int
    at_least: int

    def known(self, tokens: Iterable[str]) -> tuple[str, ...]:
        """``<unk>``, then the others, the most frequent first; among equals the one that comes first."""
        counts = Counter(tokens)
        del counts[UNKNOWN]  # a text may have it already
        least = self.at_least if self.level == "word" else 1
        frequent = [token for token, count in counts.most_common(self.most - 1) if count >= least]
        return (UNKNOWN, *frequent)

    def remark(self, tokens: Iterable[str], known: Collection[str]) -> str | None:
        """What is said where most words are not ``known``, as in texts without blanks between them."""
        words = [token for token in tokens if token != END]
        unknown = sum(word not in known for word in words)
        if self.level == "character" or 2 * unknown <= len(words):
            return None
        ways = "data.level=character reads texts without blanks between words, data.at_least=1 knows words of one place"
        return f"{unknown:,} of {len(words):,} words of training are unknown: {ways}"
