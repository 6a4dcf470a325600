"""Codes in text files: whole numbers with zeros in front, such as 00501, which are names and no amounts."""

import mmap
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.packed_file import COMPRESSED

LINKS = ".:/+-"  # what parts the digits of times, dates, versions and numbers
# What may be one: a cell, or a word of a text. It begins with the zero, which is quickly found; what must not stand in
# front of it is looked at then.
PADDED = re.compile(rb"0(?<![\w.:/+-]0)\d+(?![\w.:/+-])")
CODE = re.compile(r"\d+")
# How the names of encodings begin that write a digit as one byte, so that PADDED finds it.
ASCII_LIKE = ("utf-8", "utf8", "latin", "iso", "cp", "windows", "ascii")


def with_codes(pandas: Any, frame: Any, file: Path, options: Mapping[str, Any]) -> tuple[Any, frozenset[int]]:
    """``frame`` with columns of codes as texts, and their places.

    pandas reads 00501 as the number 501. A column is one of codes if all of its cells are digits and one begins with
    a zero that is not all of it.

    Args:
        pandas: The module.
        frame: As pandas has read ``file``.
        file: CSV, compressed or not.
        options: What ``read_csv`` was given.
    """
    types = pandas.api.types
    kinds = [types.is_numeric_dtype(kind) and not types.is_bool_dtype(kind) for kind in frame.dtypes]
    # 0.5 is no code. This takes a fraction of the time that the look at the bytes takes, and often spares it.
    numbers = [place for place, (_, one) in enumerate(frame.items()) if kinds[place] and _are_whole(one.to_numpy())]
    if not numbers or not _may_have_codes(file, str(options["encoding"]), str(options["sep"])):
        return frame, frozenset()
    texts = pandas.read_csv(file, usecols=numbers, dtype=str, **options)
    found = {place: texts.iloc[:, number].str.strip() for number, place in enumerate(numbers)}
    codes = frozenset(place for place, column in found.items() if _are_codes(column.dropna().unique().tolist()))
    if not codes:
        return frame, codes
    columns = [found[place] if place in codes else frame.iloc[:, place] for place in range(len(frame.columns))]
    together = pandas.concat([column.reset_index(drop=True) for column in columns], axis=1)
    together.columns = frame.columns
    return together, codes


def _may_have_codes(file: Path, encoding: str, separator: str) -> bool:
    """A quick look at the bytes: whether it is worth reading all numbers again, as texts."""
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        is_text = file.suffix.lower() not in COMPRESSED
        readable = is_text and encoding.lower().startswith(ASCII_LIKE) and separator not in LINKS
        return not readable or PADDED.search(mapped) is not None


def _are_whole(numbers: np.ndarray) -> bool:
    """Whether all of ``numbers`` (N,) that are not missing are whole ones."""
    with np.errstate(invalid="ignore"):  # of infinite ones
        return bool(((numbers % 1 == 0) | np.isnan(numbers)).all())


def _are_codes(texts: Sequence[str]) -> bool:
    return all(map(CODE.fullmatch, texts)) and any(len(text) > 1 and text.startswith("0") for text in texts)
