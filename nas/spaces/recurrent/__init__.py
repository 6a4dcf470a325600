"""The recurrent space: a language model around one cell."""

from nas.spaces.recurrent.space import Recurrent, from_description

__all__ = ["Recurrent", "from_description"]
