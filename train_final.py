"""Retrain a found network from fresh weights and test it: rebuild, train, measure, write ``result.json``."""

from nas.stopping import leave_when_stopped
from nas.surroundings import adapt_to_surroundings, typed_path, typed_python

if __name__ == "__main__":
    adapt_to_surroundings()
    leave_when_stopped()  # before all else: a scheduler may stop the run during the imports, which take seconds

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from nas.candidate import Categorical, Hyperparameters
from nas.configuration import build, build_each
from nas.data.class_names import require_same_classes
from nas.data.data_splits import DataSplits
from nas.data.dataset import Dataset
from nas.errors import InvalidValue, require
from nas.evaluation.network_cost import AUXILIARY, as_used, count_parameters
from nas.hyperparameters.building import NO_ENTRIES
from nas.hyperparameters.kinds import Hyperparameter
from nas.interop.export import write_for_other_programs
from nas.interop.named_architecture import architecture_text, candidate_path, read_candidate
from nas.interop.original_state import load_weights, write_weights
from nas.interop.trained_network import TrainedNetwork
from nas.report.continuation import continued_text
from nas.report.outcome import (
    architecture_figure,
    architecture_in_words,
    final_outcome,
    recorded_seconds,
    samples_in_words,
)
from nas.report.page import write_page_if_possible
from nas.report.sample_files import sample_files
from nas.report.tables import outcome_table, print_table, say_at_the_end
from nas.run.candidate_file import PLAIN_TASK, CandidateFile
from nas.run.checkpoint import write_atomically
from nas.run.entry_point import run_composed, start
from nas.run.environment import checked_device, log_missing_kernels, record_environment
from nas.run.folder import RunFolder, refuse_occupied_folder
from nas.run.overrides import refuse_impossible_options, value_of
from nas.run.ownership import OwnedByAnother, owned
from nas.run.randomness import Randomness, checked_seed, use_deterministic_algorithms
from nas.run.recorded import inherited_configuration, refuse_search_from, trust_prefix, with_keys_of_run
from nas.signature import Signature
from nas.spaces.space import SearchSpace
from nas.tasks import Task, data_and_task, recorded_outputs, recorded_task
from nas.training.metrics import Measured, measure
from nas.training.retraining import FinalSettings, Retraining
from nas.training.stream import training_stream

log = logging.getLogger("nas.train_final")
COMMAND = "train_final.py"
WAY_OUT = "; for other {} on purpose, remove {} and fingerprint from its candidate.json"
PAGE_WAIT = 10.0  # seconds, for another process that writes into the folder of the search
CONF = Path(__file__).parent / "conf"


def retrain(config: DictConfig, path: Path) -> tuple[CandidateFile, dict[str, Any]]:
    """One retraining into ``path`` with its test: the candidate and what ``result.json`` holds.

    Nothing is written before every setting has been checked.
    """
    randomness = Randomness(checked_seed(config.seed), checked_device(config.device))
    final = build(config.final, "final")
    training = build(config.training, "training")
    if training.deterministic:
        use_deterministic_algorithms()
    tracking = build(config.tracking, "tracking")
    source, splits, task = data_and_task(config)
    found = read_candidate(config.candidate, splits, task, training, partial(named_space, config, task.signature))
    found = checked_candidate(found, splits, task)
    fixed, follows = final.hyperparameters == "fixed", final.hyperparameters == "schedule"
    absent = (*NO_ENTRIES, *training.absent_hyperparameters)
    entries = build_each(config.hyperparameters, "hyperparameters", without=absent)
    hyperparameters = chosen_hyperparameters(entries, found, fixed)
    training = training.chosen_by(hyperparameters)
    owner = training if fixed else found
    schedule, schedule_end = owner.schedule, owner.schedule_end
    recorded = found.trajectory if follows else {}
    allowed = "the candidate has no record of learned hyperparameters, take learned or fixed"
    require(bool(recorded) or not follows, "final.hyperparameters", "schedule", allowed)

    network = initial_network(found, final, splits)
    for name, entry in entries.items():
        if isinstance(entry, Hyperparameter):  # one of a user's own may act in no other way
            entry.bind(network, hyperparameters.get(name, entry.initial))
    held_out = training.averaging != "none"  # averaging waits for the loss on images that are not trained on
    known = (splits.train if held_out else splits.train_and_validation()).to(randomness.device)
    retraining = Retraining(
        network=network,
        task=task,
        stream=training_stream(known, splits, training.batch_size, source.augmentation, randomness),
        hyperparameters=hyperparameters,
        schedule=schedule,
        schedule_end=schedule_end,
        recorded=recorded,
        final=final,
        training=training,
        tracking=tracking,
        randomness=randomness,
        folder=RunFolder(path, training.keep_checkpoints),
        validation=partial(splits.validation.to(randomness.device).evaluation_batches, 256, splits.mean, splits.std),
    )
    if randomness.ranks.is_first:
        log_missing_kernels(randomness.device)
        record_environment(path, randomness.device, splits, task)
        write_atomically(path / "summary.txt", (network_summary(network, task.signature) + "\n").encode())
    retraining.train()
    randomness.ranks.end_shared_part()

    test = splits.test.to(randomness.device)
    metrics, drawings = test_and_predict(network, test, splits, task, randomness.device, path)
    measured = {
        **{f"test_{name}": value for name, value in metrics.numbers().items()},
        "test_samples": metrics.samples,
    }
    parameters = int(count_parameters(network, task.signature))
    of_head = sum(parameter.numel() for parameter in network.parameters()) - parameters
    write_weights(network, path / "weights.pt", splits.class_names)
    TrainedNetwork.of(found, splits, task).write(path)
    result = {
        **measured,
        **recorded_task(task, metrics.values, task.measured_without_inputs(test.targets)),
        **recorded_outputs(task, metrics.each, task.output_names(splits)),
        "parameters": parameters,
        **({AUXILIARY: of_head} if of_head else {}),
        "seed": config.seed,
        "epochs": final.epochs,
        "hyperparameters": dict(hyperparameters),
        "hyperparameters_from": final.hyperparameters,
        "schedule": schedule,
        "schedule_end": schedule_end,
        "candidate": found.to_json(),
        **continued_text(network, splits, randomness.anew("continuation")),
    }
    with retraining.open_tracker() as tracker:
        for name, value in measured.items():
            tracker.scalar(f"test/{name.removeprefix('test_')}", value, retraining.step, final.epochs - 1)
        tracker.figure("architecture", architecture_figure(found), retraining.step)
        for name, figure in drawings:
            tracker.figure(name, figure, retraining.step)
        tracker.final({"seed": config.seed, "epochs": final.epochs, **hyperparameters}, measured)
    write_atomically(path / "result.json", (json.dumps(result, indent=2) + "\n").encode())
    title, quiet = f"{architecture_in_words(found)}, found on {found.data}", tracking.console == "quiet"
    architecture = found.candidate.architecture
    write_for_other_programs(network, found.space, architecture, splits, task, path, title, final.export, quiet)
    return found, result


def checked_candidate(found: CandidateFile, splits: DataSplits, task: Task) -> CandidateFile:
    """``found``, which must be for ``splits`` and ``task``, with the names of its classes.

    Raises:
        InvalidValue: It is not, or the data of its search have changed.
    """
    require(task.name == found.task["name"], "task", task.name, f"the candidate is for {found.task['name']}")
    if task.signature != found.space.signature:
        shape, outputs = "x".join(map(str, found.space.input_shape)), found.space.classes
        what = f"{shape} images and {outputs} classes" if found.task == PLAIN_TASK else f"{shape} and {outputs} outputs"
        raise InvalidValue("data", splits.name, f"the candidate is for {what}")
    if found.data not in splits.names:  # the architecture may go to another data set, and its classes stay behind
        return found
    way_out = WAY_OUT.format("classes", "class_names, digest" if found.digest else "class_names")
    require_same_classes("data", splits.name, "the candidate", found.class_names, splits.class_names, way_out)
    same = found.digest in ("", *splits.digests) or not splits.digest
    way_out = WAY_OUT.format("data", "digest")
    require(same, "data", splits.name, f"its files have changed since the search{way_out}")
    return replace(found, class_names=found.class_names or splits.class_names)


def initial_network(found: CandidateFile, final: FinalSettings, splits: DataSplits) -> torch.nn.Module:
    """The candidate's network with fresh weights, or with those of ``final.checkpoint``."""
    network = found.space.network(found.candidate.architecture)
    for doubt in found.space.doubts(found.candidate.architecture):
        log.info(f"this architecture cannot work well: {doubt}")
    if final.checkpoint is not None:
        load_weights(network, Path(final.checkpoint), splits.class_names)
    elif final.epochs == 0:
        log.info("final.epochs=0 without a final.checkpoint: what is tested are random weights")
    return network


def test_and_predict(
    network: torch.nn.Module, test: Dataset, splits: DataSplits, task: Task, device: torch.device, folder: Path
) -> tuple[Measured, Sequence[tuple[str, Any]]]:
    """Measure ``network`` on ``test``, the test part of ``splits``, and write what it predicts into ``folder``; returns
    what was measured, and drawings of samples with a name each."""
    batches = test.evaluation_batches(256, splits.mean, splits.std)
    predictions = sample_files(task, splits)
    metrics = measure(network, batches, task, device, each=True, see=predictions.see)
    return metrics, predictions.write(folder)


def run(config: DictConfig, path: Path) -> None:
    """One retraining into ``path``, told and drawn."""
    found, result = retrain(config, path)
    console = config.tracking.console
    if console != "quiet":
        print_table(outcome_table(final_outcome(found, result, recorded_seconds(Path(str(config.candidate))))))
    searched = Path(str(config.candidate))
    # A retraining in the folder of its search has no page of its own: it is part of the search's.
    page_folder = searched if path.resolve().parent == searched.resolve() else path
    page = None
    try:
        with owned(page_folder, wait=PAGE_WAIT):
            page = write_page_if_possible(page_folder)
    except OwnedByAnother as holder:
        print(f"the page is not written, since {holder} is writing into {searched}", file=sys.stderr)
    trust = trust_prefix(OmegaConf.to_container(config, resolve=False), found.space.describe())
    following = f"compare {typed_path(page_folder)} <another run folder>"
    if "kind" in found.preparation:  # data of the user's own
        following = f"predict {typed_path(page_folder if path.name == 'final' else path)} <new samples>"
    samples = f"{result['test_samples']} {samples_in_words(found.space.signature)}"
    summary = f"test {result['told']} ({samples}): {path / 'result.json'}"
    say_at_the_end(summary, page, f"{trust}{typed_python()} -m nas.report {following}", console)


def chosen_hyperparameters(
    entries: Mapping[str, Hyperparameter | Categorical], found: CandidateFile, fixed: bool
) -> Hyperparameters:
    """The candidate's values, or (``fixed``) the configuration's initial ones; what one lacks is the other's."""
    initial = {name: entry.initial for name, entry in entries.items()}
    learned = dict(found.candidate.hyperparameters)
    chosen = {**learned, **initial} if fixed else {**initial, **learned}
    without_effect = {name for name, entry in entries.items() if chosen[name] == entry.neutral}
    return Hyperparameters({name: value for name, value in chosen.items() if name not in without_effect})


def named_space(config: DictConfig, signature: Signature, name: str) -> SearchSpace:
    """The space ``name`` for the data at hand, with the configuration's settings if it is the configuration's."""
    group = config.space
    if str(group.get("_target_")).rpartition(".")[2].lower() != name:
        group = OmegaConf.load(CONF / "space" / f"{name}.yaml")
    space = build(group, "space", signature=signature)
    assert isinstance(space, SearchSpace)
    return space


def network_summary(network: torch.nn.Module, signature: Signature) -> str:
    """A table of the layers with shapes, parameters and multiply-adds for one input; no auxiliary head is in it."""
    from torchinfo import summary  # here and not above: a run that is refused needs none

    columns = ("input_size", "output_size", "num_params", "mult_adds")
    example = signature.example(1)
    size, kinds = tuple(example.shape), [example.dtype]
    return str(summary(as_used(network), size, dtypes=kinds, col_names=columns, depth=3, verbose=0, mode="eval"))


def final_folder(candidate: str) -> str:
    """Where the retraining of ``candidate`` goes: ``<run folder>/final``, or ``runs/final/<date>`` for any other."""
    path = Path(candidate)
    return str(path / "final" if os.path.isdir(path) else Path("runs/final") / time.strftime("%Y-%m-%d_%H-%M-%S"))


def prepared(arguments: Sequence[str]) -> list[str]:
    """``arguments`` as Hydra reads them, which must name a candidate and write over no run."""
    refuse_impossible_options(arguments, CONF)
    refuse_search_from(arguments)
    candidate = value_of(arguments, "candidate")
    flags = [argument for argument in arguments if argument.startswith("-") and argument not in ("-m", "--multirun")]
    if candidate is None and not flags:
        candidate_path(None)
    if candidate is None or "," in candidate or "$" in candidate:  # of a sweep or an interpolation, Hydra names it
        return list(arguments)
    if architecture_text(candidate) is None:
        candidate_path(candidate)
    refuse_occupied_folder(arguments, default=final_folder(candidate))
    return with_keys_of_run(arguments, candidate)


OmegaConf.register_new_resolver("final_folder", final_folder, replace=True, use_cache=True)


@hydra.main(version_base="1.3", config_path="conf", config_name="train_final")
def compose_and_run(config: DictConfig) -> int:
    return run_composed(COMMAND, run, config, inherit=inherited_configuration)


if __name__ == "__main__":
    start(COMMAND, run, compose_and_run, prepared, inherit=inherited_configuration)
