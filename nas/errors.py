"""What goes wrong, in one sentence: a setting, an input, a run."""


class InvalidValue(ValueError):  # noqa: N818 - it names what it is about, as ValueError does
    """A setting that cannot be used: ``key``, the ``value`` given and what is ``allowed``."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(key, value, allowed)  # what pickle calls it with again in another process
        self.key, self.value, self.allowed = key, value, allowed
        self._sentence = f"{_printable(key)}={_shown(value)} is not allowed: {allowed}."

    def __str__(self) -> str:
        return self._sentence

    def below(self, prefix: str) -> "InvalidValue":
        """The same complaint with its key seen from one level further up (``temperature`` in ``relaxation``)."""
        separator = "." if prefix and self.key and not self.key.startswith("[") else ""
        return InvalidValue(f"{prefix}{separator}{self.key}", self.value, self.allowed)


class UnusableInput(Exception):  # noqa: N818
    """Something outside the configuration that stops a run before it starts, told in one sentence."""


class RunFailed(Exception):  # noqa: N818
    """The run cannot go on, through no fault of its input; told in one sentence."""


def _shown(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return _printable(text if len(text) <= 120 else text[:117] + "...")


def _printable(text: str) -> str:
    """``text`` without line breaks and terminal codes: a candidate's file may come from anywhere."""
    return text if text.isprintable() else repr(text)


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise :class:`InvalidValue` unless ``condition`` holds."""
    if not condition:
        raise InvalidValue(key, value, allowed)
