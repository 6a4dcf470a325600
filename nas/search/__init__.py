"""The gradient search, and what is built on it."""

from nas.search.callback import Callback, SeenStep
from nas.search.discretisation import Alone, Discretisation, Strongest
from nas.search.gradient_search import GradientSearch
from nas.search.guard import GuardSettings
from nas.search.line_search import LineSearch
from nas.search.multi_start import MultiStart
from nas.search.parts import SearchParts, SearchSettings
from nas.search.removal import Removal
from nas.search.result import Search, SearchResult

__all__ = [
    "Alone",
    "Callback",
    "Discretisation",
    "GradientSearch",
    "GuardSettings",
    "LineSearch",
    "MultiStart",
    "Removal",
    "Search",
    "SearchParts",
    "SearchResult",
    "SearchSettings",
    "SeenStep",
    "Strongest",
]
