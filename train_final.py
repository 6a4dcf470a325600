"""Retrain a found network from fresh weights and test it: rebuild, train, measure, write ``result.json``."""

import json
import sys
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from nas.atomic_write import write_atomically
from nas.candidate import Hyperparameters
from nas.configuration import InvalidValue, build
from nas.report.outcome import architecture_figure, final_outcome, recorded_seconds
from nas.report.tables import outcome_table, print_table
from nas.spaces.candidate_file import CandidateFile, read_candidate_file
from nas.training.entry_point import guarded, run_resumed
from nas.training.inheritance import inherited_configuration
from nas.training.metrics import measure
from nas.training.randomness import Randomness
from nas.training.retraining import Retraining
from nas.training.run_folder import RunFolder, argument_value, refuse_occupied_folder
from nas.training.schedules import Schedule
from nas.training.settings import checked_device, checked_seed


def candidate_path(candidate: object) -> Path:
    """The ``candidate.json`` that ``candidate`` names: a run folder or the file itself."""
    path = Path(str(candidate))
    file = path / "candidate.json" if path.is_dir() else path
    allowed = "it must be a run folder of train_search.py that has finished, or a candidate.json"
    if not file.is_file():
        raise InvalidValue("candidate", candidate, allowed)
    return file


def final_folder(candidate: str) -> str:
    """Where the retraining of ``candidate`` goes: ``<run folder>/final``, or beside a lone file."""
    path = Path(candidate)
    return str(path / "final" if path.is_dir() else path.parent / f"{path.stem}_final")


OmegaConf.register_new_resolver("final_folder", final_folder, replace=True)


def chosen_hyperparameters(config: DictConfig, found: CandidateFile) -> Hyperparameters:
    """The candidate's values, or the configuration's initial ones; a value neither has is the other's."""
    initial = {
        name: build(entry, f"hyperparameters.{name}").initial
        for name, entry in config.hyperparameters.items()
        if name != "gradient"
    }
    learned = dict(found.candidate.hyperparameters)
    fixed = config.final.hyperparameters == "fixed"
    return Hyperparameters({**learned, **initial} if fixed else {**initial, **learned})


def run(config: DictConfig, path: Path) -> None:
    """One retraining into ``path``; nothing is written before every setting has been checked."""
    randomness = Randomness(checked_seed(config.seed), checked_device(config.device))
    file = candidate_path(config.candidate)
    found = read_candidate_file(file)
    final = build(config.final, "final")
    training = build(config.training, "training")
    tracking = build(config.tracking, "tracking")
    source = build(config.data, "data")
    try:
        splits = source.load()
    except InvalidValue as error:
        raise error.below("data") from error
    fits = splits.input_shape == found.space.input_shape and splits.classes == found.space.classes
    if not fits:
        shape, classes = "x".join(map(str, found.space.input_shape)), found.space.classes
        raise InvalidValue("data", splits.name, f"the candidate is for {shape} images and {classes} classes")
    hyperparameters = chosen_hyperparameters(config, found)
    of_search = final.hyperparameters == "learned"
    schedule: Schedule = found.schedule if of_search else training.schedule
    schedule_end = found.schedule_end if of_search else training.schedule_end

    network = found.space.network(found.candidate.architecture)
    known = splits.train_and_validation().to(randomness.device)
    stream = known.stream(
        training.batch_size,
        splits.mean,
        splits.std,
        randomness.on_cpu("training order"),
        source.augmentation,
        randomness.on_device("augmentation"),
    )
    folder = RunFolder(path)
    retraining = Retraining(
        network=network,
        stream=stream,
        hyperparameters=hyperparameters,
        schedule=schedule,
        schedule_end=schedule_end,
        final=final,
        training=training,
        tracking=tracking,
        randomness=randomness,
        folder=folder,
    )
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(path / "summary.txt", (network_summary(network, splits.input_shape) + "\n").encode())
    retraining.train()

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
        "schedule": schedule,
        "schedule_end": schedule_end,
        "candidate": found.to_json(),
    }
    torch.save(network.state_dict(), path / "weights.pt")
    with retraining.open_tracker() as tracker:
        measured = {name: value for name, value in result.items() if name.startswith("test_")}
        for name, value in measured.items():
            tracker.scalar(f"test/{name.removeprefix('test_')}", value, retraining.step, final.epochs - 1)
        tracker.figure("architecture", architecture_figure(found), retraining.step)
        tracker.final({"seed": config.seed, "epochs": final.epochs, **hyperparameters}, measured)
    write_atomically(path / "result.json", (json.dumps(result, indent=2) + "\n").encode())
    if tracking.console != "quiet":
        print_table(outcome_table(final_outcome(found, result, recorded_seconds(file.parent))))
    print(f"test accuracy {100 * metrics.accuracy:.2f} % ({metrics.samples} images): {path / 'result.json'}")


def network_summary(network: torch.nn.Module, input_shape: tuple[int, int, int]) -> str:
    """A table of the network's layers with shapes, parameters and multiply-adds for one image."""
    from torchinfo import summary  # here and not above: a run that is refused needs none

    columns = ("input_size", "output_size", "num_params", "mult_adds")
    return str(summary(network, input_size=(1, *input_shape), col_names=columns, depth=3, verbose=0, mode="eval"))


@hydra.main(version_base="1.3", config_path="conf", config_name="train_final")
def run_composed(config: DictConfig) -> None:
    def work() -> None:
        settings = inherited_configuration(config, HydraConfig.get().overrides.task)
        folder = Path(HydraConfig.get().runtime.output_dir)
        RunFolder(folder).refuse_if_occupied()  # again: only now are interpolations in its name resolved
        OmegaConf.save(settings, folder / ".hydra" / "config.yaml")  # what runs, so that it can be resumed
        run(settings, folder)

    guarded(work, "train_final.py")


def main() -> None:
    arguments = sys.argv[1:]

    def resume_or_check() -> bool:
        if run_resumed(arguments, run):
            return True
        candidate = argument_value(arguments, "candidate")
        if candidate is not None:
            candidate_path(candidate)
            refuse_occupied_folder(arguments, default=final_folder(candidate))
        return False

    if not guarded(resume_or_check, "train_final.py"):
        run_composed()


if __name__ == "__main__":
    main()
