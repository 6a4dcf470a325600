"""Arguments are read as Hydra reads them; what Hydra would tell with a traceback is told in one sentence."""

import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import InvalidValue
from nas.run.implied_arguments import NEVER_SCALED, OWN_SAMPLES, implied_arguments
from nas.run.overrides import (
    at_home,
    experiment_that_sets,
    overridden_key,
    parse_overrides,
    refuse_impossible_options,
    typed,
    typed_script,
    value_of,
)
from nas.surroundings import typed_python
from nas.typed_settings import in_quotes

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ([], None),
        (["seed=1"], None),
        (["resume"], None),
        (["--resume", "runs/a"], None),
        (["resumed=runs/a"], None),
        (["x.resume=runs/a"], None),
        (["resume=runs/a"], "runs/a"),
        (["+resume=runs/a"], "runs/a"),
        (["++resume=runs/a"], "runs/a"),
        (["resume='runs/a b'"], "runs/a b"),
        (['resume="runs/a b"'], "runs/a b"),
        (["resume='runs/a=b'"], "runs/a=b"),
        (["resume=2024"], "2024"),
        (["resume=runs/a,runs/b"], "runs/a,runs/b"),
        (["~resume"], None),
        (["resume=runs/a", "seed=1", "resume=runs/b"], "runs/b"),
        (["resume=runs/a", "resume=null"], None),
        (["resume=null"], None),
        (["resume="], None),
        (["resume=''"], None),
    ],
)
def test_the_value_of_an_argument(arguments: list[str], value: str | None) -> None:
    assert value_of(arguments, "resume") == value


@pytest.mark.parametrize(
    ("argument", "whole"),
    [
        ("data.file=~/a,b.csv", "data.file='/home/me/a,b.csv'"),
        ("hydra.run.dir=~/runs/1", "hydra.run.dir=/home/me/runs/1"),
        ("+candidate=~", "+candidate=/home/me"),
        ("data.file=~/a.csv,~/b.csv", "data.file=/home/me/a.csv,/home/me/b.csv"),
        ("hydra.run.dir=~/runs/${now:%Y}", "hydra.run.dir=/home/me/runs/${now:%Y}"),
        ("--config-dir=~/conf", "--config-dir=/home/me/conf"),
        ("~resume", "~resume"),
        ("data.file='~/a'", "data.file='~/a'"),
    ],
)
def test_a_tilde_before_a_path_is_the_home_folder(argument: str, whole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home(argument) == whole
    parse_overrides([whole])


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("resume=runs/a=b", "resume"),
        ("space.layers=[", "space.layers"),
        ("candidate=Genotype(normal=[])", "candidate"),
        ("data=${", "data"),
        ("tracking.=1", "tracking."),
    ],
)
def test_what_hydra_cannot_read_is_refused_with_its_reason(argument: str, key: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_overrides(["seed=1", argument])
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{argument} is not allowed: Hydra cannot read it (")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["größe", "a=b", "a(b)", "it's", "a#b & c", 'say "$x"', "50 %!"])
def test_what_hydra_cannot_read_is_shown_as_it_is_typed(value: str) -> None:
    (argument,) = shlex.split(typed("data.folder", value))
    assert value_of([argument], "data.folder") == value
    with pytest.raises(InvalidValue) as caught:
        parse_overrides([f"data.folder={value}"])
    (argument,) = shlex.split(str(caught.value).partition("of the shell's: ")[2].removesuffix("."))
    assert value_of([argument], "data.folder") == value


@pytest.mark.parametrize("mark", ["'", '"'])
@pytest.mark.parametrize("text", ["", "it's", 'say "it"', "\\", "a\\\\'", '\\"', "a\\\n", "50 %, {x: [y]}"])
def test_what_stands_between_quotes_is_read_as_it_is(text: str, mark: str) -> None:
    assert parse_overrides([f"data.folder={in_quotes(text, mark)}"])[0].value() == text


@pytest.mark.parametrize(
    ("argument", "quotes", "read"),
    [
        ("data.folder=Größe", "\"data.folder='Größe'\".", "data.folder='Größe'"),
        ("data.parts={train: Größe}", '"...", around each text', 'data.parts={train: "Größe"}'),
    ],
)
def test_the_quotes_that_are_proposed_go_where_hydra_reads_them(argument: str, quotes: str, read: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_overrides([argument])
    assert str(caught.value).partition("quotes inside of the shell's: ")[2].startswith(quotes)
    assert "Größe" in str(parse_overrides([read])[0].value())


def test_the_entry_of_a_list_is_named_as_hydra_has_it() -> None:
    with pytest.raises(InvalidValue, match=r"behind a dot: space\.layers\.0\.filters=\[4,8\]\."):
        parse_overrides(["space.layers[0].filters=[4,8]"])


def test_flags_and_their_values_are_no_overrides() -> None:
    arguments = ["--multirun", "--cfg", "job", "--config-dir=a=b", "seed=1", "~resume"]
    assert [one.input_line for one in parse_overrides(arguments)] == ["seed=1", "~resume"]


@pytest.mark.parametrize("path", ["runs/a", "runs/a b", "runs/a=b", "Übung/1", "it's", "a(1)", "a,b", "null", "1e3"])
def test_what_is_to_be_typed_is_read_back(path: str) -> None:
    (argument,) = shlex.split(typed("resume", path))
    assert value_of([argument], "resume") == path


CHARACTERS = st.one_of(
    st.sampled_from("\\'\"${}[](),=: ~#%@!*?-.+|&;<>^`é☃"), st.characters(exclude_categories=("C", "Zl", "Zp"))
)


@given(st.text(CHARACTERS, min_size=1, max_size=12))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_name_that_is_to_be_typed_is_read_back(name: str) -> None:
    (argument,) = shlex.split(typed("resume", name))
    assert value_of([argument], "resume") == name


@pytest.mark.slow
@given(st.text(CHARACTERS, min_size=1, max_size=12))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_hydra_composes_it_the_same(name: str) -> None:
    (argument,) = shlex.split(typed("resume", name))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("train_search", overrides=[argument]).resume == name


def test_a_script_is_named_as_it_can_be_called_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONF.parent)
    for called, shown in [
        ("train_search.py", "train_final.py"),
        ("../a b/train_search.py", "train_final.py"),  # there is no such script
        (str(CONF.parent / "train_search.py"), str(CONF.parent / "train_final.py")),
        ("/usr/bin/pytest", "train_final.py"),
    ]:
        monkeypatch.setattr("sys.argv", [called])
        assert typed_script("train_final.py") == f"{typed_python()} {shown}"
    monkeypatch.chdir(tmp_path)  # the report's command is a module and lies nowhere near
    assert typed_script("train_final.py") == f"{typed_python()} {CONF.parent / 'train_final.py'}"


def test_what_is_plain_is_typed_as_it_is() -> None:
    assert typed("candidate", Path("/tmp/runs/2024-01-01_10-00-00")) == "candidate=/tmp/runs/2024-01-01_10-00-00"


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("relaxation=null", "relaxation=null is not allowed: it must be one of dirichlet, gdas, gumbel_softmax, "),
        ("+experiment=null", "experiment=null"),
        ("data=3", "data=3 is not allowed: it must be one of "),
        ("method=1e400", "method=1e400"),
        (
            "training=[1, 2]",
            "training=[1, 2] is not allowed: it must be one of default, recurrent, recurrent_reader, transformer, or "
            "left out.",
        ),
        ("data=[digits,null]", "data=[digits,null] is not allowed"),
        ("space=true", "space=true"),
        ("scale=", "scale=null is not allowed: it must be one of full, small, or left out."),
        ("scale=[]", "scale=[] is not allowed: it must be one of full, small, or left out."),
        ("hypergradient@hyperparameters.gradient=null", "hypergradient@hyperparameters.gradient=null"),
    ],
)
def test_a_group_needs_an_option(argument: str, named: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        refuse_impossible_options(["seed=1", argument], CONF)
    assert str(caught.value).startswith(named)


@pytest.mark.parametrize("argument", ["+epochs=3", "++epochs=3", "+train.epochs=3", "+experimnt=debug"])
def test_what_nothing_would_read_is_refused(argument: str) -> None:
    with pytest.raises(InvalidValue, match="nothing reads it"):
        refuse_impossible_options([argument], CONF)
    for file_of_theirs in ("--config-dir=mine", "hydra.searchpath=[mine]"):
        refuse_impossible_options([argument, file_of_theirs], CONF)


def test_a_group_that_is_there_is_not_added() -> None:
    with pytest.raises(InvalidValue, match=r"\+experiment=debug .* already, experiment=debug chooses its option"):
        refuse_impossible_options(["+experiment=debug"], CONF)
    refuse_impossible_options(["++search.epochs=2", "+hypergradient@hyperparameters.gradient.loss=exact"], CONF)
    refuse_impossible_options(["--config-dir=/x", "-cn=mine", "+experiment=debug"], CONF)  # mine need not have it


@pytest.mark.parametrize(("argument", "counts"), [("data.target[0]=x", True), ("data.target[a]=x", False)])
def test_entries_of_a_list_are_counted_behind_a_dot(argument: str, counts: bool) -> None:
    with pytest.raises(InvalidValue, match=r"behind a dot: data\.target\.0=x" if counts else "Hydra cannot read it"):
        refuse_impossible_options([argument], CONF)


def test_the_experiment_that_sets_what_is_refused() -> None:
    overrides = ["experiment=[exact,drnas]", "space=macro"]
    assert experiment_that_sets("shrinking.keep", overrides, CONF) == "drnas"
    for typed_too in ("shrinking.keep", "shrinking.keep[0].type"):
        assert experiment_that_sets(typed_too, [*overrides, "shrinking.keep=[]"], CONF) == ""
    assert experiment_that_sets("a file: with [odd.. key", overrides, CONF) == ""
    assert experiment_that_sets("training.averaging", overrides, CONF) == ""
    assert experiment_that_sets("data.split.train", ["experiment=drnas_nasbench201"], CONF) == "drnas_nasbench201"
    assert experiment_that_sets("space.layers[0].type", ["space=macro"], CONF) == ""


def test_additions_that_are_read_are_left_alone() -> None:
    read = ["++seed=3", "+hyperparameters.mine=1", "+hydra.job.x=1", "+scale/data=a"]
    refuse_impossible_options(read, CONF)
    refuse_impossible_options(["+n=3", "search.epochs=${n}"], CONF)


def test_settings_may_be_null_and_groups_be_chosen() -> None:
    refuse_impossible_options(["training.gradient_clip=null", "data=digits", "resume=null", "--help"], CONF)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("method=rehearsed", "method=rehearsed is not allowed: it is called tuned now."),
        ("method=several_starts", "method=several_starts is not allowed: it is called multi_start now."),
        ("method=refined", "method=refined is not allowed: it has been removed, as it found nothing better than "),
        ("+discretisation=perturbation", "discretisation=perturbation is not allowed: it is called alone now."),
    ],
)
def test_an_option_of_old_is_refused_with_what_it_is_today(argument: str, sentence: str, tmp_path: Path) -> None:
    for group in ("method", "discretisation"):
        (tmp_path / group).mkdir()
    with pytest.raises(InvalidValue) as caught:
        refuse_impossible_options([argument], tmp_path)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data=digits", "data"),
        ("data.split.train=5", "data.split.train"),
        ("+data.new=5", "data.new"),
        ("++data.new=5", "data.new"),
        ("~data.old", "data.old"),
        ("space/cells=darts", "space.cells"),
        ("hypergradient@hyperparameters.gradient=exact", "hyperparameters.gradient"),
    ],
)
def test_what_an_override_sets(override: str, key: str) -> None:
    assert overridden_key(override) == key


def test_short_trainings_follow_a_search_on_samples_of_a_users_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    of_table = ["method=cross_validated", "hyperparameters=table"]
    for data in OWN_SAMPLES:
        assert implied_arguments([f"data={data}"], CONF) == (of_table if data == "table" else ["method=coarse_to_fine"])
    assert implied_arguments(["data=table", "hyperparameters=fixed"], CONF) == of_table[:1]
    assert not caplog.text
    assert implied_arguments(["data=table,arrays"], CONF) == ["method=coarse_to_fine"]
    told = "all jobs of this sweep have method=coarse_to_fine; data=table alone has method=cross_validated hyperpar"
    assert told in caplog.text
    assert implied_arguments(["data=table,digits"], CONF) == implied_arguments(["data=table", "-cn=mine"], CONF) == []
    assert implied_arguments(["data=table", "method=tpe"], CONF) == []
    assert implied_arguments(["data=table", "experiment=debug"], CONF) == []


@pytest.mark.parametrize("data", [*NEVER_SCALED, "mnist5k", "cifar10"])
def test_a_small_scale_counts_images_of_ours_and_leaves_other_data_whole(data: str) -> None:
    typed_in = ["scale=small", f"data={data}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        small = compose("train_search", overrides=[*typed_in, *implied_arguments(typed_in, CONF)])
        usual = compose("train_search", overrides=[f"data={data}"])
    assert small.search.epochs < usual.search.epochs
    if data in NEVER_SCALED:
        assert small.data == usual.data
    else:
        assert (small.data.split.train, small.data.split.test) == (2000, 1000)
