"""The gradient search, and what is built on it."""

from nas.search.discretisation import Discretisation, Perturbation, Strongest
from nas.search.gradient_search import GradientSearch
from nas.search.guard import GuardSettings
from nas.search.line_search import Rehearsal
from nas.search.multi_start import SeveralStarts
from nas.search.parts import SearchParts, SearchSettings
from nas.search.refined_search import RefinedSearch
from nas.search.searcher import Searcher

__all__ = [
    "Discretisation",
    "GradientSearch",
    "GuardSettings",
    "Perturbation",
    "RefinedSearch",
    "Rehearsal",
    "SearchParts",
    "SearchSettings",
    "Searcher",
    "SeveralStarts",
    "Strongest",
]
