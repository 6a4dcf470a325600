"""The command line ``python -m nas.report``."""

from pathlib import Path

import pytest

from nas.report.__main__ import main


def test_a_page_is_written_with_or_without_its_name(run_folder, capsys):
    folder = run_folder()
    main([str(folder)])
    main(["page", str(folder)])
    assert capsys.readouterr().out == f"page: {folder / 'report.html'}\n" * 2


@pytest.mark.parametrize(
    "given",
    ["darts_v2", "darts_v2_rnn", "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"],
    ids=["name", "recurrent", "text"],
)
def test_named_architectures_are_drawn_in_every_format(given, tmp_path, capsys):
    main(["draw", given, "--output", str(tmp_path)])
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    name = given if given.isidentifier() else "architecture"
    for ending, start in starts.items():
        assert (tmp_path / f"{name}.{ending}").read_bytes().startswith(start)
    assert capsys.readouterr().out.count("drawing: ") == 3


def test_a_run_is_drawn_into_its_figures_and_the_same_every_time(run_folder, capsys):
    folder = run_folder()
    main(["draw", str(folder)])
    first = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    main(["draw", str(folder)])
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == first


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], f"run folder={Path.cwd() / 'nowhere'} is not allowed"),
        (["draw", "nowhere"], "architecture=nowhere is not allowed"),
        (["compare", "nowhere"], "run folder=nowhere is not allowed"),
        (["animate", "nowhere"], "run folder=nowhere is not allowed"),
        (["why", "nowhere"], "run folder=nowhere is not allowed"),
        (["why", "nowhere", "--images", "0"], "--images=0 is not allowed"),
    ],
)
def test_a_mistake_ends_in_one_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["draw", "genotype"])
def test_a_result_that_cannot_be_read_is_told_of_a_retraining(command, tmp_path, capsys):
    (tmp_path / "result.json").write_text('{"candidate": ')
    with pytest.raises(SystemExit) as end:
        main([command, str(tmp_path)])
    assert end.value.code == 2
    assert f"In {tmp_path}, result.json is not readable JSON." in capsys.readouterr().err


def test_a_cell_is_printed_as_other_code_bases_take_it(run_folder, capsys):
    main(["genotype", "darts_v2"])
    assert capsys.readouterr().out.startswith("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ")
    with pytest.raises(SystemExit):
        main(["genotype", str(run_folder())])
    assert "space=macro has no text of other code bases; final/network.py" in capsys.readouterr().err
