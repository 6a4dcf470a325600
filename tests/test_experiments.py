"""Every experiment that searches, shrunk: one epoch on few images, the retraining of what it found, and the page.

What a method of the literature is made of is tested where its parts are. Here its whole setting runs once from end to
end, through the functions that the two commands call.
"""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

import train_final
import train_search
from nas.run.candidate_file import read_candidate_file
from nas.run.recorded import inherited_configuration

CONF = Path(__file__).resolve().parent.parent / "conf"
SEARCHES = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml") if "_final_" not in path.stem)
SHRUNK = (
    "scale=small",
    "data.split={train:64,validation:64,test:64}",
    "training.batch_size=32",
    "search.epochs=1",
    "search.warmup_epochs=0",
    "final.epochs=1",
    "device=cpu",
    "tracking.tensorboard=false",
    "tracking.console=quiet",
)
BASES = ("darts_first_order", "nasbench201_darts")
ONE_SHOT = [name for name in SEARCHES if OmegaConf.load(CONF / "experiment" / f"{name}.yaml")["defaults"][0] in BASES]
TEXTS = ("darts_rnn", "darts_rnn_published")
LEFT_OUT = {
    **dict.fromkeys(TEXTS, "its data are a text, below"),
    "truth_fashion": "its images come from a folder, and scale=small takes embedded ones",
    "truth_many": "it learns a dropout for each of its own layers, and scale=small takes others",
    "transformer_text": "its data are a text",
}


def composed(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=list(overrides))


def shrunk(experiment: str) -> tuple[str, ...]:
    """The overrides of a small run."""
    overrides = (f"experiment={experiment}", *SHRUNK)
    config = composed("train_search", *overrides)
    few = ("discretisation.images=32",) if "images" in config.discretisation else ()
    cells = ("space.final_cells=3", "space.final_channels=4") if "final_cells" in config.space else ()
    stages = (f"search.epochs={1 + len(config.shrinking.after)}",) if "after" in config.shrinking else ()
    short = ("final.epochs=2", "method.short_epochs=1") if "short_epochs" in config.method else ()
    return (*overrides, *few, *cells, *stages, *short)


def test_every_experiment_is_a_search_or_a_retraining() -> None:
    of_retrainings = [path.stem for path in (CONF / "experiment").glob("*_final_*.yaml")]
    assert len(SEARCHES) + len(of_retrainings) == len(list((CONF / "experiment").glob("*.yaml")))
    assert set(LEFT_OUT) < set(SEARCHES)


@pytest.mark.parametrize("experiment", ["gaea", "drnas_nasbench201", "debug"])
def test_hyperparameters_are_learned_beside_any_experiment(experiment: str) -> None:
    alone, both = (composed("train_search", f"experiment={one}") for one in (experiment, f"[{experiment},joint]"))
    learned = [
        name for name, entry in both.hyperparameters.items() if isinstance(entry, DictConfig) and "learn" in entry
    ]
    assert {name for name in learned if both.hyperparameters[name].learn} == {"learning_rate", "dropout"}
    assert both.hyperparameters.dropout.initial == 0.1
    assert both.hyperparameters.learning_rate.initial == alone.hyperparameters.learning_rate.initial
    assert both.final.hyperparameters == "learned"
    for group in ("space", "relaxation", "search", "regulariser", "training"):
        assert both[group] == alone[group]


@pytest.mark.parametrize("experiment", [name for name in ONE_SHOT if not name.endswith("nasbench201")])
def test_the_space_that_is_asked_for_is_searched(experiment: str) -> None:
    for name in ("darts_s1", "darts_s2"):
        asked = composed("train_search", f"experiment={experiment}", f"space={name}").space
        assert asked.operations == OmegaConf.load(CONF / "space" / f"{name}.yaml").operations


@pytest.mark.parametrize("experiment", ["debug", "few_images"])
def test_the_chain_that_is_asked_for_is_searched(experiment: str) -> None:
    asked = composed("train_search", f"experiment={experiment}", "space=macro_large").space
    assert asked.layers == OmegaConf.load(CONF / "space" / "macro_large.yaml").layers


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [name for name in SEARCHES if name not in LEFT_OUT])
def test_an_experiment_searches_retrains_and_has_a_page(experiment: str, tmp_path: Path) -> None:
    config = composed("train_search", *shrunk(experiment))
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, run / ".hydra" / "config.yaml")  # as the command does; the retraining inherits it
    train_search.run(config, run)
    found = read_candidate_file(run / "candidate.json")
    found.candidate.architecture.check(found.space.choices)
    searched = (run / "report.html").read_text(encoding="utf-8")

    own = [f"candidate={run}", "tracking.console=quiet"]
    settings = inherited_configuration(composed("train_final", *own), own)
    train_final.run(settings, run / "final")
    result = json.loads((run / "final" / "result.json").read_text())
    assert result["epochs"] == config.final.epochs
    assert 0 <= result["test_accuracy"] <= 1
    assert result["candidate"] == found.to_json()
    assert (run / "report.html").read_text(encoding="utf-8") != searched, "the page knows of the retraining"


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ONE_SHOT)
def test_a_one_shot_method_learns_hyperparameters_beside_the_architecture(experiment: str, tmp_path: Path) -> None:
    start = 0.1
    own = ("hyperparameters=learned", f"hyperparameters.dropout.initial={start}")
    config = composed("train_search", *shrunk(experiment), *own)
    train_search.run(config, tmp_path / "run")
    found = read_candidate_file(tmp_path / "run" / "candidate.json").candidate.hyperparameters
    assert found["learning_rate"] != config.hyperparameters.learning_rate.initial
    assert found["dropout"] != start


@pytest.mark.slow
@pytest.mark.parametrize("experiment", TEXTS)
def test_an_experiment_on_a_text_searches_retrains_and_has_a_page(experiment: str, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("abcabdabcabe" * 100, encoding="utf-8")
    own_text = f"data.file={tmp_path / 'book.txt'}", "data.length=8", "space.width=4", "space.final_width=4"
    overrides = [one for one in SHRUNK if not one.startswith("data.split")]
    config = composed("train_search", f"experiment={experiment}", *overrides, *own_text)
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, run / ".hydra" / "config.yaml")
    train_search.run(config, run)
    read_candidate_file(run / "candidate.json")
    own = [f"candidate={run}", "tracking.console=quiet", "training.averaging=non_monotone"]
    train_final.run(inherited_configuration(composed("train_final", *own), own), run / "final")
    result = json.loads((run / "final" / "result.json").read_text())
    assert result["test_perplexity"] >= 1
    assert result["main"]["name"] == "perplexity"
    assert "no result" in (run / "report.html").read_text(encoding="utf-8")
