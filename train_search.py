"""Search an architecture and its hyperparameters: build the pieces, run the method, write the run folder."""

from nas.stopping import leave_when_stopped

if __name__ == "__main__":
    leave_when_stopped()  # before all else: a scheduler may stop the run during the imports, which take seconds

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from nas.candidate import Categorical, Hyperparameters
from nas.configuration import assemble, build
from nas.data.dataset import DataSplits
from nas.distributed import join
from nas.errors import InvalidValue
from nas.evaluation.task import Task
from nas.hyperparameters.collection import HyperparameterSet
from nas.report.drawing import save_drawing
from nas.report.explanation import write_discretisation_gap
from nas.report.outcome import architecture_figure, architecture_in_words, search_outcome, space_figure
from nas.report.page import write_page_if_possible
from nas.report.tables import outcome_table, print_table, say_at_the_end
from nas.run.candidate_file import CandidateFile
from nas.run.entry_point import follow, guarded, on_all_ranks, refuse_groups_without_option, resumed_folder, run_resumed
from nas.run.environment import checked_device, record_environment, say_what_is_lacking
from nas.run.folder import RunFolder, break_seal, refuse_occupied_folder, seal_configuration
from nas.run.randomness import Randomness, checked_seed, use_deterministic_algorithms
from nas.run.tracking import Tracker
from nas.search.parts import SearchParts
from nas.search.result import Search, SearchResult


def build_hyperparameters(config: Any) -> tuple[HyperparameterSet, dict[str, Categorical]]:
    """The entries of the group ``hyperparameters``: those with a gradient, and the categorical ones."""
    entries = {name: build(entry, f"hyperparameters.{name}") for name, entry in config.items() if name != "gradient"}
    categorical = {name: entry for name, entry in entries.items() if isinstance(entry, Categorical)}
    try:
        continuous = {name: entry for name, entry in entries.items() if name not in categorical}
        return HyperparameterSet(continuous), categorical
    except InvalidValue as error:
        raise error.below("hyperparameters") from error


def build_gradient(config: Any, key: str) -> Any:
    """A hypergradient strategy, or None where ``none`` was chosen."""
    none = config is None or (isinstance(config, DictConfig) and config.get("_target_") is None)
    return None if none else build(config, key)


def search(config: DictConfig, path: Path) -> tuple[SearchResult, CandidateFile, DataSplits]:
    """One search into the run folder ``path``, down to its ``candidate.json``.

    Nothing is written before every setting has been checked.
    """
    seed, device = checked_seed(config.seed), checked_device(config.device)
    randomness = Randomness(seed, device)
    source = build(config.data, "data")
    relaxation = build(config.relaxation, "relaxation")
    training = build(config.training, "training")
    if training.deterministic:
        use_deterministic_algorithms()
    hyperparameters, categorical = build_hyperparameters(config.hyperparameters)
    held = Hyperparameters(hyperparameters.initial() | {name: entry.initial for name, entry in categorical.items()})
    training = training.chosen_by(held)
    tracking = build(config.tracking, "tracking")
    final = build(config.final, "final")  # a mistake in it should not wait for the retraining
    try:
        splits = source.load()
    except InvalidValue as error:
        raise error.below("data") from error
    ranges = hyperparameters.candidate_ranges() | categorical
    space = build(config.space, "space", input_shape=splits.input_shape, classes=splits.classes, ranges=ranges)
    folder = RunFolder(path, training.keep_checkpoints)
    task = Task.of(space, splits, source.augmentation, training, final, held, hyperparameters.entries, seed, device)
    parts = SearchParts(
        space=space,
        splits=splits,
        augmentation=source.augmentation,
        relaxation=relaxation,
        architecture_gradient=build_gradient(config.hypergradient, "hypergradient"),
        hyperparameter_gradient=build_gradient(config.hyperparameters.gradient, "hyperparameters.gradient"),
        hyperparameters=hyperparameters,
        categorical=categorical,
        discretisation=build(config.discretisation, "discretisation"),
        search=build(config.search, "search"),
        training=training,
        task=task,
        objective=build(config.objective, "objective", space=space),
        budget=build(config.budget, "budget"),
        tracking=tracking,
        randomness=randomness,
        folder=folder,
        draw=partial(space_figure, space),
    )
    evaluator = assemble(config.evaluation, "evaluation", vars(parts))  # takes what it needs of these, by name
    method: Search = assemble(config.method, "method", {**vars(parts), "parts": parts, "evaluator": evaluator})
    if randomness.ranks.count > 1 and not method.data_parallel:
        allowed = "torchrun spreads the batches of method=gradient; others run candidates side by side: evaluation.jobs"
        raise InvalidValue("method", type(method).__name__, allowed)
    if randomness.ranks.is_first:
        say_what_is_lacking(randomness.device)
        record_environment(path, randomness.device)
        seal_configuration(path)
    result = method.search()
    randomness.ranks.leave_the_rest()

    schedule = training.schedule, result.has_settled(), training.schedule_end, result.trajectory
    found = CandidateFile(result.candidate, space, splits.name, *schedule)
    found.write(path / "candidate.json")
    return result, found, splits


def run(config: DictConfig, path: Path) -> None:
    """One search into the run folder ``path``, told and drawn."""
    result, found, splits = search(config, path)
    candidate, console = found.candidate, config.tracking.console
    figure = architecture_figure(found)
    save_drawing(figure, path / "figures" / "architecture")
    if result.supernet is not None:
        write_discretisation_gap(path, result.supernet, candidate.architecture, splits)
    with Tracker(path, build(config.tracking, "tracking"), result.record) as tracker:
        tracker.figure("architecture", figure, result.step)
        tracker.text("architecture", architecture_in_words(found), result.step)
        tracker.final({"seed": config.seed, **candidate.hyperparameters}, result.metrics)
    if console != "quiet":
        print_table(outcome_table(search_outcome(found, result.seconds) | dict(result.remarks)))
    done = f"searched in {result.seconds:.0f} s, {result.in_words()}: {path}"
    page = write_page_if_possible(path)
    say_at_the_end(done, page, f"python train_final.py candidate={shlex.quote(str(path))}", console)


@hydra.main(version_base="1.3", config_path="conf", config_name="train_search")
def run_composed(config: DictConfig) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)

    def work() -> None:
        RunFolder(folder).refuse_if_occupied()  # again: only now are interpolations in its name resolved
        break_seal(folder)
        on_all_ranks(run)(config, folder)

    guarded(work, "train_search.py", folder)


def main() -> None:
    arguments = sys.argv[1:]
    if not join().is_first:  # torchrun: the first rank composes, checks, prints and writes for all
        return follow(run, "train_search.py")

    def resume_or_check() -> bool:
        if run_resumed(arguments, on_all_ranks(run)):
            return True
        refuse_groups_without_option(arguments, Path(__file__).parent / "conf")
        refuse_occupied_folder(arguments)
        return False

    if not guarded(resume_or_check, "train_search.py", resumed_folder(arguments)):
        run_composed()


if __name__ == "__main__":
    main()
