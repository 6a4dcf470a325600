"""Settings as they are typed: with the quotes that Hydra needs, inside those that a shell needs."""

import re
import shlex
from collections.abc import Sequence


def override(key: str, value: str | Sequence[str | float]) -> str:
    """``'data.ignore=[Name,"Sample Number"]'``, ``data.split.parts=part``: a setting as it is typed in a shell."""
    text = quoted(value) if isinstance(value, str) else f"[{','.join(map(quoted, value))}]"
    return in_shell(f"data.{key}={text}")


def quoted(name: str | float) -> str:
    """``name`` as Hydra reads a text or a number in a list."""
    if not isinstance(name, str):
        return str(name)
    if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and name.lower() not in ("null", "true", "false", "inf", "nan"):
        return name
    return in_quotes(name, '"')


def in_quotes(text: str, mark: str = "'") -> str:
    """``text`` between two of ``mark``, ``'`` or ``"``, as Hydra reads it whatever characters it has."""
    # Inside of quotes, backslashes count only in front of one that could end them.
    doubled = re.sub(rf"(\\*)(?={mark}|\Z)", lambda found: 2 * found[1], text)
    return mark + doubled.replace(mark, f"\\{mark}") + mark


def in_shell(text: str) -> str:
    """``text`` as a shell needs it: bare, in single quotes, or in double ones.

    These are for a text with single quotes, and nothing that a shell reads in double ones.
    """
    double = "'" in text and not re.search(r'["$`\\!]', text)
    return f'"{text}"' if double else shlex.quote(text)
