"""Searches and retrainings whose steps are recorded and replayed: the same bytes as without."""

import gc
import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nas.bilevel.exact import Exact
from nas.data.augmentation import Augmentation
from nas.data.batches import Batch
from nas.data.data_splits import DataSplits
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import (
    Cutout,
    DropoutRate,
    DropPathRate,
    LabelSmoothing,
    LearningRate,
    Mixing,
    WeightDecay,
)
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised
from nas.operations.fast import edges
from nas.operations.fast.library import without_kernels
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.run.randomness import Randomness
from nas.search import parts as parts_module
from nas.search.gradient_search import GradientSearch
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace
from nas.stopping import Stopped
from nas.training import retraining as retraining_module
from nas.training.retraining import FinalSettings, Retraining
from nas.training.settings import TrainingSettings
from tests.device.cpu_recording import CpuRecording
from tests.problems import QUIET, digits, problem_over, retraining_of, search_parts

IMAGES = {"signature": Signature((1, 8, 8), 10)}
LAYERS = [
    {"type": "conv", "filters": [4, 8], "kernel_size": [1, 3]},
    {"choose": [{"type": "pool", "pool_size": [2, 3]}, {"type": "conv", "filters": 4, "kernel_size": 3, "stride": 2}]},
    {"type": "dense", "units": [8, 16]},
]


def space_of(name: str, implementation: Any) -> SearchSpace:
    if name == "macro":
        return Macro(LAYERS, ["relu", "tanh"], implementation, **IMAGES)
    if name == "darts":
        sizes = {"cells": 3, "channels": 4, "steps": 2, "multiplier": 2, "final_cells": 3, "final_channels": 4}
        return Darts(**sizes, implementation=implementation, **IMAGES)
    return NasBench201(channels=4, cells_per_stage=1, implementation=implementation, **IMAGES)


SPACES = {name: space_of(name, "fast") for name in ("macro", "darts", "nasbench201")}
RELAXATIONS = {
    "softmax": lambda: Softmax(Temperature(2.0, 0.5)),
    "gumbel": lambda: GumbelSoftmax(Temperature(2.0, 0.5)),
    "gumbel, hard": lambda: GumbelSoftmax(Temperature(1.0, 1.0), hard=True),
}
EVERY_STEP = replace(QUIET, log_every=1)


@pytest.fixture(scope="module")
def splits() -> DataSplits:
    return digits(80, 48)


@pytest.fixture(autouse=True)
def stock_operations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a GPU computes with, in both of the runs that are compared."""
    monkeypatch.setattr(edges, "_edge_by_edge", edges._all_at_once)
    with without_kernels():
        yield


def entries(learned: bool, space: str) -> HyperparameterSet:
    found = {
        "learning_rate": LearningRate(0.05, 1e-5, 0.5, "log", learned, CosineNormalised(0.3)),
        "weight_decay": WeightDecay(3e-4, 1e-6, 1e-2, "log", learned, AdamUpdate(0.1)),
        "dropout": DropoutRate(0.3, 0.0, 0.9, "logit", learned, AdamUpdate(0.1)),
        "label_smoothing": LabelSmoothing(0.1, 0.0, 0.5, "linear", learned, AdamUpdate(0.1)),
        "cutout": Cutout(0.3, 0.0, 1.0, "linear", learned, AdamUpdate(0.1)),
        "mixing": Mixing(0.2, 0.0, 0.9, "linear", False),
    }
    if space != "macro":
        found["drop_path"] = DropPathRate(0.2, 0.0, 0.6, "logit", learned, AdamUpdate(0.1))
    return HyperparameterSet(found)


def made(
    splits: DataSplits, folder: Path, space: str, relaxation: str, learned: bool, precision: Any = "float32"
) -> GradientSearch:
    return GradientSearch(
        search_parts(
            folder,
            space=SPACES[space],
            splits=splits,
            augmentation=Augmentation(crop_padding=1),
            relaxation=RELAXATIONS[relaxation](),
            hyperparameter_gradient=Exact() if learned else None,
            hyperparameters=entries(learned, space),
            search={"hyperparameter_every": 2, "checkpoint_every": 4},
            training=TrainingSettings(16, 0.9, 5.0, "cosine", precision=precision),
            tracking=EVERY_STEP,
        )
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("space", SPACES)
def test_on_a_gpu_everything_together_searches_as_nothing_of_it_does(space, splits, tmp_path):
    def searched(name: str, **settings: Any) -> float:
        plain = made(splits, tmp_path / name, space, "softmax", False)
        training = TrainingSettings(16, 0.9, 5.0, "cosine", **settings)
        search = GradientSearch(replace(plain.parts, training=training, randomness=Randomness(0, "cuda")))
        return search.search().metrics["supernet/validation_loss"]

    everything = searched("everything", compile=True, cuda_graphs=True, precision="bfloat16")
    assert everything == pytest.approx(searched("nothing"), rel=0.1)


def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``training.cuda_graphs=true`` does, were there a GPU."""
    CpuRecording.made = 0
    for module in (parts_module, retraining_module):
        monkeypatch.setattr(module, "recording_for", lambda asked, device, ranks: CpuRecording)


def same(one: GradientSearch, other: GradientSearch) -> bool:
    states = one.supernet.state_dict(), other.supernet.state_dict()
    metrics = [(search.parts.folder.path / "metrics.csv").read_bytes() for search in (one, other)]
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0]) and metrics[0] == metrics[1]


@pytest.mark.parametrize(
    ("space", "relaxation", "learned"),
    [
        ("macro", "softmax", True),
        ("macro", "gumbel", False),
        pytest.param("darts", "gumbel", True, marks=pytest.mark.slow),  # half a minute; nasbench201 has cells, too
        ("nasbench201", "gumbel, hard", True),
    ],
)
def test_a_recorded_search_is_the_same(space, relaxation, learned, splits, tmp_path, monkeypatch):
    plain = made(splits, tmp_path / "plain", space, relaxation, learned)
    found = plain.search().candidate
    recording(monkeypatch)
    recorded = made(splits, tmp_path / "recorded", space, relaxation, learned)
    assert recorded.search().candidate == found
    assert same(recorded, plain)
    assert CpuRecording.made == 2, "one for the weights, one for alpha"


def test_in_half_precision_too(splits, tmp_path, monkeypatch):
    plain = made(splits, tmp_path / "plain", "nasbench201", "softmax", False, "bfloat16")
    plain.search()
    recording(monkeypatch)
    recorded = made(splits, tmp_path / "recorded", "nasbench201", "softmax", False, "bfloat16")
    recorded.search()
    assert same(recorded, plain)


def test_it_is_the_same_after_a_restart_of_the_weights_and_after_a_stop(splits, tmp_path, monkeypatch):
    def disturbed(folder: Path, stop: bool) -> GradientSearch:
        """A search whose weights are spoiled at step 7, and which is stopped at step 8 if asked to."""
        search = made(splits, folder, "macro", "softmax", True)
        advance = search.advance

        def advancing() -> None:
            if search.step == 7 and not search.guard.restarts:
                with torch.no_grad():
                    search.supernet.classifier.weight[0, 0] = float("nan")
            advance()
            if search.step == 8 and stop:
                signal.raise_signal(signal.SIGTERM)

        search.advance = advancing
        return search

    plain = disturbed(tmp_path / "plain", False)
    plain.search()
    assert plain.guard.restarts == 1
    recording(monkeypatch)
    recorded = disturbed(tmp_path / "recorded", False)
    recorded.search()
    assert same(recorded, plain)
    with pytest.raises(Stopped):
        disturbed(tmp_path / "stopped", True).search()
    resumed = made(splits, tmp_path / "stopped", "macro", "softmax", True)
    resumed.search()
    assert same(resumed, plain)


def retraining(space: SearchSpace, values: dict[str, float], splits: DataSplits, folder: Path) -> Retraining:
    randomness = Randomness(1)
    return retraining_of(
        space.network(space.sample(torch.Generator().manual_seed(3)).architecture),
        folder,
        values,
        splits=splits,
        randomness=randomness,
        schedule="cosine",
        final=FinalSettings(2, "learned", None, None, 0.4, "linear", 100),
        training=replace(TrainingSettings(16, 0.9, 5.0, "cosine"), keep_checkpoints=1),
        tracking=EVERY_STEP,
    )


def test_a_retraining_s_memory_is_given_back_with_it(splits, tmp_path):
    """At once: a GPU's memory may be used up by many of them before Python looks for what nobody uses any more."""
    run = retraining(SPACES["macro"], {"learning_rate": 0.05, "dropout": 0.3}, splits, tmp_path)
    gone = ref(run.network)
    gc.disable()
    try:
        run.fit(5)
        del run
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", SPACES)
def test_a_recorded_retraining_is_the_same(name, splits, tmp_path, monkeypatch):
    values = {"learning_rate": 0.05, "weight_decay": 3e-4, "dropout": 0.3, "cutout": 0.3, "label_smoothing": 0.1}
    values |= {} if name == "macro" else {"drop_path": 0.2}

    def retrained(folder: Path) -> dict[str, torch.Tensor]:
        run = retraining(SPACES[name], values, splits, folder)
        run.train()
        return run.network.state_dict()

    plain = retrained(tmp_path / "plain")
    recording(monkeypatch)
    recorded = retrained(tmp_path / "recorded")
    assert all(torch.equal(plain[entry], recorded[entry]) for entry in plain)
    assert (tmp_path / "plain" / "metrics.csv").read_bytes() == (tmp_path / "recorded" / "metrics.csv").read_bytes()
    assert CpuRecording.made == (1 if name == "macro" else 2), "the drop-path rate is that of the epoch"


@pytest.mark.parametrize("implementation", ["plain", "fast"])
@pytest.mark.parametrize("name", SPACES)
def test_what_is_recorded_stays_on_the_device_of_the_weights(name, implementation):
    """On PyTorch's device without numbers, which like a GPU mixes with no other and cannot be asked for a value."""
    space = space_of(name, implementation)
    with torch.device("meta"):
        supernet = space.supernet(Softmax(Temperature()))
        images, labels = torch.empty(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
        rates = {rate: torch.empty((), dtype=torch.float64) for rate in ("dropout", "label_smoothing")}
    problem = problem_over(supernet, entries(True, name))
    relaxed = {key: weight.detach() for key, weight in supernet.operation_weights().items()}
    batch = Batch(images, labels)
    steered = {key: weight.requires_grad_() for key, weight in relaxed.items()}
    loss, logits, gradients = problem.operation_gradients(batch, steered)
    found = [loss, logits, *gradients]
    numbers = {"cutout": 0.3, "mixing": 0.2} | ({} if name == "macro" else {"drop_path": 0.2})
    loss, logits, gradients = problem.weight_gradients(batch, relaxed, {**numbers, **rates})
    found += [loss, logits, *gradients]
    found += [value for value in problem.values().values() if isinstance(value, torch.Tensor)]
    assert {one.device.type for one in found} == {"meta"}


def test_a_step_waits_for_the_device_twice(splits, tmp_path, monkeypatch):
    """For the size of alpha's gradient before alpha moves, and for all that the step has measured at its end."""
    monkeypatch.setattr("nas.run.tracking.BUFFERED_SECONDS", math.inf)  # or the clock has it write in a step
    search = made(splits, tmp_path, "nasbench201", "softmax", False)
    waits: list[torch.Tensor] = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten._local_scalar_dense.default:
                waits.append(args[0])
            return function(*args, **(kwargs or {}))

    def as_list(tensor: torch.Tensor) -> Any:
        waits.append(tensor)
        return tensor.detach().numpy().tolist()

    advance, end_epoch = search.advance, search._end_epoch
    at_epoch_end: list[int] = []

    def ending() -> None:
        at_epoch_end.append(len(waits))
        end_epoch()

    def advancing() -> None:
        with monkeypatch.context() as patches, Watching():
            patches.setattr(torch.Tensor, "tolist", as_list)
            advance()
        if at_epoch_end:
            del waits[at_epoch_end.pop() :]  # what belongs to the epoch, not to the step
        adam = search.bilevel_optimiser.alpha_optimiser
        assert adam is not None
        counters = [state["step"] for state in adam.state.values()]  # on the CPU
        found = [one for one in waits if not any(one is counter for counter in counters)]
        assert len(found) == 2
        waits.clear()

    search.advance, search._end_epoch = advancing, ending
    search.search()
