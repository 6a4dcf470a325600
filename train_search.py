"""Search an architecture and its hyperparameters: build the pieces, run the method, write the run folder."""

from nas.stopping import leave_when_stopped
from nas.surroundings import adapt_to_surroundings

if __name__ == "__main__":
    adapt_to_surroundings()
    leave_when_stopped()  # before all else: a scheduler may stop the run during the imports, which take seconds

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import hydra
from omegaconf import DictConfig

from nas.candidate import Hyperparameters
from nas.configuration import assemble, build, build_or_none
from nas.errors import require
from nas.evaluation.training_setup import TrainingSetup
from nas.hyperparameters.building import built_hyperparameters
from nas.report.drawing import save_drawing
from nas.report.explanation import write_discretisation_gap
from nas.report.outcome import architecture_figure, architecture_in_words, search_outcome, space_figure
from nas.report.page import write_page_if_possible
from nas.report.tables import outcome_table, print_table, say_at_the_end
from nas.run.candidate_file import CandidateFile
from nas.run.entry_point import run_composed, start
from nas.run.environment import checked_device, log_missing_kernels, record_environment
from nas.run.folder import RunFolder, refuse_occupied_folder
from nas.run.implied_arguments import implied_arguments
from nas.run.overrides import refuse_impossible_options
from nas.run.randomness import Randomness, checked_seed, use_deterministic_algorithms
from nas.run.recorded import command_for, is_asked_for, typed_settings
from nas.run.tracking import Tracker
from nas.search.parts import SearchParts
from nas.search.result import Search, SearchResult
from nas.spaces.building import built_space
from nas.spaces.fitting import DEFAULT_CHAINS
from nas.tasks import data_and_task
from nas.training.augment import refuse_unsuited_augmentation

COMMAND = "train_search.py"
CONF = Path(__file__).parent / "conf"


def built_parts(config: DictConfig, path: Path) -> SearchParts:
    """The pieces of a run in the folder ``path``, into which nothing is written yet."""
    seed, device = checked_seed(config.seed), checked_device(config.device)
    randomness = Randomness(seed, device)
    relaxation = build(config.relaxation, "relaxation")
    architecture_gradient = build_or_none(config.hypergradient, "hypergradient")
    hyperparameter_gradient = build_or_none(config.hyperparameters.gradient, "hyperparameters.gradient")
    training = build(config.training, "training")
    if training.deterministic:
        use_deterministic_algorithms()
    hyperparameters, categorical = built_hyperparameters(config.hyperparameters, training.absent_hyperparameters)
    initial = Hyperparameters(hyperparameters.initial() | {name: entry.initial for name, entry in categorical.items()})
    training = training.chosen_by(initial)
    tracking = build(config.tracking, "tracking")
    final = build(config.final, "final")  # a mistake in it should not wait for the retraining
    source, splits, task = data_and_task(config)
    refuse_unsuited_augmentation(task.signature, initial)
    ranges = hyperparameters.candidate_ranges() | categorical
    asked_for = is_asked_for(path, "space", defaults=DEFAULT_CHAINS)
    typed = typed_settings(path, "space")
    space = built_space(config.space, task.signature, CONF / "space", ranges, asked_for, typed)
    setup = TrainingSetup(
        space=space,
        task=task,
        train=splits.train.to(device),
        validation=splits.validation.to(device),
        mean=splits.mean,
        std=splits.std,
        augmentation=source.augmentation,
        training=training,
        final=final,
        held=initial,
        bound=hyperparameters.entries,
        seed=seed,
        device=device,
        epoch_samples=splits.epoch_samples,
    )
    objective = assemble(config.objective, "objective", {"space": space, "task": task})
    stopping = build_or_none(config.get("stopping"), "stopping")
    return SearchParts(
        space=space,
        splits=splits,
        task=task,
        augmentation=source.augmentation,
        relaxation=relaxation,
        architecture_gradient=architecture_gradient,
        hyperparameter_gradient=hyperparameter_gradient and hyperparameter_gradient.suited_to(architecture_gradient),
        regulariser=build_or_none(config.get("regulariser"), "regulariser"),
        perturbation=build_or_none(config.get("perturbation"), "perturbation"),
        shrinking=build_or_none(config.get("shrinking"), "shrinking"),
        stopping=stopping,
        hyperparameters=hyperparameters,
        categorical=categorical,
        discretisation=build(config.discretisation, "discretisation").suited_to(objective, stopping),
        search=build(config.search, "search"),
        training=training,
        setup=setup,
        objective=objective,
        budget=build(config.budget, "budget"),
        tracking=tracking,
        randomness=randomness,
        folder=RunFolder(path, training.keep_checkpoints),
        draw=partial(space_figure, space, task_name=task.name),
    )


def search(config: DictConfig, path: Path) -> tuple[SearchResult, CandidateFile, SearchParts]:
    """One search into the run folder ``path``, down to its ``candidate.json``.

    Nothing is written before every setting has been checked.
    """
    parts = built_parts(config, path)
    parts = replace(parts, evaluator=assemble(config.evaluation, "evaluation", vars(parts)))  # what it needs, by name
    space, splits, training, randomness = parts.space, parts.splits, parts.training, parts.randomness
    method: Search = assemble(config.method, "method", {**vars(parts), "parts": parts})
    source, ranks = parts.search.from_, randomness.ranks
    allowed = "it is for method=gradient, tuned, coarse_to_fine, cross_validated, neighbours"
    require(source is None or method.begins_with_another, "search.from", source, allowed)
    allowed = "torchrun spreads the batches of method=gradient; others run candidates side by side: evaluation.jobs"
    require(ranks.count == 1 or method.data_parallel, "method", type(method).__name__, allowed)
    if ranks.is_first:
        log_missing_kernels(randomness.device)
        record_environment(path, randomness.device, splits, parts.task)
    result = method.search()
    ranks.end_shared_part()

    found = CandidateFile(
        candidate=result.candidate,
        space=space,
        data=splits.name,
        schedule=training.schedule,
        settled=result.has_settled(),
        schedule_end=training.schedule_end,
        trajectory=result.trajectory,
        class_names=splits.class_names,
        task=parts.task.to_json(),
        preparation=splits.preparation,
        digest=splits.digest,
    )
    found.write(path / "candidate.json")
    return result, found, parts


def run(config: DictConfig, path: Path) -> None:
    """One search into the run folder ``path``, told and drawn."""
    result, found, parts = search(config, path)
    candidate, console = found.candidate, config.tracking.console
    figure = architecture_figure(found)
    save_drawing(figure, path / "figures" / "architecture")
    if result.supernet is not None:
        write_discretisation_gap(path, result.supernet, candidate.architecture, parts.splits, parts.task)
    with Tracker(path, parts.tracking, result.record, parts.task) as tracker:
        tracker.figure("architecture", figure, result.step)
        tracker.text("architecture", architecture_in_words(found), result.step)
        tracker.final({"seed": config.seed, **candidate.hyperparameters}, result.metrics)
    if console != "quiet":
        print_table(outcome_table(search_outcome(found, result.seconds) | dict(result.remarks)))
    done = f"searched in {result.seconds:.0f} s, {result.in_words()}: {path}"
    page = write_page_if_possible(path)
    say_at_the_end(done, page, command_for("train_final.py", "candidate", path), console)


def prepared(arguments: Sequence[str]) -> list[str]:
    """``arguments`` and those that they imply, unless Hydra would print a traceback for one, or write over a run."""
    refuse_impossible_options(arguments, CONF)
    refuse_occupied_folder(arguments)
    return [*arguments, *implied_arguments(arguments, CONF)]


@hydra.main(version_base="1.3", config_path="conf", config_name="train_search")
def compose_and_run(config: DictConfig) -> int:
    return run_composed(COMMAND, run, config)


if __name__ == "__main__":
    start(COMMAND, run, compose_and_run, prepared)
