"""What a retraining takes over from the run that found its candidate."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from nas.errors import UnusableInput
from nas.run.inheritance import inherited_configuration, overridden_key

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


def test_a_lone_file_inherits_nothing(tmp_path: Path) -> None:
    (tmp_path / "candidate.json").touch()
    config = OmegaConf.create({**COMPOSED, "candidate": str(tmp_path / "candidate.json")})
    assert isinstance(config, DictConfig)
    assert inherited_configuration(config, []) is config


def test_a_run_whose_configuration_cannot_be_read(run: Path) -> None:
    (run / ".hydra" / "config.yaml").write_text("a: [")
    with pytest.raises(UnusableInput):
        inherited(run, [])


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
