"""The NAS-Bench-201 space: one cell, stacked."""

from nas.spaces.nasbench201.space import NasBench201, from_description

__all__ = ["NasBench201", "from_description"]
