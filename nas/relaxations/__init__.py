"""How architecture parameters become the weights of a mixed operation."""

from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Relaxation, Temperature, TemperedRelaxation
from nas.relaxations.softmax import Softmax

__all__ = ["GumbelSoftmax", "Relaxation", "Softmax", "Temperature", "TemperedRelaxation"]
