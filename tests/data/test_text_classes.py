"""Texts in a folder per class: what is read, divided, cut and told, and what is refused in one sentence."""

import bz2
import logging
from pathlib import Path

import pytest
import torch

from nas.data.tables.csv_format import CsvFormat
from nas.data.texts.text import Text, TextSplit
from nas.data.texts.text_tokens import prepared_texts
from nas.errors import InvalidValue, UnusableInput
from nas.run.implied_arguments import implied_arguments
from nas.signature import Signature
from nas.spaces.fitting import fitting_space
from nas.tasks import Auto
from tests.test_house import ROOT

CONF = ROOT / "conf"
WORDS = {"cats": "purr and meow", "dogs": "bark and bite"}


def written(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def pets(folder: Path, count: int = 10) -> Path:
    return written(
        folder, {f"{name}/{n}.txt": f"{words} {n % 3}" for name, words in WORDS.items() for n in range(count)}
    )


def test_a_folder_may_be_typed_as_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pets(tmp_path / "own" / "pets")
    assert Text(folder="own\\pets", split=TextSplit(0.2, 0.2)).load().class_names == ("cats", "dogs")
    running = {f"{name}.txt": "to be or not to be " * 9 for name in ("train", "valid", "test")}
    written(tmp_path / "own" / "book", running)
    assert Text(folder="own\\book", length=4).load().head == "sequence"


def test_texts_are_drawn_in_proportion_padded_cut_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = written(
        pets(tmp_path / "pets"),
        {
            "cats/long.txt": "purr " * 9,
            "dogs/empty.txt": "",
            "dogs/.hidden.txt": "x",
            "notes.md": "",
            ".git/a.txt": "x",
        },
    )
    with caplog.at_level(logging.INFO):
        splits = Text(folder=str(folder), longest=8, split=TextSplit(0.2, 0.2)).load()
    said = "\n".join(caplog.messages)
    assert "pets: left out below" in said
    assert "2 files (1 hidden, 1 in no class; read are .txt)" in said
    assert "pets: texts of 2 classes (cats, dogs), up to 5 words each, of" in said
    assert "14 to train, 4 to validate, 4 to test" in said
    assert "1 of 22 texts, of up to 10 tokens, are cut to 5, the longest of training" in said
    assert "1 of 22 texts are empty: each is one unknown token" in said
    assert splits.class_names == ("cats", "dogs")
    for name, text in zip(splits.test_samples, splits.test.inputs, strict=True):  # type: ignore[attr-defined]
        there = prepared_texts([(folder / str(name)).read_text(encoding="utf-8")], splits.preparation)
        assert torch.equal(there[0], text)
    assert [str(name).split("/")[0] for name in splits.test_samples] == [
        splits.class_names[one] for one in splits.test.targets
    ]
    vocabulary = splits.preparation["vocabulary"]
    assert vocabulary[:2] == ["<pad>", "<unk>"]
    inputs = splits.train.inputs  # type: ignore[attr-defined]
    assert (inputs.dtype, inputs.shape[1]) == (torch.int64, 5)
    task, splits = Auto().fitted(splits)
    assert task.signature == Signature((5,), 2, categories=(len(vocabulary),), tokens=True)
    assert fitting_space(task.signature) == "transformer"
    assert Signature.from_json(task.signature.to_json()) == task.signature
    row = prepared_texts(["purr ? 1", ""], splits.preparation)
    assert [vocabulary[token] for token in row[0]] == ["purr", "<unk>", "1", "<eos>", "<pad>"]
    assert [vocabulary[token] for token in row[1]] == ["<unk>"] + 4 * ["<pad>"]


@pytest.mark.parametrize("level", ["word", "character"])
def test_texts_of_unknown_words_are_told(level: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    texts = {name: [chr(0x4E00 + 300 * place + number) for number in range(24)] for place, name in enumerate("ab")}
    folder = written(
        tmp_path / "own",
        {f"{name}/{of}.txt": "".join(signs[of:] + signs) for name, signs in texts.items() for of in range(9)},
    )
    running = "\n".join("".join(signs[of:] + signs) for signs in texts.values() for of in range(23))
    (tmp_path / "book.txt").write_text(20 * running, encoding="utf-8")
    Text(folder=str(folder), level=level).load()  # type: ignore[arg-type]
    Text(file=str(tmp_path / "book.txt"), level=level, length=2, at_least=30).load()  # type: ignore[arg-type]
    told = [one for one in caplog.messages if "words of training are unknown: data.level=character reads" in one]
    assert [one.split(":")[0] for one in told] == (["own", "text"] if level == "word" else [])


def test_ready_parts_keep_their_texts_and_training_alone_makes_the_vocabulary(tmp_path: Path) -> None:
    folder = pets(tmp_path / "train").parent
    written(folder, {f"test/{name}/a.txt": f"new {words}" for name, words in WORDS.items()})
    splits = Text(folder=str(folder), split=TextSplit(0.2, 0.2)).load()
    assert [len(part) for part in splits.parts.values()] == [16, 4, 2]
    assert list(splits.test_samples) == ["test/cats/a.txt", "test/dogs/a.txt"]
    assert "new" not in splits.preparation["vocabulary"]
    changed = written(folder, {"test/dogs/a.txt": "other words"})
    again = Text(folder=str(changed), split=TextSplit(0.2, 0.2)).load()
    assert again.preparation == splits.preparation
    assert again.digest != splits.digest


def test_texts_may_stand_in_the_rows_of_a_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(f"{words}, {n % 3}", name) for n in range(10) for name, words in WORDS.items()]
    lines = [f'{row},"{text}",{name}' for row, (text, name) in enumerate(rows)]
    file = tmp_path / "pets.csv"
    file.write_text("\n".join([",text,kind", *lines]))
    splits = Text(file=str(file), target="kind", split=TextSplit(0.2, 0.2)).load()
    assert splits.class_names == ("cats", "dogs")
    assert [len(part) for part in splits.parts.values()] == [12, 4, 4]
    for row, text, label in zip(splits.test_samples, splits.test.inputs, splits.test.targets, strict=True):  # type: ignore[attr-defined]
        assert torch.equal(prepared_texts([rows[int(row) - 1][0]], splits.preparation)[0], text)
        assert splits.class_names[label] == rows[int(row) - 1][1]
    file.write_text("\n".join(["text,stars,title", *(f'"{text}",{1 + (name == "cats")},a' for text, name in rows)]))
    assert Text(file=str(file), target="stars", text_column="text").load().class_names == ("1", "2")
    file.write_text(
        "\n".join(["text,kind,split", *(f'"{text}",{name},train' for text, name in rows[1:]), "cat,cats,test"])
    )
    caplog.set_level(logging.INFO)
    assert Text(file=str(file), target="kind").load().class_names == ("cats", "dogs")
    assert "pets.csv: split names parts, and others are drawn" in caplog.text
    packed = tmp_path / "pets.csv.bz2"
    packed.write_bytes(bz2.compress(file.read_bytes()))
    assert Text(file=str(packed), target="kind").load().class_names == ("cats", "dogs")
    with pytest.raises(InvalidValue, match=r"^csv=.* it is how data.file=<file>.csv is read"):
        Text(file="one.txt", csv=CsvFormat(separator=";"))
    arguments = ["data=text", f"data.file={file}", "data.target=kind"]
    assert implied_arguments(arguments, CONF) == ["hyperparameters=transformer", "training=transformer"]


@pytest.mark.parametrize(
    ("settings", "key", "sentence"),
    [
        (
            {},
            "target",
            "classes of the texts; pets.csv has text, kind, title, age; one text is a .txt",
        ),
        ({"target": "sort"}, "target", "pets.csv has the columns text, kind, title, age"),
        ({"target": "kind"}, "text_column", "the columns of texts of pets.csv are text, title: say which"),
        ({"target": "kind", "text_column": "age"}, "text_column", "it must be one of texts"),
        (
            {"target": "age", "text_column": "text"},
            "target",
            "numbers with fractions, and texts are given classes",
        ),
    ],
)
def test_columns_of_texts_that_are_not_clear_are_refused(
    settings: dict[str, str], key: str, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "pets.csv"
    file.write_text("text,kind,title,age\n" + 9 * "purr and meow,cat,a,1.5\nbark and bite,dog,b,2.25\n")
    with pytest.raises(InvalidValue) as caught:
        Text(file=str(file), **settings).load()  # type: ignore[arg-type]
    assert caught.value.key == key
    assert sentence in str(caught.value)
    with pytest.raises(InvalidValue, match=r"it is a column of data\.file=<file>\.csv"):
        Text(folder=str(tmp_path), target="kind")


def test_what_is_refused(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    (folder / "birds").mkdir()
    with pytest.raises(UnusableInput, match=r"1 class folder of .* without a text: birds \(read are \.txt\)"):
        Text(folder=str(folder)).load()
    (folder / "birds" / "a.txt").write_bytes(b"\xff\xfea")
    sentence = r"1 of 21 texts .* cannot be read: .*a\.txt \(no UTF-8\); convert .*iconv -f utf-16"
    with pytest.raises(UnusableInput, match=sentence):
        Text(folder=str(folder)).load()
    (folder / "birds" / "a.txt").write_bytes(b"a\0b")
    with pytest.raises(UnusableInput, match=r"a\.txt \(a NUL character, a byte of 0, in it\); replace or remove them"):
        Text(folder=str(folder)).load()
    (folder / "birds" / "0.txt").write_bytes(b"%PDF-1.7 \xff")
    for content, encoding in (("a", "utf-16le"), ("a", "utf-16be"), ("ä b", "utf-16le"), ("ä", "latin1")):
        (folder / "birds" / "b.txt").write_bytes(content.encode(encoding))
        told = rf"0\.txt \(a PDF document\), .*; convert .* iconv -f {encoding} -t utf-8 FILE"
        with pytest.raises(UnusableInput, match=told):
            Text(folder=str(folder)).load()
    (folder / "birds" / "0.txt").unlink()
    (folder / "birds" / "b.txt").unlink()
    written(folder, {"all.txt": "one text"})
    with pytest.raises(InvalidValue, match=r"it has all\.txt, to be read as one text, beside the folders birds, cats,"):
        Text(folder=str(folder)).load()
    written(tmp_path / "flat", {"train/a.txt": "a", "test/a.txt": "a"})
    with pytest.raises(UnusableInput, match=r"has no folders of classes, only 1 files: it must be <class>/\*\.txt\."):
        Text(folder=str(tmp_path / "flat")).load()


def test_the_settings_of_the_space_go_with_the_data(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    of_classes = ["data=text", f"data.folder={folder}"]
    expected = {
        "transformer": of_classes,
        "recurrent_reader": [*of_classes, "space=recurrent"],
        "recurrent": ["data=text"],
    }
    for name, arguments in expected.items():
        assert implied_arguments(arguments, CONF) == [f"hyperparameters={name}", f"training={name}"]
    series = ["data=time_series", "space=recurrent"]
    assert implied_arguments(series, CONF)[-1] == "training=recurrent_reader"
    assert implied_arguments(["data=digits"], CONF) == []
