"""The recurrent space: a language model around one cell."""

from nas.spaces.recurrent.space import Recurrent

__all__ = ["Recurrent"]
