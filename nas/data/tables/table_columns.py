"""Which columns of a table are inputs and which its target; one that would mislead a network is refused by name."""

import difflib
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nas.data.row_split import names_parts
from nas.data.tables.csv_format import COMMA, THOUSANDS
from nas.data.tables.table_file import SIGNED, UNIT, UNITS, Column
from nas.data.tables.table_rows import float_of, places_of, text_of
from nas.data.targets import MOST_CLASSES, Targets, named_classes
from nas.errors import InvalidValue, UnusableInput, listed
from nas.typed_settings import override

IDENTIFIER = re.compile(r"(^|[_\s.-])(?i:id|uuid|guid)$|[a-z0-9]I[dD]$|^(?i:index)$")  # patient_id, customerID, no acid
FEWEST = 10  # rows from which on different texts, or numbers in a row, are no accident


def count_rows(columns: Mapping[str, Column]) -> int:
    """The number of rows, which all ``columns`` have."""
    return len(next(iter(columns.values())).values)


def rows_named(rows: Tensor) -> str:
    """``row 4`` or ``rows 4, 9 and 2 more``, where 1 is the first row below the names."""
    numbers = [str(row + 1) for row in rows.tolist()]
    return f"row{'s' if len(numbers) > 1 else ''} {listed(numbers)}"


def require_columns(key: str, names: Sequence[str], columns: Mapping[str, Column], file: str) -> None:
    """Refuse the setting ``key`` where it names a column that ``file`` lacks.

    Raises:
        InvalidValue: It does.
    """
    for name in names:
        if name not in columns:
            lower = {one.lower(): one for one in columns}
            close = difflib.get_close_matches(name.lower(), lower, n=1)
            hint = f" (did you mean {_visible(lower[close[0]])}?)" if close else ""
            if not close and not all(math.isnan(float_of(one)) for one in columns):
                hint = " (its first line must have the names of the columns)"
            raise InvalidValue(
                key, name, f"{file} has the columns {listed(list(map(_visible, columns)), most=20)}{hint}"
            )


def _visible(name: str) -> str:
    """``name``, with codes for characters that nobody sees."""
    return name if name.isprintable() else ascii(name)


def as_said(
    columns: Mapping[str, Column], numeric: Sequence[str], categorical: Sequence[str], file: str
) -> dict[str, Column]:
    """``columns``, those of ``numeric`` read as numbers and those of ``categorical`` as texts.

    Raises:
        UnusableInput: A column of ``numeric`` has a text that is no number.
    """
    said = dict(columns)
    for name in numeric:
        texts = columns[name].texts
        if texts is not None:
            read = read_as_numbers(columns[name])
            bad = torch.tensor([row for row in read.missing.tolist() if texts[row]])
            if len(bad):
                raise UnusableInput(
                    f"The column {name} of {file} has {len(bad):,} texts that are no numbers, the first is "
                    f"{texts[int(bad[0])]!r} in {rows_named(bad[:1])}: correct them, or take it out of data.numeric."
                )
            said[name] = read
    for name in categorical:
        said[name] = Column(name, "category", texts=_as_texts(columns[name]))
    return said


def read_as_numbers(column: Column) -> Column:
    """``column`` with the numbers that its texts are; NaN where a text is none."""
    numbers = [float_of(text) for text in column.texts or ()]
    return Column(column.name, "number", numbers=torch.tensor(numbers, dtype=torch.float64))


def are_numbers(column: Column) -> bool:
    """Whether the texts of ``column`` that are not missing are numbers, and there is one."""
    known = set(filter(None, column.texts or ()))
    return bool(known) and not any(math.isnan(float_of(text)) for text in known)


def inputs_among(
    columns: Mapping[str, Column],
    others: Sequence[str],
    ignored: Sequence[str],
    numeric: Sequence[str],
    categorical: Sequence[str],
    file: str,
) -> dict[str, Column]:
    """The columns that are inputs: not the index of a data frame, unless the user calls it numbers or categories.

    Args:
        columns: All of them, of the kinds that the user said.
        others: Targets, and the columns that rows are split by.
        ignored: What the user leaves out.
        numeric: What the user calls numbers: it is taken even if it counts the rows.
        categorical: What the user calls categories: it is taken even if it names parts.
        file: The table's name, for messages.

    Raises:
        UnusableInput: A column has numbers and texts, dates, or another text or number in nearly every row.
    """
    inputs = {name: column for name, column in columns.items() if name not in (*others, *ignored)}
    inputs = {name: column for name, column in inputs.items() if not column.names_rows or name in numeric}
    unusable = _unusable(inputs.values(), file)
    named = {*numeric, *categorical, *unusable}
    reasons = {name: _why_not(column) for name, column in inputs.items() if name not in named}
    bad = {name: reason for name, reason in reasons.items() if reason is not None}
    bad.pop("", None)  # the index that data frames write: it has no name, and is left out below
    problems = _first_of(unusable)
    if bad:
        problems.append(_useless(columns, bad, ignored, numeric, categorical, file))
    if problems:  # both at once: each is mended by other settings
        raise UnusableInput("; and ".join(problem.removesuffix(".") for problem in problems) + ".")
    if "" in inputs and reasons.get("") is None:
        place = list(columns).index("") + 1
        raise UnusableInput(
            f"Column {place} of {file} has no name: give it one, or {override('ignore', [*ignored, ''])}."
        )
    return {name: column for name, column in inputs.items() if name}


def _unusable(columns: Iterable[Column], file: str) -> dict[str, str]:
    """The columns whose values can be no inputs as they are written, and what is wrong with each."""
    found = {}
    for column in columns:
        try:
            refuse_mixture(column, file)
            _refuse_infinite(column, file)
        except UnusableInput as error:
            found[column.name] = str(error).removesuffix(".")
    return found


def _first_of(unusable: Mapping[str, str]) -> list[str]:
    """What is wrong with the first of these columns, and the names of the others; nothing where there is none."""
    others = f"; to be mended, too: {listed(list(unusable)[1:], most=10)}" if len(unusable) > 1 else ""
    return [problem + others for problem in list(unusable.values())[:1]]


def _useless(
    columns: Mapping[str, Column],
    bad: Mapping[str, str],
    ignored: Sequence[str],
    numeric: Sequence[str],
    categorical: Sequence[str],
    file: str,
) -> str:
    """That the columns ``bad`` can be no inputs for these reasons, and what can be done."""
    named = listed([f"{name} ({reason})" for name, reason in bad.items()], most=10)
    ways = [f"{override('ignore', [*ignored, *bad])} leaves {'them' if len(bad) > 1 else 'it'} out"]
    if texts := [name for name in bad if columns[name].kind in ("text", "category", "code")]:
        ways.append(f"{override('categorical', [*categorical, *texts])} takes texts as categories")
    if parts := [name for name in bad if names_parts(columns[name].texts or ())]:
        ways.append(f"{override('split.parts', parts[0])} divides the rows by it")
    if counts := [name for name in bad if columns[name].numbers is not None or columns[name].kind == "code"]:
        ways.append(f"{override('numeric', [*numeric, *counts])} keeps {listed(counts)} as numbers")
    many, they = ("columns", "they are") if len(bad) > 1 else ("column", "it is")
    return f"{len(bad)} {many} of {file} cannot be an input as {they}, {named}: {'; '.join(ways)}."


def targets_among(
    columns: Mapping[str, Column], names: Sequence[str], file: str, numeric: Sequence[str] | None = None
) -> Targets:
    """The targets: texts as classes with names, numbers and truth values as they are, several of them side by side.

    Args:
        columns: All of them, of the kinds that the user said.
        names: The targets.
        file: The table's name, for messages.
        numeric: What ``data.numeric`` names; None where there is no such setting.

    Raises:
        UnusableInput: A target is missing, infinite, a date, or a text where there are several; or nearly every row has
            a text of its own.
    """
    refuse_gaps(columns, names, file)
    for name in names:
        _refuse_useless_target(columns[name], file, len(names) == 1, as_amounts(columns, names, numeric))
    first = columns[names[0]]
    if first.kind in ("text", "category", "code"):
        assert first.texts is not None
        return named_classes(first.texts)
    kinds = {columns[name].kind for name in names}
    values = torch.stack([_as_numbers(columns[name]) for name in names], dim=1)
    kind = torch.float64 if "number" in kinds else torch.int64 if "whole" in kinds else torch.bool
    return Targets((values[:, 0] if len(names) == 1 else values).to(kind))


def as_amounts(columns: Mapping[str, Column], targets: Sequence[str], numeric: Sequence[str] | None) -> str:
    """The end of a sentence: how targets that were taken as codes become numbers; nothing where none was."""
    codes = [name for name in targets if columns[name].kind == "code"]
    if numeric is None or not codes:
        return ""
    return f"; {override('numeric', [*numeric, *codes])} takes the codes of {listed(codes)} as amounts"


def refuse_gaps(columns: Mapping[str, Column], targets: Sequence[str], file: str) -> None:
    """Refuse rows of one file whose target is missing or infinite, by their numbers in this file.

    Raises:
        UnusableInput: There are such rows.
    """
    for column in (columns[name] for name in targets if name in columns):
        missing = column.missing
        if len(missing):
            is_class = bool(column.texts) and column.kind != "truth"
            also = "; NA, None, null and n/a are missing, too: a class needs another name" if is_class else ""
            raise UnusableInput(
                f"The target {column.name} of {file} is missing in {len(missing):,} of {len(column.values):,} rows "
                f"({rows_named(missing)}; row 1 is the first below the names): fill in or remove these rows{also}."
            )
        _refuse_infinite(column, file, is_target=True)


def joined(
    one: Mapping[str, Column], other: Mapping[str, Column], unneeded: Sequence[str], file: str
) -> dict[str, Column]:
    """The rows of ``one``, then those of ``other``, whose columns are matched by name.

    Args:
        one, other: The table of the training and that of the test.
        unneeded: Columns that ``other`` may lack.
        file: The name of ``other``, for messages.

    Raises:
        UnusableInput: ``other`` lacks a column, has one that ``one`` lacks, or has texts where ``one`` has numbers.
    """
    lacking = [name for name in one if name not in (*other, *unneeded) and not one[name].names_rows]
    strange = [name for name in other if name not in one and not other[name].names_rows]
    if lacking or strange:
        lacks = f"lacks {listed(lacking)}" if lacking else ""
        has = f"has {listed(strange)}, which the training table lacks" if strange else ""
        raise UnusableInput(
            f"The test table {file} {' and '.join(filter(None, [lacks, has]))}: both need the same columns."
        )
    together = {}
    for name, column in one.items():
        second = other.get(name, Column(name, "text", texts=("",) * count_rows(other)))
        if column.numbers is not None and second.kind == "code":
            second = read_as_numbers(second)
        if column.kind == "code" and second.numbers is not None:
            second = _spelt_as(column, second)
        if column.numbers is not None and second.texts is not None and any(second.texts):
            text = next(filter(None, second.texts))
            raise UnusableInput(
                f"The column {name} has numbers in training, and texts ({text!r}) in {file}: correct one."
            )
        together[name] = _joined(column, second)
    return together


def _spelt_as(column: Column, numbers: Column) -> Column:
    """``numbers`` with the zeros in front that the codes of ``column`` have: 00501 for 501."""
    assert column.texts is not None
    codes = list(dict.fromkeys(filter(None, column.texts)))
    places = places_of(codes, ())
    texts = _as_texts(numbers)
    return replace(column, texts=tuple(codes[places[text] - 1] if text in places else text for text in texts))


def refuse_mixture(column: Column, file: str, is_target: bool = False) -> None:
    """Refuse a text column half of whose texts, or more, are numbers, or are numbers that are not written plainly.

    A few texts such as ``5 %`` and ``10 %`` are categories, or classes.

    Args:
        column: Any one.
        file: The table's name, for messages.
        is_target: Whether its cells must not be missing.

    Raises:
        UnusableInput: It is one.
    """
    if column.kind != "text":
        return
    assert column.texts is not None
    counts = Counter(filter(None, column.texts))
    if not counts:
        return
    words = [text for text in counts if math.isnan(float_of(text))]
    strange, known = sum(counts[text] for text in words), counts.total()
    first = (words or list(counts))[0]
    where = f"({_shown(first)} in row {column.texts.index(first) + 1})"
    as_texts = f"{override('categorical', [column.name])} takes all of them as texts"
    if not words:
        problem = f"texts that are all numbers {where}"
        ways = [f"{override('numeric', [column.name])} takes them as numbers", as_texts]
    elif all(map(COMMA.fullmatch, words)):
        problem, ways = f"decimal commas {where}", [_way_with_commas(words)]
    elif len(counts) > MOST_CLASSES and _are_signed(words, counts):
        problem = f"in {strange:,} of {known:,} rows numbers that are not written plainly {where}"
        ways = [f"write them without units, blanks, signs and marks between thousands, or {as_texts}"]
    elif len(words) < len(counts) and 2 * strange <= known:
        problem = f"numbers, but a text in {strange:,} of {known:,} rows {where}"
        ways = _ways_with_words(words, as_texts, column.name, is_target)
    else:
        return
    raise UnusableInput(f"The column {column.name} of {file} has {problem}: {', and '.join(ways)}.")


def _way_with_commas(words: Collection[str]) -> str:
    thousands = all(map(THOUSANDS.fullmatch, words))
    either = "; if they part thousands, remove them from the file" if thousands else ""
    return f"\"data.csv.decimal=','\" reads them{either}"


def _ways_with_words(words: Sequence[str], as_texts: str, name: str, is_target: bool) -> list[str]:
    """What to do about ``words`` among the numbers of the column ``name``."""
    if any("\n" in text for text in words):
        return ["a quotation mark there is not closed"]
    if any("\0" in text for text in words):
        return ["bytes of 0 are what is left of a damaged file: copy or export it anew"]
    if list(words) == [name]:
        return ["such a row has the names of the columns once more, as where tables were put together: remove it"]
    if is_target:
        return [f"correct or remove these rows, or {as_texts}"]
    if len(words) > 3:
        return [as_texts]
    return [f"{override('missing', words)} takes {'it' if len(words) == 1 else 'them'} as missing", as_texts]


def _are_signed(texts: Collection[str], column: Iterable[str]) -> bool:
    """Whether ``texts``, some of those of a ``column`` or all of them, are numbers, all of one unit or none, with
    blanks or marks that Python does not read."""
    units = set(UNITS).intersection("".join(texts))
    words = {found[1] if (found := UNIT.search(text)) else "" for text in texts}
    if len(units) + len(words - {""}) > 1:
        return False
    # An accountant's (12) and 12- are -12, a typesetter's minus is longer, and a spreadsheet's '12 and ="12" are texts.
    bare = [UNIT.sub("", text).replace("\u2212", "-").strip("()'=\"") for text in texts]
    if not all(text.endswith("-") for text in column):  # where all have it, 65- is 65 and older
        bare = [text if text.startswith("-") else text.removesuffix("-") for text in bare]
    return all(map(SIGNED.fullmatch, bare))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _refuse_useless_target(column: Column, file: str, alone: bool, amounts: str) -> None:
    name = column.name
    refuse_mixture(column, file, is_target=True)
    if column.kind == "list":
        raise UnusableInput(
            f"The target {name} of {file} has several values in each cell: write a column for each of them, with 0 and "
            "1 for labels, and say data.target=[...]."
        )
    if column.kind == "date":
        raise UnusableInput(
            f"The target {name} of {file} has dates: write them as numbers, such as days since the first."
        )
    if column.texts is not None and column.kind != "truth" and not alone:
        raise UnusableInput(
            f"The target {name} of {file} has {'codes' if column.kind == 'code' else 'texts'}: several targets must "
            f"all be numbers or true and false{amounts or '; write 0 and 1 for labels'}."
        )
    if column.texts is not None and _nearly_all_differ(column.texts):
        raise UnusableInput(
            f"The target {name} of {file} has {len(set(column.texts)):,} different texts in {len(column.values):,} "
            f"rows: a class needs several rows, so name another column in data.target{amounts}."
        )


def _refuse_infinite(column: Column, file: str, is_target: bool = False) -> None:
    if column.numbers is None:
        return
    bad = column.numbers.isinf().nonzero().flatten()
    if len(bad):
        ways = (
            "or remove them" if is_target else f"them, or {override('missing', ['inf', '-inf'])} takes them as missing"
        )
        raise UnusableInput(
            f"The column {column.name} of {file} is infinite in {len(bad):,} of {len(column.values):,} rows "
            f"({rows_named(bad)}): correct {ways}."
        )


def _why_not(column: Column) -> str | None:
    """Why ``column`` cannot be an input, in a few words."""
    if column.kind == "list":
        return "several values in each cell"
    if column.kind in ("text", "category") and names_parts(column.texts or ()):
        return f"it says {listed(sorted(set(filter(None, column.texts or ()))))}, as if it named the parts"
    if column.kind == "date":
        assert column.texts is not None
        return f"dates such as {next(filter(None, column.texts))!r}"
    if column.kind in ("text", "code") and column.texts is not None and _nearly_all_differ(column.texts):
        known = [text for text in column.texts if text]
        return f"{len(set(known)):,} different {column.kind}s in {len(known):,} rows"
    if column.numbers is not None and len(column.numbers) >= FEWEST:
        counted = column.numbers.min() + torch.arange(len(column.numbers))
        if torch.equal(column.numbers.sort().values, counted):
            return "it numbers the rows"
        differ = column.kind == "whole" and len(column.numbers.unique()) == len(column.numbers)
        if differ and IDENTIFIER.search(column.name):
            return "its name is that of an identifier, and each row has another number"
    return None


def _nearly_all_differ(texts: Sequence[str]) -> bool:
    known = [text for text in texts if text]
    return len(known) >= FEWEST and 2 * len(set(known)) > len(known)


def _as_numbers(column: Column) -> Tensor:
    if column.numbers is not None:
        return column.numbers
    assert column.texts is not None
    return torch.tensor([text == "True" for text in column.texts], dtype=torch.float64)


def _joined(one: Column, other: Column) -> Column:
    if one.numbers is not None and other.numbers is not None:
        kind = other.kind if one.kind == "whole" else one.kind
        return replace(one, kind=kind, numbers=torch.cat([one.numbers, other.numbers]))
    if one.numbers is not None:  # the other one is empty
        nothing = torch.full((len(other.values),), float("nan"), dtype=torch.float64)
        return replace(one, numbers=torch.cat([one.numbers, nothing]))
    assert one.texts is not None
    return replace(one, texts=one.texts + _as_texts(other))


def _as_texts(column: Column) -> tuple[str, ...]:
    if column.numbers is None:
        assert column.texts is not None
        return column.texts
    return tuple(text_of(value) for value in column.numbers.tolist())
