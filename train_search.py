"""Search an architecture and its hyperparameters: build the pieces, run, write the run folder."""

from nas.training.interruption import leave_when_stopped

if __name__ == "__main__":
    leave_when_stopped()  # before all else: a scheduler may stop the run during the imports, which take seconds

import shlex
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from nas.bilevel.hyperparameters import HyperparameterSet
from nas.bilevel.search import GradientSearch
from nas.configuration import InvalidValue, build
from nas.report.drawing import save_drawing
from nas.report.explanation import write_discretisation_gap
from nas.report.outcome import architecture_figure, architecture_in_words, search_outcome
from nas.report.page import write_page_if_possible
from nas.report.tables import outcome_table, print_table, say_at_the_end
from nas.spaces.candidate_file import CandidateFile
from nas.training.entry_point import guarded, refuse_groups_without_option, resumed_folder, run_resumed
from nas.training.environment import record_environment
from nas.training.randomness import Randomness
from nas.training.run_folder import RunFolder, refuse_occupied_folder
from nas.training.settings import checked_device, checked_seed


def build_hyperparameters(config: Any) -> HyperparameterSet:
    """The entries of the group ``hyperparameters``, all but ``gradient``."""
    entries = {name: build(entry, f"hyperparameters.{name}") for name, entry in config.items() if name != "gradient"}
    try:
        return HyperparameterSet(entries)
    except InvalidValue as error:
        raise error.below("hyperparameters") from error


def build_gradient(config: Any, key: str) -> Any:
    """A hypergradient strategy, or None where ``none`` was chosen."""
    return build(config, key) if config is not None and config.get("_target_") is not None else None


def run(config: DictConfig, path: Path) -> None:
    """One search into the run folder ``path``; nothing is written before every setting has been checked."""
    randomness = Randomness(checked_seed(config.seed), checked_device(config.device))
    source = build(config.data, "data")
    relaxation = build(config.relaxation, "relaxation")
    training = build(config.training, "training")
    hyperparameters = build_hyperparameters(config.hyperparameters)
    tracking = build(config.tracking, "tracking")
    build(config.final, "final")  # not used here, but a mistake in it should not wait for the retraining
    try:
        splits = source.load()
    except InvalidValue as error:
        raise error.below("data") from error
    ranges = {name: entry.range for name, entry in hyperparameters.entries.items() if entry.learn}
    space = build(config.space, "space", input_shape=splits.input_shape, classes=splits.classes, ranges=ranges)
    folder = RunFolder(path)
    searcher = GradientSearch(
        space=space,
        splits=splits,
        augmentation=source.augmentation,
        relaxation=relaxation,
        architecture_gradient=build_gradient(config.hypergradient, "hypergradient"),
        hyperparameter_gradient=build_gradient(config.hyperparameters.gradient, "hyperparameters.gradient"),
        hyperparameters=hyperparameters,
        search=build(config.search, "search"),
        training=training,
        tracking=tracking,
        randomness=randomness,
        folder=folder,
    )
    record_environment(path, randomness.device)
    candidate = searcher.search()

    settled = searcher.settled()
    found = CandidateFile(candidate, space, splits.name, training.schedule, settled, training.schedule_end)
    found.write(path / "candidate.json")
    figure = architecture_figure(found)
    save_drawing(figure, path / "figures" / "architecture")
    write_discretisation_gap(path, searcher.supernet, candidate.architecture, splits)
    with searcher.open_tracker() as tracker:
        tracker.figure("architecture", figure, searcher.step)
        tracker.text("architecture", architecture_in_words(found), searcher.step)
        tracker.final({"seed": config.seed, **candidate.hyperparameters}, searcher.final_metrics())
    if tracking.console != "quiet":
        print_table(outcome_table(search_outcome(found, searcher.seconds) | searcher.remarks()))
    unsettled = [name for name, good in settled.items() if not good]
    rest = f"not settled: {', '.join(unsettled)}" if unsettled else "everything settled"
    done = f"searched in {searcher.seconds:.0f} s, {rest}, interventions: {searcher.interventions.in_words()}: {path}"
    page = write_page_if_possible(path)
    say_at_the_end(done, page, f"python train_final.py candidate={shlex.quote(str(path))}", tracking.console)


@hydra.main(version_base="1.3", config_path="conf", config_name="train_search")
def run_composed(config: DictConfig) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)

    def work() -> None:
        RunFolder(folder).refuse_if_occupied()  # again: only now are interpolations in its name resolved
        run(config, folder)

    guarded(work, "train_search.py", folder)


def main() -> None:
    arguments = sys.argv[1:]

    def resume_or_check() -> bool:
        if run_resumed(arguments, run):
            return True
        refuse_groups_without_option(arguments, Path(__file__).parent / "conf")
        refuse_occupied_folder(arguments)
        return False

    if not guarded(resume_or_check, "train_search.py", resumed_folder(arguments)):
        run_composed()


if __name__ == "__main__":
    main()
