"""Running text: how it is read and cut, its vocabulary, and its batches, which go on with each other."""

from pathlib import Path

import pytest
import torch
from torch import Generator

from nas.data.texts.text import Text, TextSplit, manual
from nas.data.texts.text_stream import TextDataset
from nas.errors import InvalidValue, UnusableInput

LINES = [f"a b {word}" for word in ("c", "d", "e", "f", "g", "h") * 3 + ("c", "d")]


def text_of(folder: Path, lines: list[str] = LINES, name: str = "book.txt", **settings: object) -> Text:
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    usual = {"length": 3, "split": TextSplit(0.2, 0.2)}
    return Text(file=str(folder / name), **{**usual, **settings})  # type: ignore[arg-type]


def test_words_of_the_training_part_by_frequency_with_ends_of_lines(tmp_path: Path) -> None:
    splits = text_of(tmp_path).load()
    vocabulary = splits.preparation["vocabulary"]
    assert vocabulary == ["<unk>", "a", "b", "<eos>", "c", "d", "e", "f", "g", "h"]
    assert splits.categories == (len(vocabulary),)
    train = splits.train
    assert isinstance(train, TextDataset)
    assert [vocabulary[token] for token in train.tokens[:8]] == ["a", "b", "c", "<eos>", "a", "b", "d", "<eos>"]
    words = [vocabulary[token] for part in (splits.validation, splits.test) for token in part.tokens.tolist()]  # type: ignore[attr-defined]
    assert "<unk>" not in words


def test_rare_words_and_those_beyond_the_vocabulary_are_unknown(tmp_path: Path) -> None:
    lines = ["a a a b b rare"] * 1 + ["a b c"] * 9 + ["a new b"] * 6
    rare = text_of(tmp_path, lines, split=TextSplit(0.3, 0.3)).load()
    assert "rare" not in rare.preparation["vocabulary"]
    few = text_of(tmp_path, lines, vocabulary=3, split=TextSplit(0.3, 0.3)).load()
    assert len(few.preparation["vocabulary"]) == 3
    assert int(few.test.tokens.eq(0).sum()) > 0  # type: ignore[attr-defined]


def test_other_test_words_change_nothing_of_the_vocabulary_but_the_digest(tmp_path: Path) -> None:
    one, other = text_of(tmp_path).load(), text_of(tmp_path, [*LINES[:-2], "z z z", "z z z"]).load()
    assert one.preparation == other.preparation
    assert len(one.digest) == 64
    assert one.digest != other.digest


def test_characters(tmp_path: Path) -> None:
    splits = text_of(tmp_path, ["ab ba"] * 12, level="character").load()
    assert splits.preparation["vocabulary"][0] == "<unk>"
    assert set(splits.preparation["vocabulary"][1:]) == set("ab \n")


def test_a_file_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = text_of(tmp_path).load()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Text(file="~/book.txt", length=3, split=TextSplit(0.2, 0.2)).load().digest == whole.digest


def test_a_folder_with_its_own_parts_and_one_with_files_that_are_one_text(tmp_path: Path) -> None:
    own, books = tmp_path / "own", tmp_path / "books"
    for folder in (own, books):
        folder.mkdir()
    for name in ("train.txt", "valid.txt", "test.txt"):
        (own / name).write_text("\n".join(LINES[:12]), encoding="utf-8")
    splits = Text(folder=str(own), length=3).load()
    assert len(splits.train.tokens) == len(splits.test.tokens) == 48  # type: ignore[attr-defined]
    for number in (2, 1):
        (books / f"{number}.txt").write_text("\n".join(f"{number} {line}" for line in LINES), encoding="utf-8")
    splits = Text(folder=str(books), length=3).load()
    vocabulary, tokens = splits.preparation["vocabulary"], splits.train.tokens  # type: ignore[attr-defined]
    assert vocabulary[tokens[0]] == "1"
    (own / "test.txt").unlink()
    with pytest.raises(InvalidValue, match=r"needs test\.txt"):
        Text(folder=str(own), length=3).load()


@pytest.mark.parametrize("name", ["val", "validation", "dev", "Valid"])
def test_texts_of_parts_are_called_as_folders_of_parts(name: str, tmp_path: Path) -> None:
    for number, part in enumerate(("train", name, "test"), start=10):
        (tmp_path / f"{part}.txt").write_text("\n".join(LINES[:number]), encoding="utf-8")
    splits = Text(folder=str(tmp_path), length=3).load()
    assert [len(part.tokens) for part in splits.parts.values()] == [40, 44, 48]  # type: ignore[attr-defined]
    (tmp_path / "Testing.txt").write_text("a")
    with pytest.raises(InvalidValue, match=r"it has Testing\.txt, test\.txt, .* names of the test part: keep one"):
        Text(folder=str(tmp_path), length=3).load()


def test_mistakes(tmp_path: Path) -> None:
    for settings, key in (
        ({"file": "x", "folder": "y"}, "file"),
        ({"vocabulary": 1}, "vocabulary"),
        ({"length": 1}, "length"),
        ({"at_least": 0}, "at_least"),
    ):
        with pytest.raises(InvalidValue) as refused:
            Text(**settings)  # type: ignore[arg-type]
        assert refused.value.key == key
    for settings, key in (({"file": "nowhere.txt"}, "file"), ({"folder": str(tmp_path)}, "folder")):
        with pytest.raises(InvalidValue) as refused:
            Text(**settings).load()
        assert refused.value.key == key
    with pytest.raises(UnusableInput, match="take a longer text"):
        text_of(tmp_path, ["a b"]).load()
    with pytest.raises(UnusableInput, match=r"^The text is empty, there is nothing in .*book\.txt\.$"):
        text_of(tmp_path, []).load()
    (tmp_path / "image.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UnusableInput, match="no text in UTF-8: convert it, for example with iconv -f latin1 -t utf-8"):
        Text(file=str(tmp_path / "image.txt")).load()
    (tmp_path / "image.txt").write_bytes(b"\xff\xd8\0")
    with pytest.raises(UnusableInput, match=r"no text in UTF-8: save the text anew, in UTF-8\.$"):
        Text(file=str(tmp_path / "image.txt")).load()
    (tmp_path / "reviews.JSONL").write_text(900 * '{"text": "good", "label": 1}\n')
    with pytest.raises(UnusableInput, match=r"is no running text, but has records: save them as CSV, of which"):
        Text(file=str(tmp_path / "reviews.JSONL")).load()
    (tmp_path / "book.pdf").write_bytes(b"%PDF-1.4 " + 900 * b"word ")
    with pytest.raises(UnusableInput, match="is no text, but a PDF document: save its text as"):
        Text(file=str(tmp_path / "book.pdf")).load()
    (tmp_path / "book.txt").write_text("one\ntwo \0 three\n")
    with pytest.raises(UnusableInput, match=r"has a NUL character, .*, in line 2, column 5 \(1 in all\): remove it"):
        Text(file=str(tmp_path / "book.txt")).load()
    with pytest.raises(InvalidValue):
        TextSplit(0.5, 0.5)


def test_the_embedded_text_is_there() -> None:
    assert len(manual()) > 100_000


def test_batches_go_on_with_each_other_and_begin_again_with_an_empty_memory() -> None:
    text = TextDataset(torch.arange(26), 4)
    assert (len(text), text.input_shape) == (6, (4,))
    assert torch.equal(text.targets, text.inputs + 1)
    stream = text.stream(2, (), (), Generator())
    assert stream.steps_per_epoch == 3
    first, second = stream.next(), stream.next()
    assert torch.equal(first.inputs, torch.tensor([[0, 1, 2, 3], [13, 14, 15, 16]]))
    assert torch.equal(first.targets, first.inputs + 1)
    assert torch.equal(second.inputs, first.inputs + 4)
    assert first.state is None
    stream.carry(torch.ones(2, 5))
    third, again = stream.next(), stream.next()
    assert third.state is not None
    assert torch.equal(again.inputs, first.inputs)
    assert again.state is None


def test_a_saved_place_has_the_memory_and_fits_one_text_only() -> None:
    text = TextDataset(torch.arange(26), 4, varied=True)
    stream, other = (text.stream(2, (), (), Generator().manual_seed(1)) for _ in range(2))
    stream.next()
    stream.carry(torch.full((2, 5), 3.0))
    other.load_state_dict(stream.state_dict())
    following, expected = other.next(), stream.next()
    assert following.state is not None
    assert expected.state is not None
    assert torch.equal(following.inputs, expected.inputs)
    assert torch.equal(following.state, expected.state)
    with pytest.raises(UnusableInput, match="2 rows of 13 tokens"):
        TextDataset(torch.arange(40), 4).stream(2, (), (), Generator()).load_state_dict(stream.state_dict())


def test_some_batches_are_half_as_long() -> None:
    stream = TextDataset(torch.arange(40_000), 8, varied=True).stream(2, (), (), Generator().manual_seed(0))
    lengths = [stream.next().inputs.shape[1] for _ in range(1000)]
    assert set(lengths) == {4, 8}
    assert 30 <= lengths.count(4) <= 70


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("tokens", [20, 399, 4000])
def test_an_epoch_has_as_many_pieces_as_its_price_says(tokens: int, varied: bool) -> None:
    text = TextDataset(torch.arange(tokens), 8, varied)
    stream = text.stream(4, (), (), Generator().manual_seed(0))
    pieces = sum(len(stream.next().targets) for _ in range(stream.steps_per_epoch))
    assert text.samples_of_epoch(0, 4) == pieces


def test_everything_is_evaluated_in_order() -> None:
    text = TextDataset(torch.arange(100), 6)
    batches = list(text.evaluation_batches(256, (), ()))
    assert len({len(batch.inputs) for batch in batches}) == 1
    rows = torch.cat([batch.inputs for batch in batches], 1)
    assert rows.shape == (10, 9)
    assert torch.equal(rows.flatten(), torch.arange(100)[torch.arange(100) % 10 != 9])
