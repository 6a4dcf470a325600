"""Retrain a found network from fresh weights and test it: rebuild, train, measure, write ``result.json``."""

from nas.stopping import leave_when_stopped

if __name__ == "__main__":
    leave_when_stopped()  # before all else: a scheduler may stop the run during the imports, which take seconds

import io
import json
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from nas.candidate import Candidate, Categorical, Hyperparameters
from nas.configuration import build
from nas.data.dataset import DataSplits
from nas.distributed import join
from nas.errors import InvalidValue, RunFailed, UnusableInput, require
from nas.hyperparameters.kinds import Hyperparameter
from nas.interop.export import ExportDiffers, ExportKind, export_network
from nas.interop.named_architecture import PUBLISHED, architecture_text, named_architecture
from nas.interop.original_state import load_original, read_state
from nas.interop.standalone import standalone_source
from nas.report.outcome import architecture_figure, architecture_in_words, final_outcome, recorded_seconds
from nas.report.page import write_page_if_possible
from nas.report.tables import outcome_table, print_table, say_at_the_end
from nas.run.atomic_write import write_atomically
from nas.run.candidate_file import CandidateFile, read_candidate_file
from nas.run.entry_point import follow, guarded, on_all_ranks, refuse_groups_without_option, resumed_folder, run_resumed
from nas.run.environment import checked_device, record_environment, say_what_is_lacking
from nas.run.folder import RunFolder, argument_value, break_seal, refuse_occupied_folder, seal_configuration
from nas.run.inheritance import inherited_configuration
from nas.run.randomness import Randomness, checked_seed, use_deterministic_algorithms
from nas.spaces.space import SearchSpace
from nas.training.metrics import measure
from nas.training.retraining import Retraining
from nas.training.schedules import Schedule
from nas.training.settings import TrainingSettings

CONF = Path(__file__).parent / "conf"


def candidate_path(candidate: object) -> Path:
    """The ``candidate.json`` that ``candidate`` names: a run folder or the file itself.

    Raises:
        InvalidValue: It is neither.
    """
    path = Path("" if candidate is None else str(candidate))
    file = path / "candidate.json" if path.is_dir() else path
    allowed = (
        "it must be a run folder of train_search.py that has finished, a candidate.json, the text of an architecture, "
        f"or one of {', '.join(PUBLISHED)}"
    )
    if not file.is_file():
        raise InvalidValue("candidate", candidate, allowed)
    return file


def final_folder(candidate: str) -> str:
    """Where the retraining of ``candidate`` goes: ``<run folder>/final``, or ``runs/final/<date>`` for any other."""
    path = Path(candidate)
    return str(path / "final" if path.is_dir() else Path("runs/final") / time.strftime("%Y-%m-%d_%H-%M-%S"))


EXPORT_IMAGES = 64  # on which an exported network is checked

OmegaConf.register_new_resolver("final_folder", final_folder, replace=True, use_cache=True)


def configured_entries(config: DictConfig) -> dict[str, Hyperparameter | Categorical]:
    """The configuration's entries of the group ``hyperparameters``."""
    return {
        str(name): build(entry, f"hyperparameters.{name}")
        for name, entry in config.hyperparameters.items()
        if name != "gradient"
    }


def chosen_hyperparameters(
    entries: Mapping[str, Hyperparameter | Categorical], found: CandidateFile, fixed: bool
) -> Hyperparameters:
    """The candidate's values, or (``fixed``) the configuration's initial ones; what one lacks is the other's."""
    initial = {name: entry.initial for name, entry in entries.items()}
    learned = dict(found.candidate.hyperparameters)
    chosen = {**learned, **initial} if fixed else {**initial, **learned}
    idle = {name for name, entry in entries.items() if chosen[name] == entry.neutral}
    return Hyperparameters({name: value for name, value in chosen.items() if name not in idle})


def read_candidate(config: DictConfig, splits: DataSplits, training: TrainingSettings) -> CandidateFile:
    """The candidate from its file; or an architecture from its name or text, bound to the data at hand."""
    text = architecture_text(str(config.candidate))
    if text is None:
        return read_candidate_file(candidate_path(config.candidate))

    def space_named(name: str) -> SearchSpace:
        group = config.space
        if str(group.get("_target_")).split(".")[-2:-1] != [name]:
            group = OmegaConf.load(CONF / "space" / f"{name}.yaml")
        space = build(group, "space", input_shape=splits.input_shape, classes=splits.classes)
        assert isinstance(space, SearchSpace)
        return space

    space, architecture = named_architecture(text, space_named)
    candidate = Candidate(architecture, Hyperparameters())
    return CandidateFile(candidate, space, splits.name, training.schedule, schedule_end=training.schedule_end)


def load_weights(network: torch.nn.Module, path: Path) -> None:
    """Weights from a file of ours (``weights.pt``) or of the original code base, by the names in it.

    Raises:
        InvalidValue: The file cannot be read, or its weights do not fit ``network``.
    """
    try:
        state = read_state(path)
        if state.keys() == network.state_dict().keys():
            network.load_state_dict(state)
        else:
            load_original(network, state)
    except UnusableInput as error:
        allowed = f"it must be a state dict for the candidate's network. {str(error).removesuffix('.')}"
        raise InvalidValue("final.checkpoint", path, allowed) from error
    except RuntimeError as error:
        allowed = "it must be a state dict for the candidate's network, its weights have other shapes"
        raise InvalidValue("final.checkpoint", path, allowed) from error


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
    source = build(config.data, "data")
    try:
        splits = source.load()
    except InvalidValue as error:
        raise error.below("data") from error
    found = read_candidate(config, splits, training)
    fits = splits.input_shape == found.space.input_shape and splits.classes == found.space.classes
    if not fits:
        shape, classes = "x".join(map(str, found.space.input_shape)), found.space.classes
        raise InvalidValue("data", splits.name, f"the candidate is for {shape} images and {classes} classes")
    entries = configured_entries(config)
    hyperparameters = chosen_hyperparameters(entries, found, fixed=final.hyperparameters == "fixed")
    training = training.chosen_by(hyperparameters)
    of_search = final.hyperparameters != "fixed"
    recorded = found.trajectory if final.hyperparameters == "schedule" else {}
    allowed = "the candidate has no record of learned hyperparameters, take learned or fixed"
    require(bool(recorded) or final.hyperparameters != "schedule", "final.hyperparameters", "schedule", allowed)
    schedule: Schedule = found.schedule if of_search else training.schedule
    schedule_end = found.schedule_end if of_search else training.schedule_end

    network = found.space.network(found.candidate.architecture)
    if final.checkpoint is not None:
        load_weights(network, Path(final.checkpoint))
    for name, entry in entries.items():
        if isinstance(entry, Hyperparameter):  # one of a user's own may act in no other way
            entry.bind(network, hyperparameters.get(name, entry.initial))
    known = splits.train_and_validation().to(randomness.device)
    stream = known.stream(
        training.batch_size,
        splits.mean,
        splits.std,
        randomness.on_cpu("training order"),
        source.augmentation,
        randomness.on_device("augmentation"),
    )
    folder = RunFolder(path, training.keep_checkpoints)
    retraining = Retraining(
        network=network,
        stream=stream,
        hyperparameters=hyperparameters,
        schedule=schedule,
        schedule_end=schedule_end,
        recorded=recorded,
        final=final,
        training=training,
        tracking=tracking,
        randomness=randomness,
        folder=folder,
    )
    if randomness.ranks.is_first:
        say_what_is_lacking(randomness.device)
        record_environment(path, randomness.device)
        seal_configuration(path)
        write_atomically(path / "summary.txt", (network_summary(network, splits.input_shape) + "\n").encode())
    retraining.train()
    randomness.ranks.leave_the_rest()

    test = splits.test.to(randomness.device)
    batches = test.evaluation_batches(256, splits.mean, splits.std)
    metrics = measure(network, batches, splits.classes, randomness.device)
    result = {
        "test_accuracy": metrics.accuracy,
        "test_loss": metrics.loss,
        "test_macro_f1": metrics.macro_f1,
        "test_macro_recall": metrics.macro_recall,
        "test_samples": metrics.samples,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seed": config.seed,
        "epochs": final.epochs,
        "hyperparameters": dict(hyperparameters),
        "hyperparameters_from": final.hyperparameters,
        "schedule": schedule,
        "schedule_end": schedule_end,
        "candidate": found.to_json(),
    }
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    write_atomically(path / "weights.pt", weights.getvalue())
    with retraining.open_tracker() as tracker:
        measured = {name: value for name, value in result.items() if name.startswith("test_")}
        for name, value in measured.items():
            tracker.scalar(f"test/{name.removeprefix('test_')}", value, retraining.step, final.epochs - 1)
        tracker.figure("architecture", architecture_figure(found), retraining.step)
        tracker.final({"seed": config.seed, "epochs": final.epochs, **hyperparameters}, measured)
    write_atomically(path / "result.json", (json.dumps(result, indent=2) + "\n").encode())
    write_for_others(found, network, final.export, splits, path, tracking.console)
    return found, result


def run(config: DictConfig, path: Path) -> None:
    """One retraining into ``path``, told and drawn."""
    found, result = retrain(config, path)
    console = config.tracking.console
    if console != "quiet":
        print_table(outcome_table(final_outcome(found, result, recorded_seconds(Path(str(config.candidate))))))
    searched = Path(str(config.candidate))
    of_run = path.resolve().parent == searched.resolve()  # the page is that of the search, with its retraining
    page = write_page_if_possible(searched if of_run else path)
    following = f"python -m nas.report compare {shlex.quote(str(searched if of_run else path))} <another run folder>"
    accuracy, images = 100 * result["test_accuracy"], result["test_samples"]
    summary = f"test accuracy {accuracy:.2f} % ({images} images): {path / 'result.json'}"
    say_at_the_end(summary, page, following, console)


def write_for_others(
    found: CandidateFile,
    network: torch.nn.Module,
    export: ExportKind | None,
    splits: DataSplits,
    path: Path,
    console: str,
) -> None:
    """The network as a Python file that needs torch only, and as the file that ``export`` names.

    Raises:
        RunFailed: The exported file does not compute what the network computes.
    """
    title = f"{architecture_in_words(found)}, found on {found.data}"
    try:
        source = standalone_source(found.space, found.candidate.architecture, splits.mean, splits.std, title)
        write_atomically(path / "network.py", source.encode())
    except InvalidValue as error:
        print(f"no network.py: {error}")
    if export is None:
        return
    images = next(iter(splits.test.evaluation_batches(EXPORT_IMAGES, splits.mean, splits.std))).images
    try:
        exported, difference = export_network(network, export, path, images)
    except ExportDiffers as error:
        raise RunFailed(f"{error}; the result is in {path}") from error
    if console != "quiet":
        print(f"exported, logits within {difference:.1g} on {len(images)} test images: {exported}")


def network_summary(network: torch.nn.Module, input_shape: tuple[int, int, int]) -> str:
    """A table of the network's layers with shapes, parameters and multiply-adds for one image."""
    from torchinfo import summary  # here and not above: a run that is refused needs none

    columns = ("input_size", "output_size", "num_params", "mult_adds")
    return str(summary(network, input_size=(1, *input_shape), col_names=columns, depth=3, verbose=0, mode="eval"))


@hydra.main(version_base="1.3", config_path="conf", config_name="train_final")
def run_composed(config: DictConfig) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)

    def work() -> None:
        settings = inherited_configuration(config, HydraConfig.get().overrides.task)
        RunFolder(folder).refuse_if_occupied()  # again: only now are interpolations in its name resolved
        break_seal(folder)
        what_runs = OmegaConf.to_yaml(settings).encode()  # so that it can be resumed
        write_atomically(folder / ".hydra" / "config.yaml", what_runs)
        on_all_ranks(run)(settings, folder)

    guarded(work, "train_final.py", folder)


def main() -> None:
    arguments = sys.argv[1:]
    if not join().is_first:  # torchrun: the first rank composes, checks, prints and writes for all
        return follow(run, "train_final.py")

    def resume_or_check() -> bool:
        if run_resumed(arguments, on_all_ranks(run), begin=inherited_configuration):
            return True
        refuse_groups_without_option(arguments, CONF)
        candidate = argument_value(arguments, "candidate")
        flags = [
            argument for argument in arguments if argument.startswith("-") and argument not in ("-m", "--multirun")
        ]
        if candidate is None and not flags:
            candidate_path(None)
        if candidate is not None and "," not in candidate and "$" not in candidate:
            if architecture_text(candidate) is None:
                candidate_path(candidate)
            refuse_occupied_folder(arguments, default=final_folder(candidate))
        return False

    if not guarded(resume_or_check, "train_final.py", resumed_folder(arguments)):
        run_composed()


if __name__ == "__main__":
    main()
