"""The DARTS space: two cells, stacked."""

from nas.spaces.darts.space import Darts, from_description

__all__ = ["Darts", "from_description"]
