"""Settings of data as they are typed: with the quotes that Hydra needs, inside those that a shell needs."""

import re
import shlex
from collections.abc import Sequence


def override(key: str, value: str | Sequence[str | float]) -> str:
    """``'data.ignore=[Name,"Sample Number"]'``, ``data.split.parts=part``: a setting as it is typed in a shell."""
    text = quoted(value) if isinstance(value, str) else f"[{','.join(map(quoted, value))}]"
    return shlex.quote(f"data.{key}={text}")


def quoted(name: str | float) -> str:
    """``name`` as Hydra reads a text or a number in a list."""
    if not isinstance(name, str):
        return str(name)
    if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and name.lower() not in ("null", "true", "false", "inf", "nan"):
        return name
    escaped = re.sub(r'(\\*)(?="|$)', lambda found: 2 * found[1], name).replace('"', '\\"')
    return f'"{escaped}"'
