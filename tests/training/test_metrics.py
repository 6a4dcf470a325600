"""The metrics of a network on a whole data set."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.data.batches import Batch
from nas.signature import Signature
from nas.tasks import Classification
from nas.training.metrics import measure

CPU = torch.device("cpu")


def batches_of(images: Tensor, labels: Tensor, size: int) -> list[Batch]:
    return [Batch(*pair) for pair in zip(images.split(size), labels.split(size), strict=True)]


def classes(count: int) -> Classification:
    return Classification.of(Signature((count,), count))


def by_hand(logits: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, float]:
    """The metrics from their definitions: over all samples at once, one class after the other."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    predictions = logits.argmax(1)
    scores, recalls = [], []
    for label in range(classes):
        hits = int(((predictions == label) & (labels == label)).sum())
        predicted, present = int((predictions == label).sum()), int((labels == label).sum())
        if predicted + present == 0:
            continue
        precision = hits / predicted if predicted else 0.0
        recall = hits / present if present else 0.0
        recalls.append(recall)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return {
        "loss": float(-np.log(probabilities[np.arange(len(labels)), labels]).mean()),
        "accuracy": float((predictions == labels).mean()),
        "macro_f1": float(np.mean(scores)),
        "macro_recall": float(np.mean(recalls)),
    }


def test_metrics_are_those_of_all_samples_though_the_last_batch_is_smaller():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(23, 4, generator=generator)
    labels = torch.randint(4, (23,), generator=generator)
    metrics = measure(nn.Identity(), batches_of(logits, labels, 10), classes(4), CPU)
    assert metrics.samples == 23
    for name, value in by_hand(logits.numpy().astype(float), labels.numpy(), 4).items():
        assert metrics.numbers()[name] == pytest.approx(value, abs=1e-6), name


def test_classes_that_are_never_seen_do_not_count_and_those_wrongly_predicted_count_with_zero():
    # Of five classes, 0 and 1 are labels, 2 is only ever predicted, 3 and 4 are neither.
    predictions, labels = torch.tensor([0, 0, 1, 2, 0]), torch.tensor([0, 0, 1, 1, 1])
    logits = 3 * nn.functional.one_hot(predictions, 5).float()
    metrics = measure(nn.Identity(), batches_of(logits, labels, 2), classes(5), CPU)
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["macro_recall"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert metrics["macro_f1"] == pytest.approx((2 * 2 / 5 + 2 * 1 / 4 + 0) / 3)


def test_a_loss_that_is_not_finite_is_told_as_it_is():
    logits, labels = torch.tensor([[math.nan, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    assert math.isnan(measure(nn.Identity(), batches_of(logits, labels, 1), classes(2), CPU).loss)


def partly_frozen_network() -> nn.Sequential:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    network.train()
    network[1].eval()
    return network


def test_the_network_is_measured_in_evaluation_mode_and_left_as_it_was():
    network = partly_frozen_network()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = torch.randn(9, 4), torch.arange(9) % 3
    metrics = measure(network, batches_of(images, labels, 4), classes(3), CPU)

    assert [module.training for module in network] == [True, False, True, True]
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        logits = network.eval()(images)
    assert metrics.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-6)


def test_no_graph_is_built():
    seen = []
    network = nn.Linear(4, 3)
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    measure(network, batches_of(torch.ones(2, 4), torch.tensor([0, 1]), 2), classes(3), CPU)
    assert seen == [False]


def test_the_modes_come_back_even_if_the_network_fails():
    network = partly_frozen_network()
    with pytest.raises(RuntimeError):
        measure(network, batches_of(torch.ones(2, 5), torch.tensor([0, 1]), 2), classes(3), CPU)
    assert [module.training for module in network] == [True, False, True, True]


def test_measuring_on_nothing_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        measure(nn.Identity(), [], classes(3), CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_metrics():
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(23, 4, generator=generator), torch.randint(4, (23,), generator=generator)
    batches = batches_of(logits, labels, 10)
    there, here = (measure(nn.Identity(), batches, classes(4), one) for one in (torch.device("cuda"), CPU))
    assert there.loss == pytest.approx(here.loss, rel=1e-5)
    assert (there["accuracy"], there["macro_f1"]) == pytest.approx((here["accuracy"], here["macro_f1"]), rel=1e-6)
