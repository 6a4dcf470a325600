"""A surrogate of training: a Gaussian process, fitted on a truth, that says what any candidate would come to.

Rasmussen and Williams (2006), "Gaussian Processes for Machine Learning", chapters 2 and 5; the idea of a benchmark that
answers by a fitted model is that of Siems et al. (2020), "NAS-Bench-301 and the Case for Surrogate Benchmarks".
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from nas.candidate import Architecture, Candidate, Choice
from nas.errors import require
from nas.evaluation.truth import Truth, TruthRow
from nas.spaces.space import SearchSpace

LARGEST_LOSS = 2.0  # larger losses, infinite ones too, count as this many times log(classes), the loss of a guess
EDGE = 1e-3  # accuracies count as at least this far from 0 and from 1
FOLDS, FOLD_SEED = 5, 0
FITTED_ON = 450  # candidates that the kernel's parameters are fitted on; its gradient costs candidates^2 x columns
ITERATIONS = 40  # of L-BFGS on the kernel's parameters; later ones move those of columns without effect


@dataclass(frozen=True)
class Quality:
    """How well candidates that were left out are predicted: the logarithm of the validation loss, cross-validated.

    Attributes:
        candidates: Their number.
        r2, rank: R2 and Spearman's rank correlation over all of them.
        r2_better, rank_better: The same in the half with the smaller measured losses, where a search is decided. R2
            compares with that half's own mean there.
    """

    candidates: int
    r2: float
    rank: float
    r2_better: float
    rank_better: float

    def in_words(self) -> str:
        return (
            f"surrogate of {self.candidates} candidates, cross-validated: log validation loss R2 {self.r2:.3f}, "
            f"rank correlation {self.rank:.3f}; in the better half {self.r2_better:.2f}, {self.rank_better:.2f}"
        )


class Encoding:
    """Candidates as rows of numbers from 0 to 1.

    Options that are all positive numbers have one column, their logarithm. Of two other options the second is 1, and
    more than two have one column each. A hyperparameter is its place in its range. Choices of layers that another
    choice has switched off keep their columns.

    Args:
        space: The space with the ranges of its hyperparameters.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._columns = {choice.name: _option_columns(choice) for choice in space.choices if len(choice.options) > 1}

    def __call__(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """(candidates, columns)."""
        rows = []
        for candidate in candidates:
            row = [
                number for name, options in self._columns.items() for number in options[candidate.architecture[name]]
            ]
            row += [domain.to_unit(candidate.hyperparameters[name]) for name, domain in self.space.ranges.items()]
            rows.append(row)
        return np.array(rows, dtype=np.float64)


def _option_columns(choice: Choice) -> dict[str, tuple[float, ...]]:
    numbers = [_number(option) for option in choice.options]
    if min(numbers) > 0 and max(numbers) < math.inf and max(numbers) > min(numbers):
        low, high = math.log(min(numbers)), math.log(max(numbers))
        places = [(math.log(number) - low) / (high - low) for number in numbers]
        return {option: (place,) for option, place in zip(choice.options, places, strict=True)}
    if len(choice.options) == 2:
        return {choice.options[0]: (0.0,), choice.options[1]: (1.0,)}
    return {option: tuple(float(other == option) for other in choice.options) for option in choice.options}


def _number(option: str) -> float:
    try:
        number = float(option)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


class Surrogate:
    """Predicts losses and accuracies of candidates that nobody has trained.

    The kernel is a constant times a Matern kernel of smoothness 2.5, one length scale per column, plus white noise. Its
    parameters maximise the likelihood of the logarithm of the validation loss, and serve the other targets after the
    same number of epochs too. The same truth gives the same numbers.

    Args:
        truth: What it is fitted on, all trainings of a candidate included.
        epochs: The epochs after which validation losses and accuracies are predicted, rising; by default the whole
            training. A smaller number reads the curve of the whole training: its learning rate had not come down then,
            as it would have in a training of so many epochs.

    Attributes:
        targets: (name, epoch): the columns of what is predicted, ``validation_loss`` and ``validation_accuracy`` for
            each of ``epochs``, then ``test_loss`` and ``test_accuracy`` after the whole training.
        noise: (residuals, targets): what repeated trainings differ by, such that ``z @ noise`` of standard normal ``z``
            has the covariance that they have. From the better half of the repeated candidates, where a search is
            decided; it has no rows where the truth has no repeats.

    Raises:
        InvalidValue: The epochs do not fit the truth's.
    """

    def __init__(self, truth: Truth, epochs: Sequence[int] = ()) -> None:
        self.truth = truth
        self.epochs = tuple(epochs) or (truth.epochs,)
        rising = all(
            one < other for one, other in zip((0, *self.epochs), (*self.epochs, truth.epochs + 1), strict=True)
        )
        require(rising, "epochs", list(self.epochs), f"they must rise from 1 to at most {truth.epochs}, the truth's")
        validation = [(f"validation_{name}", epoch) for epoch in self.epochs for name in ("loss", "accuracy")]
        self.targets = (*validation, ("test_loss", truth.epochs), ("test_accuracy", truth.epochs))
        self.encoding = Encoding(truth.space)
        self._guess = math.log(truth.space.classes)
        self._columns = self.encoding([row.candidate for row in truth.rows])
        self._values = np.array([[self._transformed(row, *target) for target in self.targets] for row in truth.rows])
        self._kernels: dict[int, Any] = {}  # by epoch
        self._processes: list[Any] = []  # one per epoch; their targets stand in the order of self.targets
        with _one_thread():
            for epoch in dict.fromkeys((*self.epochs, truth.epochs)):
                losses = np.array([self._transformed(row, "validation_loss", epoch) for row in truth.rows])
                self._kernels[epoch] = kernel = self._fitted_kernel(losses)
                values = self._values[:, [one == epoch for _, one in self.targets]]
                self._processes.append(process_of(kernel, self._columns, values))
        self.noise = self._residuals(losses)

    def predict(self, candidates: Sequence[Candidate]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of every target, both (candidates, targets).

        They are of the logarithm of a loss and of the logit of an accuracy. The standard deviation includes that of one
        training.
        """
        columns = self.encoding(candidates)
        with _one_thread():
            found = [process.predict(columns, return_std=True) for process in self._processes]
        mean, deviation = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        return mean, deviation

    def means(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """The first part of :meth:`predict`, in a fraction of its time, to the same bits in whatever company."""
        with _one_thread():  # one at a time: sums over a batch are rounded by its size
            rows = [
                np.concatenate([process.predict(row[None])[0] for process in self._processes])
                for row in self.encoding(candidates)
            ]
        return np.array(rows).reshape(len(candidates), len(self.targets))

    def natural(self, values: np.ndarray) -> np.ndarray:
        """Losses in nats and accuracies from 0 to 1, of values on the scale of :meth:`predict`, (..., targets).

        They are medians, as logarithm and logit keep the order and not the mean.
        """
        losses = np.array([name.endswith("loss") for name, _ in self.targets])
        return np.where(losses, np.exp(np.where(losses, values, 0.0)), 1 / (1 + np.exp(-values)))

    @cached_property
    def quality(self) -> Quality:
        """Of the validation loss after the last of ``epochs``, from five folds of candidates; the kernel knows all."""
        from scipy.stats import spearmanr

        column = self.targets.index(("validation_loss", self.epochs[-1]))
        numbers = np.array([row.number for row in self.truth.rows])
        shuffled = np.random.default_rng(FOLD_SEED).permutation(np.unique(numbers))
        predicted, kernel = np.zeros(len(numbers)), self._kernels[self.epochs[-1]]
        with _one_thread():
            for fold in range(FOLDS):
                out = np.isin(numbers, shuffled[fold::FOLDS])  # all trainings of a candidate are left out together
                if out.any() and not out.all():
                    process = process_of(kernel, self._columns[~out], self._values[~out, column])
                    predicted[out] = process.predict(self._columns[out])
        first = np.array([row.repeat == 0 for row in self.truth.rows])
        actual, found = self._values[first, column], predicted[first]
        better = actual <= np.median(actual)
        scores = [
            (r_squared(actual[part], found[part]), float(spearmanr(actual[part], found[part]).statistic))
            for part in (slice(None), better)
        ]
        return Quality(int(first.sum()), *scores[0], *scores[1])

    def partial_dependence(self, choice: str) -> dict[str, float]:
        """By option of ``choice``: the mean logarithm of the validation loss over the truth's candidates with it.

        Every candidate gets the option, and keeps all else, so that the options' means differ by their effects alone.

        Raises:
            InvalidValue: The space has no such choice.
        """
        known = {one.name: one.options for one in self.truth.space.choices}
        require(choice in known, "choice", choice, f"it must be one of {', '.join(known)}")
        column = self.targets.index(("validation_loss", self.epochs[-1]))
        candidates = [row.candidate for row in self.truth.first]
        changed = {option: [with_option(one, choice, option) for one in candidates] for option in known[choice]}
        return {option: float(self.predict(ones)[0][:, column].mean()) for option, ones in changed.items()}

    def _transformed(self, row: TruthRow, name: str, epoch: int) -> float:
        value = row.results[name]
        if epoch < self.truth.epochs:
            value = (row.losses if name.endswith("loss") else row.accuracies)[epoch - 1]
        if name.endswith("loss"):
            return math.log(min(max(value, 1e-9), LARGEST_LOSS * self._guess))
        value = min(max(value, EDGE), 1 - EDGE)
        return math.log(value / (1 - value))

    def _fitted_kernel(self, values: np.ndarray) -> Any:
        """The kernel with the most likely parameters, for an evenly spread part of the candidates."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        first = [place for place, row in enumerate(self.truth.rows) if row.repeat == 0]
        part = [first[int(place)] for place in np.linspace(0, len(first) - 1, min(FITTED_ON, len(first)))]
        scales = np.full(self._columns.shape[1], 2.0)
        kernel = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(scales, (0.05, 1e3), nu=2.5) + WhiteKernel(0.02, (1e-6, 1.0))
        process = GaussianProcessRegressor(kernel, optimizer=_most_likely, normalize_y=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a choice without effect has an endless length scale
            return process.fit(self._columns[part], values[part]).kernel_

    def _residuals(self, losses: np.ndarray) -> np.ndarray:
        groups: dict[int, list[int]] = {}
        for place, row in enumerate(self.truth.rows):
            groups.setdefault(row.number, []).append(place)
        repeated = sorted((group for group in groups.values() if len(group) > 1), key=lambda one: losses[one].mean())
        better = repeated[: max(1, math.ceil(len(repeated) / 2))]
        if not better:
            return np.zeros((0, len(self.targets)))
        residuals = np.concatenate([self._values[group] - self._values[group].mean(axis=0) for group in better])
        return residuals / math.sqrt(len(residuals) - len(better))


def process_of(kernel: Any, columns: np.ndarray, values: np.ndarray) -> Any:
    """The Gaussian process of ``kernel`` as it is, given ``values`` at ``columns``."""
    from sklearn.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True).fit(columns, values)


def r_squared(actual: np.ndarray, predicted: np.ndarray) -> float:
    """The share of the variance of ``actual`` that ``predicted`` explains; 0 where there is none to explain."""
    total = float(((actual - actual.mean()) ** 2).sum())
    return 1 - float(((actual - predicted) ** 2).sum()) / total if total > 0 else 0.0


def with_option(candidate: Candidate, choice: str, option: str) -> Candidate:
    """``candidate`` with ``option`` instead of its own."""
    architecture = candidate.architecture
    return replace(candidate, architecture=Architecture(architecture.space, {**architecture, choice: option}))


def _most_likely(loss: Callable[..., Any], start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    from scipy.optimize import minimize

    found = minimize(loss, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": ITERATIONS})
    return found.x, found.fun


@cache
def _thread_pools() -> Any:
    import sklearn.gaussian_process  # noqa: F401  # the controller sees only libraries that are loaded already
    from threadpoolctl import ThreadpoolController  # scikit-learn needs it

    return ThreadpoolController()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums do not depend on the number of cores, and small ones are not slower."""
    with _thread_pools().limit(limits=1):
        yield
