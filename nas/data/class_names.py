"""The names of a data set's classes: a logit means the class of its place, so another list is another task."""

from collections.abc import Sequence

from nas.errors import InvalidValue


def require_same_classes(
    key: str,
    value: object,
    owner: str,
    recorded: Sequence[str] | None,
    found: Sequence[str] | None,
    way_out: str = "",
) -> None:
    """Refuse data whose classes are not those that ``owner`` was made for.

    Args:
        key, value: The setting that is refused.
        owner: Who has recorded the names, in words.
        recorded: The names that it has recorded; None where it has none, and anything fits.
        found: The names of the data; None where they have none, and they fit anything.
        way_out: What the sentence ends with, on what can be done about it.

    Raises:
        InvalidValue: The lists differ; the sentence has the first difference.
    """
    if recorded is None or found is None or tuple(recorded) == tuple(found):
        return
    if len(recorded) != len(found):
        raise InvalidValue(key, value, f"{owner} is for {len(recorded)} classes, the data have {len(found)}{way_out}")
    different = [index for index, (one, other) in enumerate(zip(recorded, found, strict=True)) if one != other]
    first = different[0]
    raise InvalidValue(
        key,
        value,
        f"class {first} of {owner} is {recorded[first]!r}, that of the data is {found[first]!r} "
        f"({len(different)} of {len(found)} classes differ){way_out}",
    )
