"""Black-box methods that search the same joint space at the same budget."""

from nas.baselines.evolution import AgingEvolution
from nas.baselines.genetic import Genetic, GeneticOperators, MuPlusLambda
from nas.baselines.policy import Factorised, LSTMController
from nas.baselines.reinforce import Reinforce
from nas.baselines.search import BlackBoxSearch
from nas.baselines.strategy import EncodedStrategy, RandomSearch, Scored, Strategy
from nas.baselines.tpe import TPE

__all__ = [
    "TPE",
    "AgingEvolution",
    "BlackBoxSearch",
    "EncodedStrategy",
    "Factorised",
    "Genetic",
    "GeneticOperators",
    "LSTMController",
    "MuPlusLambda",
    "RandomSearch",
    "Reinforce",
    "Scored",
    "Strategy",
]
