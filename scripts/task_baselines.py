"""A part of ``benchmark_tasks.py``: what simple methods reach on the same parts, measured by the project's tasks.

All of them are fitted on training and validation part together, as the retraining is, to inputs that the project has
prepared. Their own settings are chosen by cross-validation on these parts, or are the usual ones: none is tuned on a
test part.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from task_networks import lstm_measures, network_outputs, one_hot
from torch import Tensor

from nas.data.data_splits import DataSplits
from nas.data.texts.text_stream import TextDataset
from nas.tasks import Task

PATCH = 7  # a side of what a linear model of places sees, which is as much as three convolutions of 3 x 3 do
PLACES = 20_000  # that it is fitted to at most
STRENGTHS = np.logspace(-3, 4, 15)  # of ridge regression
INVERSE_STRENGTHS = np.logspace(-3, 3, 7)  # of logistic regression
LONGEST_GRAMS = {"bigram": 2, "trigram": 3, "6-gram": 6}


class Parts:
    """Inputs and targets as a method of scikit-learn takes them.

    Attributes:
        inputs: (N, F), categorical columns as a column per category.
        targets: (N, ...) as the task has them: class numbers, standardised numbers, labels.
    """

    def __init__(self, splits: DataSplits) -> None:
        self.splits = splits
        known = splits.train_and_validation()
        self.inputs, self.targets = self._taken(known)
        self.test_inputs, self.test_targets = self._taken(splits.test)

    def _taken(self, dataset: Any) -> tuple[np.ndarray, Tensor]:
        batches = list(dataset.evaluation_batches(256, self.splits.mean, self.splits.std))
        inputs = torch.cat([batch.inputs for batch in batches])
        return one_hot(inputs, self.splits.categories).numpy(), torch.cat([batch.targets for batch in batches])

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The flat inputs of both."""
        return self.inputs.reshape(len(self.inputs), -1), self.test_inputs.reshape(len(self.test_inputs), -1)


def measured(task: Task, outputs: Tensor, targets: Tensor) -> dict[str, float]:
    metrics = task.metrics(torch.device("cpu"))
    metrics.update(outputs, targets)
    return metrics.compute()


def outputs_of(model: Any, parts: Parts, task: Task, inputs: tuple[np.ndarray, np.ndarray] | None = None) -> Tensor:
    """The outputs for the test part of a classifier or regressor of scikit-learn, as a network would give them."""
    known, test = inputs or parts.rows
    targets = parts.targets.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that could go on, or of a fold without a class
        if targets.ndim == 2 and task.name == "multi_label":
            columns = [model().fit(known, column).predict_proba(test)[:, 1] for column in targets.T]
            return torch.from_numpy(np.stack(columns, 1)).logit().clamp(-50, 50).float()
        fitted = model().fit(known, targets[:, 0] if targets.ndim == 2 else targets)
        if task.name == "regression":
            return torch.from_numpy(fitted.predict(test)).float().reshape(len(test), -1)
        outputs = torch.full((len(test), task.signature.outputs), -50.0)
        outputs[:, torch.from_numpy(fitted.classes_)] = torch.from_numpy(fitted.predict_proba(test)).log().float()
        return outputs


def linear() -> Any:
    """Ridge regression with generalised cross-validation."""
    from sklearn.linear_model import RidgeCV

    return RidgeCV(STRENGTHS)


def logistic() -> Any:
    """Logistic regression with five-fold cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    return GridSearchCV(LogisticRegression(max_iter=2000), {"C": INVERSE_STRENGTHS}, scoring="neg_log_loss")


def trivial(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
    return task.measured_without_inputs(splits.test.targets)


def linear_model(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
    parts = Parts(splits)
    outputs = outputs_of(linear if task.name == "regression" else logistic, parts, task)
    return measured(task, outputs, parts.test_targets)


def forest(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestRegressor if task.name == "regression" else RandomForestClassifier
    parts = Parts(splits)
    outputs = outputs_of(lambda: kind(n_estimators=300, random_state=seed, n_jobs=1), parts, task)
    return measured(task, outputs, parts.test_targets)


def boosting(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if task.name == "regression" else HistGradientBoostingClassifier
    parts = Parts(splits)
    return measured(task, outputs_of(lambda: kind(random_state=seed), parts, task), parts.test_targets)


def nearest(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
    """The class of the nearest series in Euclidean distance."""
    from sklearn.neighbors import KNeighborsClassifier

    parts = Parts(splits)
    return measured(task, outputs_of(lambda: KNeighborsClassifier(1), parts, task), parts.test_targets)


def linear_of_fields(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
    """Ridge regression of all places on all places."""
    parts = Parts(splits)
    known, test = parts.rows
    found = linear().fit(known, parts.targets.flatten(1).numpy()).predict(test)
    return measured(task, torch.from_numpy(found).float().view_as(parts.test_targets), parts.test_targets)


def linear_of_patches(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
    """Logistic regression of the surroundings of each place."""
    from sklearn.linear_model import LogisticRegression

    parts = Parts(splits)
    known, test = patches(parts.inputs), patches(parts.test_inputs)
    chosen = np.random.default_rng(0).permutation(len(known))[:PLACES]
    sides = parts.test_targets.shape[-2:]
    fitted = LogisticRegression(max_iter=200).fit(known[chosen], parts.targets.numpy().reshape(-1)[chosen])
    found = np.full((len(test), task.signature.outputs), -50.0)
    found[:, fitted.classes_] = fitted.predict_log_proba(test)
    outputs = torch.from_numpy(found).float().reshape(len(parts.test_inputs), *sides, -1).movedim(-1, 1)
    return measured(task, outputs.contiguous(), parts.test_targets)


def patches(inputs: np.ndarray) -> np.ndarray:
    """(N * H * W, C * PATCH * PATCH) of inputs (N, C, H, W); beyond an edge they are 0."""
    unfolded = torch.nn.functional.unfold(torch.from_numpy(inputs), PATCH, padding=PATCH // 2)
    return unfolded.transpose(1, 2).flatten(0, 1).numpy()


def network(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
    """The small network."""
    outputs, targets = network_outputs(task, splits, seed)
    return measured(task, outputs, targets)


def lstm(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
    return lstm_measures(task, splits, seed)


def n_gram(order: int) -> Callable[[Task, DataSplits, int], dict[str, float]]:
    def found(task: Task, splits: DataSplits, seed: int) -> dict[str, float]:
        """Fitted on the training part; its one weight is chosen on the validation part, then on both parts' counts."""
        train, validation, test = splits.train, splits.validation, splits.test
        assert isinstance(train, TextDataset)
        assert isinstance(validation, TextDataset)
        assert isinstance(test, TextDataset)
        size = task.signature.outputs
        known = train.tokens.tolist()
        tried = {
            weight: float(np.mean(nats_per_token(known, validation.tokens.tolist(), size, order, weight)))
            for weight in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
        }
        best = min(tried, key=tried.__getitem__)
        both = known + validation.tokens.tolist()
        nats = float(np.mean(nats_per_token(both, test.tokens.tolist(), size, order, best)))
        return {"perplexity": float(np.exp(nats)), "bits_per_token": nats / float(np.log(2))}

    return found


def nats_per_token(known: Sequence[int], text: Sequence[int], size: int, order: int, weight: float) -> list[float]:
    """Minus the log probability of each token of ``text``, the first of which has no context.

    The shortest context, none, starts from 1 / ``size``. A context c of n - 1 tokens, seen N(c) times with D(c)
    different followers, gives (N(c, t) + w p) / (N(c) + w) with w = ``weight`` * D(c) / (D(c) + 1) and p the
    probability that the context without its oldest token gives: interpolation as of Witten and Bell, with a weight to
    choose.
    """
    counts: list[dict[tuple[int, ...], dict[int, int]]] = [{} for _ in range(order)]
    for place, token in enumerate(known):
        for length in range(min(order - 1, place) + 1):
            followers = counts[length].setdefault(tuple(known[place - length : place]), {})
            followers[token] = followers.get(token, 0) + 1
    totals = [{context: sum(of.values()) for context, of in one.items()} for one in counts]
    found = []
    for place, token in enumerate(text):
        probability = 1 / size
        for length in range(min(order - 1, place) + 1):
            context = tuple(text[place - length : place])
            followers = counts[length].get(context, {})
            if not followers:
                break  # nor has any longer one been seen
            share = weight * len(followers) / (len(followers) + 1)
            probability = (followers.get(token, 0) + share * probability) / (totals[length][context] + share)
        found.append(-float(np.log(probability)))
    return found


Baseline = Callable[[Task, DataSplits, int], Mapping[str, float]]
SMALL = {"tables": "MLP", "series": "CNN", "dense": "CNN", "language": "LSTM-128"}
"""The small network of each kind of data, by its name among the methods."""
BASELINES: dict[str, dict[str, Baseline]] = {
    "tables": {"trivial": trivial, "linear": linear_model, "forest": forest, "boosting": boosting, "MLP": network},
    "series": {"trivial": trivial, "linear": linear_model, "1-NN": nearest, "forest": forest, "CNN": network},
    "dense_regression": {"trivial": trivial, "linear": linear_of_fields, "CNN": network},
    "dense_classification": {"trivial": trivial, "linear": linear_of_patches, "CNN": network},
    "multi_label": {"trivial": trivial, "linear": linear_model, "CNN": network},
    "language": {
        "unigram": trivial,
        **{name: n_gram(order) for name, order in LONGEST_GRAMS.items()},
        "LSTM-128": lstm,
    },
}
DRAWN = {"forest", "MLP", "CNN", "LSTM-128"}
"""Those that depend on a seed; the others are computed once."""
