"""The text that a retrained language model goes on with: drawn as it should be, and shown."""

import json
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.data.texts.text_stream import TextDataset
from nas.report import continuation
from nas.report.continuation import TEMPERATURE, continued_text
from nas.signature import Signature
from nas.spaces import Recurrent, Transformer
from tests.report.conftest import by_epoch, write_curves
from tests.report.test_task_words import texts_of

LENGTH, VOCABULARY = 4, ["<unk>", "<b>", "<eos>", "a"]
SIGNATURE = Signature((LENGTH,), len(VOCABULARY), "sequence", (len(VOCABULARY),))


def splits_of(level: str) -> DataSplits:
    text = TextDataset(torch.tensor([1, 2, 3, 0, 2, 1, 3, 3, 2, 1, 3, 2]), LENGTH)
    preparation = {"level": level, "vocabulary": VOCABULARY}
    return DataSplits("text", text, text, text, (), (), categories=(4,), head="sequence", preparation=preparation)


def network_of(kind: str) -> nn.Module:
    torch.manual_seed(3)
    space: Any = Transformer(width=4, layers=1, optional=0, heads=(1, 2), signature=SIGNATURE)
    if kind == "recurrent":
        space = Recurrent(width=3, final_width=4, nodes=2, signature=SIGNATURE)
    network: nn.Module = space.network(space.sample(Generator().manual_seed(2)).architecture)
    for weight in network.parameters():
        nn.init.normal_(weight)
    return network.train()


@pytest.mark.parametrize("level", ["word", "character"])
@pytest.mark.parametrize("kind", ["recurrent", "transformer"])
def test_each_token_is_drawn_from_what_the_network_gives_after_all_before_it(
    kind: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(continuation.GIVEN, level, 6)
    monkeypatch.setitem(continuation.DRAWN, level, 5)
    network, splits = network_of(kind), splits_of(level)
    found = continued_text(network, splits, Generator().manual_seed(1))["continuation"]
    assert network.training
    assert found == continued_text(network, splits, Generator().manual_seed(1))["continuation"]
    tokens, generator = splits.test.tokens[:6].tolist(), Generator().manual_seed(1)  # type: ignore[attr-defined]
    network.eval()
    for _ in range(5):
        seen = tokens if kind == "recurrent" else tokens[-LENGTH:]
        with torch.no_grad():
            logits: Tensor = network(torch.tensor([seen]))[0, -1].double()
        weights = (logits / TEMPERATURE).exp()
        weights[0] = 0  # <unk> says nothing
        tokens.append(int(torch.multinomial(weights / weights.sum(), 1, generator=generator)))
    texts = [VOCABULARY[token] for token in tokens]
    given, drawn = texts[:6], texts[6:]
    if level == "character":
        assert (found["beginning"], found["continued"]) == ("".join(given), "".join(drawn))
    else:
        assert found["beginning"] == "<b>\na <unk>\n<b>"
        assert found["continued"].split() == [text for text in drawn if text != "<eos>"]


def test_nothing_is_drawn_where_the_data_are_no_running_text_or_a_network_gives_no_numbers() -> None:
    splits, network = splits_of("word"), network_of("recurrent")
    images = ArrayDataset(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))
    generator = Generator().manual_seed(1)
    before = generator.get_state()
    assert continued_text(network, DataSplits("images", images, images, images, (0.0,), (1.0,)), generator) == {}
    assert torch.equal(generator.get_state(), before)
    nn.init.constant_(next(network.parameters()), torch.nan)
    assert continued_text(network, splits, generator) == {}


def test_the_page_shows_it_as_text(run_folder: Any) -> None:
    folder = run_folder()
    write_curves(folder / "final" / "metrics.csv", {"train/loss": by_epoch([1.0])})
    entry: dict[str, Any] = {"beginning": "<b>once", "continued": "</pre>upon", "temperature": 0.8}
    for written, shown in ((entry, True), ({**entry, "continued": 3}, False), ([], False)):
        result = {"test_perplexity": 9.0, "continuation": written}
        (folder / "final" / "result.json").write_text(json.dumps(result))
        texts = texts_of(folder)
        assert ("<b>once" in texts and "</pre>upon" in texts) == shown
        assert any("at a temperature of 0.8" in text for text in texts) == shown
