"""The competitors of the gradient search: black-box methods on the same joint space, with the same budget."""

from nas.baselines.autohas import AutoHAS
from nas.baselines.evolution import AgingEvolution
from nas.baselines.genetic import Genetic, GeneticOperators
from nas.baselines.hyperband import Hyperband
from nas.baselines.mu_plus_lambda import MuPlusLambda
from nas.baselines.policy import Factorised, LSTMController
from nas.baselines.population import PopulationStrategy
from nas.baselines.reinforce import Reinforce
from nas.baselines.search import BlackBoxSearch
from nas.baselines.strategy import EncodedStrategy, RandomSearch, Scored, Strategy
from nas.baselines.tpe import TPE

__all__ = [
    "TPE",
    "AgingEvolution",
    "AutoHAS",
    "BlackBoxSearch",
    "EncodedStrategy",
    "Factorised",
    "Genetic",
    "GeneticOperators",
    "Hyperband",
    "LSTMController",
    "MuPlusLambda",
    "PopulationStrategy",
    "RandomSearch",
    "Reinforce",
    "Scored",
    "Strategy",
]
