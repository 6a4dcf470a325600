"""The bilevel problem, its hypergradients, and one step of both levels."""

from nas.bilevel.architecture_optimiser import Adam, ArchitectureOptimiser
from nas.bilevel.by_kind import ByKind
from nas.bilevel.clipped_adam import ClippedAdam
from nas.bilevel.data_parallel import data_parallel
from nas.bilevel.exact import Exact
from nas.bilevel.exponentiated_gradient import ExponentiatedGradient
from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.forward_accumulation import ForwardAccumulation
from nas.bilevel.hypergradient import Hypergradient, Report
from nas.bilevel.implicit import ConjugateGradient, NeumannSeries
from nas.bilevel.last_step import LastStep, LastStepOrExact
from nas.bilevel.optimiser import BilevelOptimiser
from nas.bilevel.perturbation import AdversarialPerturbation, Perturbation, RandomPerturbation
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.published_recurrent import PublishedRecurrent
from nas.bilevel.regulariser import BetaDecay, DirichletKL, Entropy, Regulariser, ZeroOne
from nas.bilevel.single_level import SingleLevel
from nas.bilevel.smoothed import Smoothed

__all__ = [
    "Adam",
    "AdversarialPerturbation",
    "ArchitectureOptimiser",
    "BetaDecay",
    "BilevelOptimiser",
    "BilevelProblem",
    "ByKind",
    "ClippedAdam",
    "ConjugateGradient",
    "DirichletKL",
    "Entropy",
    "Exact",
    "ExponentiatedGradient",
    "FiniteDifference",
    "FirstOrder",
    "ForwardAccumulation",
    "Hypergradient",
    "LastStep",
    "LastStepOrExact",
    "NeumannSeries",
    "Perturbation",
    "PublishedRecurrent",
    "RandomPerturbation",
    "Regulariser",
    "Report",
    "SingleLevel",
    "Smoothed",
    "ZeroOne",
    "data_parallel",
]
