"""The gradient search, and what is built on it."""

from nas.search.callback import Callback, SeenStep
from nas.search.coarse_to_fine import CoarseToFine
from nas.search.cross_validation import CrossValidated
from nas.search.discretisation import Alone, AloneOrStrongest, Discretisation, Strongest, Trained
from nas.search.few_skips import FewSkips
from nas.search.gradient_search import GradientSearch
from nas.search.guard import GuardSettings
from nas.search.line_search import LineSearch
from nas.search.multi_start import MultiStart
from nas.search.neighbours import Neighbours
from nas.search.parts import SearchParts, SearchSettings
from nas.search.removal import Removal
from nas.search.result import Search, SearchResult
from nas.search.shrinking import Mask
from nas.search.staged import Staged
from nas.search.stopping_rules import Converged, Eigenvalue, Skips, StoppingRule
from nas.search.threshold import Threshold

__all__ = [
    "Alone",
    "AloneOrStrongest",
    "Callback",
    "CoarseToFine",
    "Converged",
    "CrossValidated",
    "Discretisation",
    "Eigenvalue",
    "FewSkips",
    "GradientSearch",
    "GuardSettings",
    "LineSearch",
    "Mask",
    "MultiStart",
    "Neighbours",
    "Removal",
    "Search",
    "SearchParts",
    "SearchResult",
    "SearchSettings",
    "SeenStep",
    "Skips",
    "Staged",
    "StoppingRule",
    "Strongest",
    "Threshold",
    "Trained",
]
