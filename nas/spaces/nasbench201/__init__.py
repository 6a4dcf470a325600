"""The NAS-Bench-201 space: one cell, stacked."""

from nas.spaces.nasbench201.space import NasBench201

__all__ = ["NasBench201"]
