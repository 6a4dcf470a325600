"""The configuration of an earlier run: resumed, and inherited by the retraining of what it found."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from nas.errors import InvalidValue, UnusableInput
from nas.run.overrides import typed_script
from nas.run.recorded import (
    command_for,
    forget_configuration,
    inherited_configuration,
    is_asked_for,
    record_configuration,
    recorded_configuration,
    refuse_search_from,
    resumed_configuration,
    typed_settings,
    with_keys_of_run,
)
from nas.spaces.fitting import DEFAULT_CHAINS

CONFIG: dict[str, Any] = {
    "seed": 3,
    "training": {"batch_size": 32, "rate": 0.1},
    "tracking": {"console": "auto", "log_every": 10, "profiler": False, "note": None},
    "again": "${seed}",
}


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run that has begun."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(CONFIG), folder / ".hydra" / "config.yaml")
    return folder


RUN: dict[str, Any] = {
    "seed": 7,
    "resume": None,
    "data": {"_target_": "digits", "split": {"train": 1000, "validation": 400}},
    "training": {"batch_size": 16, "schedule": "constant"},
    "hyperparameters": {"learning_rate": {"initial": 0.5}, "gradient": {"_target_": "exact"}},
    "only_in_the_run": {"a": 1},
}
COMPOSED: dict[str, Any] = {
    "seed": 0,
    "resume": "new",
    "candidate": "???",
    "data": {"_target_": "mnist5k", "split": {"train": 3000, "validation": 1000}},
    "training": {"batch_size": 32, "schedule": "cosine"},
    "hyperparameters": {"learning_rate": {"initial": 0.01}, "gradient": {"_target_": None}},
    "only_in_the_new": {"b": 2},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(RUN), tmp_path / ".hydra" / "config.yaml")
    return tmp_path


def inherited(run: Path, overrides: list[str], **changes: Any) -> dict[str, Any]:
    """``changes`` are what Hydra would have made of ``overrides``, by dotted key."""
    config = OmegaConf.create({**COMPOSED, "candidate": str(run)})
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    OmegaConf.set_struct(config, True)
    before = OmegaConf.to_container(config)
    merged = inherited_configuration(config, [f"candidate={run}", *overrides])
    assert OmegaConf.to_container(config) == before, "the composed configuration stays as it is"
    found = OmegaConf.to_container(merged)
    assert isinstance(found, dict)
    return found  # type: ignore[return-value]


def test_everything_but_the_candidate_comes_from_the_run(run: Path) -> None:
    expected = {**COMPOSED, **RUN, "candidate": str(run), "resume": "new"}
    assert inherited(run, []) == expected


def test_a_value_wins_over_the_run_and_its_neighbours_are_inherited(run: Path) -> None:
    found = inherited(run, ["data.split.train=50", "seed=9"], **{"data.split.train": 50, "seed": 9})
    assert found["data"] == {"_target_": "digits", "split": {"train": 50, "validation": 400}}
    assert found["seed"] == 9
    assert found["training"] == RUN["training"]


def test_a_group_wins_as_a_whole(run: Path) -> None:
    found = inherited(run, ["training=default", "training.batch_size=5"], **{"training.batch_size": 5})
    assert found["training"] == {"batch_size": 5, "schedule": "cosine"}
    assert found["data"] == RUN["data"]
    assert found["seed"] == 7


def test_a_group_inside_of_another_wins_in_its_place(run: Path) -> None:
    override = "hypergradient@hyperparameters.gradient=first_order"
    found = inherited(run, [override], **{"hyperparameters.gradient": {"_target_": "first_order"}})
    assert found["hyperparameters"] == {"learning_rate": {"initial": 0.5}, "gradient": {"_target_": "first_order"}}


def test_a_new_key_is_taken_over(run: Path) -> None:
    found = inherited(run, ["+training.extra=1"], **{"training.extra": 1})
    assert found["training"] == {"batch_size": 16, "schedule": "constant", "extra": 1}


def test_a_name_that_only_begins_like_an_override_is_inherited(run: Path) -> None:
    OmegaConf.save(OmegaConf.create({**RUN, "data_extra": {"a": 1}}), run / ".hydra" / "config.yaml")
    assert inherited(run, ["data=mnist5k"])["data_extra"] == {"a": 1}


def test_an_experiment_replaces_the_settings_of_the_run(run: Path) -> None:
    assert inherited(run, ["experiment=debug"]) == {**COMPOSED, "candidate": str(run)}


def test_interpolations_stay_interpolations(run: Path) -> None:
    OmegaConf.save(OmegaConf.create({"seed": 7, "training": {"batch_size": "${seed}"}}), run / ".hydra" / "config.yaml")
    config = OmegaConf.create({**COMPOSED, "candidate": str(run), "seed": 9})
    merged = inherited_configuration(config, ["seed=9"])
    assert merged.training.batch_size == 9


def test_settings_that_only_the_run_has_may_be_typed(run: Path) -> None:
    typed = ["data.split.train=5", "data.foldr=x", "seed=3", "+data.split.more=1", "only_in_the_run.a=2", "--cfg"]
    known = ["++data.split.train=5", "data.foldr=x", "seed=3", "+data.split.more=1", "++only_in_the_run.a=2", "--cfg"]
    assert with_keys_of_run(typed, str(run)) == known
    of_others = ["data=digits", "data.split.train=5"]
    assert with_keys_of_run(of_others, str(run)) == of_others
    assert with_keys_of_run(typed, "darts_v2") == typed


def test_a_lone_file_inherits_nothing(tmp_path: Path) -> None:
    (tmp_path / "candidate.json").touch()
    config = OmegaConf.create({**COMPOSED, "candidate": str(tmp_path / "candidate.json")})
    assert isinstance(config, DictConfig)
    assert inherited_configuration(config, []) is config


def test_a_run_whose_configuration_cannot_be_read(run: Path) -> None:
    (run / ".hydra" / "config.yaml").write_text("a: [")
    with pytest.raises(UnusableInput):
        inherited(run, [])


def test_a_resumed_run_has_its_own_configuration(begun: Path) -> None:
    assert OmegaConf.to_container(resumed_configuration([f"resume={begun}"], begun)) == CONFIG
    config = resumed_configuration([], begun)
    assert config.again == 3


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("tracking.console=quiet", "console", "quiet"),
        ("tracking.console='quiet'", "console", "quiet"),
        ("tracking.profiler=true", "profiler", True),
        ("tracking.log_every=5", "log_every", 5),
        ("tracking.note='a=b'", "note", "a=b"),
        ("tracking.note=a: b", "note", "a: b"),
        ("tracking.note=null", "note", None),
    ],
)
def test_only_what_is_recorded_may_be_set(argument: str, key: str, value: object, begun: Path) -> None:
    before = (begun / ".hydra" / "config.yaml").read_bytes()
    config = resumed_configuration([f"+resume={begun}", argument], begun)
    found = OmegaConf.to_container(config)
    assert found == {**CONFIG, "tracking": {**CONFIG["tracking"], key: value}}
    assert (begun / ".hydra" / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("seed=4", "seed"),
        ("seed=3", "seed"),
        ("training.batch_size=64", "training.batch_size"),
        ("tracking=default", "tracking"),
        ("console=quiet", "console"),
        ("hydra.run.dir=elsewhere", "hydra.run.dir"),
        ("--multirun", "--multirun"),
        ("~seed", "~seed"),
        ("+tracking.console=quiet", "+tracking.console"),
        ("tracking.consol=quiet", "tracking.consol"),
        ("tracking.console.x=1", "tracking.console.x"),
        ("tracking.=1", "tracking."),
        ("tracking.console=[", "tracking.console"),
        ("tracking.console=${", "tracking.console"),
        ("tracking.note=a=b", "tracking.note"),
        ("tracking.console=auto,quiet", "tracking.console"),
        ("tracking.console=!!python/object:os.system", "tracking.console"),
    ],
)
def test_everything_else_is_refused(argument: str, key: str, begun: Path) -> None:
    with pytest.raises(InvalidValue) as caught:
        resumed_configuration([f"resume={begun}", argument], begun)
    assert caught.value.key == key


def test_the_data_may_lie_elsewhere_by_now(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {**CONFIG, "data": {"_target_": "nas.data.Images", "folder": "/old/pictures", "labels": None}}
    OmegaConf.save(OmegaConf.create(content), begun / ".hydra" / "config.yaml")
    config = resumed_configuration([f"resume={begun}", "data.folder='/new place/pictures'"], begun)
    assert config.data == content["data"] | {"folder": "/new place/pictures"}
    again = ["data.folder='/new place/pictures'", f"resume={begun}"]
    monkeypatch.setattr("sys.argv", ["train_search.py", *again, "tracking.console=quiet"])
    printed = command_for("train_final.py", "candidate", begun)
    assert shlex.split(printed)[2:] == [f"candidate={begun}", again[0]]
    monkeypatch.setattr("sys.argv", ["train_search.py", again[0]])  # then the place is recorded
    assert "data.folder" not in command_for("train_final.py", "candidate", begun)
    for other in ("data.file=x", "data.size=3"):
        with pytest.raises(InvalidValue):
            resumed_configuration([other], begun)


def test_tracking_cannot_be_set_where_the_run_had_none(begun: Path) -> None:
    OmegaConf.save(OmegaConf.create({"seed": 1}), begun / ".hydra" / "config.yaml")
    with pytest.raises(InvalidValue, match="there is no such setting"):
        resumed_configuration(["tracking.console=quiet"], begun)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidValue, match=r"^resume=.* it must be the folder of a run"):
            resumed_configuration([], folder)


@pytest.mark.parametrize(
    "content",
    [b"a: [1", b"a: b: c", b"\xff\xfe\x00", b"- 1\n- 2\n", b"a: !!python/object:os.system {}", b"\t- x:"],
)
def test_a_configuration_that_cannot_be_read(content: bytes, begun: Path) -> None:
    (begun / ".hydra" / "config.yaml").write_bytes(content)
    with pytest.raises(UnusableInput, match=r"config\.yaml (cannot be read|is not readable YAML|is not a group)"):
        resumed_configuration([], begun)


def test_a_recorded_configuration_calls_nothing_outside_the_package(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in ("os.system", "subprocess.run", "nasty.Thing", "${oc.env:HOME}.x"):
        content = {**CONFIG, "data": {"deep": [{"_target_": target, "command": "true"}]}}
        OmegaConf.save(OmegaConf.create(content), begun / ".hydra" / "config.yaml")
        with pytest.raises(UnusableInput, match="NAS_TRUST"):
            resumed_configuration([], begun)
    OmegaConf.save(OmegaConf.create({**CONFIG, "data": {"_target_": "mine.Data"}}), begun / ".hydra" / "config.yaml")
    with pytest.raises(UnusableInput, match=r"say so with NAS_TRUST=mine in front of the command\."):
        resumed_configuration([], begun)
    assert (
        command_for("train_search.py", "resume", begun)
        == f"NAS_TRUST=mine {typed_script('train_search.py')} resume={begun}"
    )
    monkeypatch.setenv("NAS_TRUST", "other, mine.data,.")
    assert resumed_configuration([], begun).data._target_ == "mine.Data"


def test_a_setting_that_is_gone_is_dropped_where_it_has_no_effect(begun: Path) -> None:
    for pair, kept in (("present", {}), ("best", {"pair": "best"})):
        content = {**CONFIG, "search": {"guard": {"jump": 2.0, "pair": pair}}}
        OmegaConf.save(OmegaConf.create(content), begun / ".hydra" / "config.yaml")
        assert OmegaConf.to_container(recorded_configuration(begun).search.guard) == {"jump": 2.0, **kept}
    for search in (None, "fast", {"guard": None}, {"guard": [1]}):
        OmegaConf.save(OmegaConf.create({**CONFIG, "search": search}), begun / ".hydra" / "config.yaml")
        assert recorded_configuration(begun).search == search


def test_only_the_record_of_a_refused_run_is_taken_back(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    for other in (None, "notes.txt", ".hydra/notes.txt"):
        record_configuration(tmp_path, OmegaConf.create(CONFIG), OmegaConf.create({}), ["seed=3"])
        if other is not None:
            (tmp_path / other).write_text("mine")
        before = sorted(tmp_path.rglob("*"))
        forget_configuration(tmp_path)
        assert sorted(tmp_path.rglob("*")) == ([tmp_path / ".lock"] if other is None else before)
        if other is not None:
            (tmp_path / other).unlink()


def test_a_retraining_begins_with_no_search() -> None:
    refuse_search_from(["search.epochs=3", "search.from=null"])
    with pytest.raises(
        InvalidValue, match=r"search\.from=runs/a is not allowed: it is for train_search\.py; a retraining"
    ):
        refuse_search_from(["+search.from=runs/a"])


@pytest.mark.parametrize(("target", "stays"), [("nas.search.Neighbours", False), ("nas.search.CoarseToFine", True)])
def test_a_margin_that_decides_nothing_any_more_is_dropped(target: str, stays: bool, tmp_path: Path) -> None:
    content = {**CONFIG, "method": {"_target_": target, "margin": 0.2, "inner": {"margin": 0.3}}}
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(content), tmp_path / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create([]), tmp_path / ".hydra" / "overrides.yaml")
    method = recorded_configuration(tmp_path).method
    assert ("margin" in method, method.inner.margin) == (stays, 0.3)


@pytest.mark.parametrize(
    ("overrides", "chosen", "expected"),
    [
        (["data=digits"], "macro", False),
        (["space=macro"], "macro", True),
        (["space=macro_debug"], "macro_debug", True),
        (["experiment=few_images"], "macro_few_images", True),
        (["experiment=debug"], "macro_debug", False),  # which tries every part of a run on any data
        (None, None, False),
    ],
)
def test_a_space_is_asked_for_by_its_name_or_by_an_experiment(
    overrides: list[str] | None, chosen: str | None, expected: bool, tmp_path: Path
) -> None:
    hydra = OmegaConf.create({"runtime": {"choices": {"space": chosen}}})
    if overrides is not None:
        record_configuration(tmp_path, OmegaConf.create(CONFIG), hydra, overrides)
    assert is_asked_for(tmp_path, "space", defaults=DEFAULT_CHAINS) is expected


def test_the_settings_of_a_space_that_were_typed(tmp_path: Path) -> None:
    assert typed_settings(tmp_path, "space") == set()
    overrides = ["space=macro", "space.activations=[relu]", "++space.layers=[]", "spaces.x=1", "data.file=a.csv"]
    record_configuration(tmp_path, OmegaConf.create(CONFIG), OmegaConf.create({}), overrides)
    assert typed_settings(tmp_path, "space") == {"activations", "layers"}
