"""How architecture parameters become the weights of a mixed operation."""

from nas.relaxations.dirichlet import Dirichlet
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature, TemperedRelaxation
from nas.relaxations.sigmoid import Sigmoid
from nas.relaxations.simplex import Simplex
from nas.relaxations.softmax import Softmax

__all__ = [
    "Dirichlet",
    "GumbelSoftmax",
    "Relaxation",
    "Sigmoid",
    "Simplex",
    "Softmax",
    "Temperature",
    "TemperedRelaxation",
]
