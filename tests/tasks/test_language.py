"""The language task: its numbers against what they mean, and what looks at no input."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nas.data.texts.text import Text
from nas.data.texts.text_stream import TextDataset
from nas.errors import UnusableInput
from nas.tasks import Auto, Language
from tests.problems import digits


@pytest.fixture
def task(tmp_path: Path) -> Language:
    (tmp_path / "book.txt").write_text("abcabd" * 30, encoding="utf-8")
    splits = Text(file=str(tmp_path / "book.txt"), level="character", length=4).load()
    fitted, _ = Auto().fitted(splits)
    assert isinstance(fitted, Language)
    assert isinstance(splits.train, TextDataset)
    return fitted


def test_perplexity_and_bits_are_those_of_the_mean_loss(task: Language) -> None:
    assert task.signature.outputs == 5
    logits, targets = torch.randn(6, 4, 5), torch.randint(5, (6, 4))
    loss = float(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    metrics = task.metrics(torch.device("cpu"))
    for part in (slice(0, 2), slice(2, 6)):
        metrics.update(logits[part], targets[part])
    found = metrics.compute()
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
    assert found["bits_per_token"] == pytest.approx(loss / math.log(2), rel=1e-6)
    assert task.score(found) == pytest.approx(-loss, rel=1e-6)
    assert float(task.loss(logits, targets)) == pytest.approx(loss, rel=1e-6)
    assert float(task.loss(logits, targets, reduction="none").mean()) == pytest.approx(loss, rel=1e-6)
    assert float(task.reported_loss(logits, targets)) / task.count(targets) == pytest.approx(loss, rel=1e-6)


def test_a_shorter_batch_has_a_lower_rate(task: Language) -> None:
    assert task.rate_factor(torch.zeros(3, 4)) == 1.0
    assert task.rate_factor(torch.zeros(3, 2)) == 0.5


def test_what_looks_at_no_input_knows_how_often_tokens_are_there(task: Language) -> None:
    targets = torch.randint(1, 5, (3, 4))
    metrics = task.metrics(torch.device("cpu"))
    metrics.update(task.trivial(targets), targets)
    assert task.measured_without_inputs(targets) == pytest.approx(metrics.compute())
    assert math.isclose(float(task.unigram.exp().sum()), 1.0, rel_tol=1e-9)


def test_images_are_no_text() -> None:
    with pytest.raises(UnusableInput, match="no running text"):
        Language().fitted(digits())
