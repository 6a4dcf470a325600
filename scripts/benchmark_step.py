"""What a step of the search costs, with the plain and with the fast supernets: time, memory, growth, and where it goes.

    python scripts/benchmark_step.py --quick              # what the targets for batches of 16 need
    python scripts/benchmark_step.py                      # batches of 64, NAS-Bench-201 and the macro space too
    python scripts/benchmark_step.py --parts growth data  # some of it; --kept FILE goes on where a run was ended
    python scripts/benchmark_step.py --parts one_shot     # the steps of the one-shot methods against that of DARTS
    python scripts/benchmark_step.py --parts recurrent    # the recurrent cell: plain, fast, as the original computes it
    python scripts/benchmark_step.py --parts compile      # training.compile=true on the CPU: 20 minutes of compiling

A step is one move of alpha (and of what else is learned) and one of the weights. Variants take turns in one process,
and medians are compared: of CPU seconds with one thread, since other processes then hardly matter, of wall-clock
seconds with more. "original" is the plain supernet with every gradient taken in both passes, as quark0/darts does it;
"stock" the fast one without its C++ kernels. Memory is what a step needs at its peak beyond what the process (on a
GPU: PyTorch there) held before it. Exit code 0 where every CPU target is reached, 1 where one is missed.
"""

import argparse
import ctypes
import gc
import hashlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from one_shot_steps import DARTS, METHODS, Method, targets_of
from recurrent_steps import LEAST, RecurrentCase, recurrent_cases
from torch.profiler import profile

from nas.bilevel.exact import Exact
from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.last_step import LastStep
from nas.bilevel.optimiser import BilevelOptimiser
from nas.bilevel.problem import BilevelProblem
from nas.configuration import build
from nas.data.augmentation import Augmentation
from nas.data.batches import Batch
from nas.data.dataset import ImageDataset
from nas.device.compilation import compile_regions
from nas.device.cuda_graphs import WARM_UP, CudaGraphs, cuda_graphed
from nas.device.transfer import keep_freed_memory
from nas.errors import RunFailed
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import DropoutRate, LearningRate, WeightDecay
from nas.hyperparameters.rules import AdamUpdate, CosineNormalised
from nas.operations.fast.library import library, without_kernels
from nas.operations.stochastic import set_noise_generator
from nas.report.tables import comparison_table, print_table
from nas.run.checkpoint import write_atomically
from nas.signature import Signature
from nas.spaces.darts.choices import OPERATIONS
from nas.spaces.darts.space import Darts
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.space import SearchSpace
from nas.training.sgd import grouped, set_step

ROOT = Path(__file__).resolve().parent.parent
SHAPE, CLASSES = (3, 32, 32), 10
Result = TypeVar("Result")
JOINT = "joint: alpha, learning rate, dropout"
AHEAD = f"{JOINT}, looking ahead (the default)"
KINDS: dict[str, tuple[Hypergradient, Hypergradient | None]] = {  # for alpha, for learning rate and dropout
    "first order": (FirstOrder(), None),
    "finite difference": (FiniteDifference(), None),
    "exact": (Exact(), None),
    JOINT: (FirstOrder(), LastStep()),
    AHEAD: (FirstOrder(), Exact()),
}
PARTS_OF_THIS = ("one_shot_steps.py", "recurrent_steps.py")
PARTS_OF_A_RUN = (
    "first_order",
    "second_order",
    "batch64",
    "second_order_batch64",
    "nasbench201",
    "macro",
    "one_shot",
    "recurrent",
    "growth",
    "profile",
    "gpu",
    "data",
    "compile",
)
LONG = ("batch64", "second_order_batch64", "nasbench201", "macro", "one_shot", "recurrent")  # left out of a quick run
ASKED_FOR = ("compile",)  # and of every other
LINEAR = 1.1  # the largest exponent that is called linear growth
BATCHES = (16, 64)  # of the DARTS steps
HALF_WAY = 0.5  # through the search: what rises or falls over it is there
GPU_TARGETS = {"fast": 3.0, "fast, compiled, bf16, recorded": 6.0}


@dataclass(frozen=True)
class Case:
    """A kind of step on a space, computed in one way."""

    space: Callable[[str], SearchSpace]
    batch: int
    kind: str = "first order"
    variant: str = "fast"  # original, plain, stock or fast
    device: str = "cpu"
    compiled: bool = False
    precision: torch.dtype = torch.float32  # bf16: by autocast
    recorded: bool = False  # as CUDA graphs
    method: Method = METHODS[DARTS]

    @property
    def warm_up(self) -> int:
        """Steps before the first one that counts."""
        return WARM_UP + 2 if self.device != "cpu" else 1

    def step(self) -> Callable[[], None]:
        """A function that takes one step; its supernet lives as long as it does."""
        torch.manual_seed(0)
        which = "plain" if self.variant in ("original", "plain") else "fast"
        supernet = self.space(which).supernet(self.method.relaxation())
        supernet.to(self.device).train()
        noise = torch.Generator(self.device).manual_seed(1)
        set_noise_generator(supernet, noise)
        supernet.relaxation.generator = noise
        of_alpha, of_hyperparameters = KINDS[self.kind]
        joint = of_hyperparameters is not None
        hyperparameters = HyperparameterSet(
            {
                "learning_rate": LearningRate(0.025, 1e-4, 0.5, "log", joint, CosineNormalised(0.3)),
                "weight_decay": WeightDecay(3e-4, 1e-6, 1e-1, "log", False),
                "dropout": DropoutRate(0.1 if joint else 0.0, 0.0, 0.8, "logit", joint, AdamUpdate(0.1)),
            }
        )
        optimiser = torch.optim.SGD(grouped(supernet.weight_parameters()), lr=0.0, momentum=0.9, foreach=True)
        computing = partial(torch.autocast, self.device, self.precision, enabled=self.precision != torch.float32)
        perturbation = self.method.made_perturbation(noise)
        problem = BilevelProblem(
            supernet, optimiser, hyperparameters, 5.0, (noise,), precision=computing, perturbation=perturbation
        )
        problem.progress = HALF_WAY
        supernet.advance(HALF_WAY)
        recording = CudaGraphs(torch.device(self.device)) if self.recorded else None
        cuda_graphed(problem, ("weight_gradients",), recording, problem.generators)
        cuda_graphed(problem, ("operation_gradients",), recording)
        regulariser = self.method.regulariser()
        bilevel = BilevelOptimiser(problem, of_alpha, of_hyperparameters, self.method.rule, regulariser=regulariser)
        requests = bilevel.requests(architecture=True, hyperparameters=joint)
        training, validation = (drawn_batch(self.batch, seed, self.device) for seed in (0, 1))
        if self.compiled:
            compile_regions(supernet)

        def step() -> None:
            with without_kernels() if self.variant == "stock" else nullcontext():
                bilevel.step(training, validation, requests)

        def original_step() -> None:
            for batch, rule in ((validation, bilevel.alpha_optimiser), (training, optimiser)):
                supernet.zero_grad()
                F.cross_entropy(supernet(batch.inputs), batch.targets).backward()
                if rule is optimiser:
                    torch.nn.utils.clip_grad_norm_(supernet.weight_parameters(), 5.0)
                    set_step(optimiser, hyperparameters.numbers())
                assert rule is not None
                rule.step()

        return original_step if self.variant == "original" else step


def drawn_batch(size: int, seed: int, device: str) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, *SHAPE, generator=generator)
    return Batch(images.to(device), torch.randint(CLASSES, (size,), generator=generator).to(device))


def darts(**settings: Any) -> Callable[[str], SearchSpace]:
    """The DARTS space of the paper's search, or what ``settings`` make of it."""
    return lambda which: Darts(**settings, implementation=which, signature=Signature(SHAPE, CLASSES))  # type: ignore[arg-type]


def nasbench201(which: str) -> SearchSpace:
    return NasBench201(implementation=which, signature=Signature(SHAPE, CLASSES))  # type: ignore[arg-type]


def macro(which: str) -> SearchSpace:
    settings = OmegaConf.load(ROOT / "conf" / "space" / "macro.yaml")
    settings.implementation = which
    return build(settings, "space", signature=Signature(SHAPE, CLASSES))  # type: ignore[no-any-return]


WIDE, POOLS = [64, 128], {"type": "pool", "pool_size": [2, 3], "kind": ["max", "average"]}
NARROW: dict[str, Any] = {"type": "conv", "filters": [8, 16, 32], "kernel_size": 3}
DECLARED: dict[str, tuple[list[dict[str, Any]], list[str]]] = {  # layers and activations of other macro spaces
    "up to 128 filters of up to 7x7": (
        [
            {"type": "conv", "filters": [32, *WIDE], "kernel_size": [3, 5, 7]},
            POOLS,
            {"type": "conv", "filters": WIDE, "kernel_size": [3, 5]},
            POOLS,
            {"type": "conv", "filters": WIDE, "kernel_size": [1, 3], "optional": True},
        ],
        ["relu"],
    ),
    "seven activations": (
        [NARROW, NARROW | {"stride": 2}, NARROW | {"optional": True}],
        ["relu", "sigmoid", "tanh", "gelu", "silu", "elu", "softplus"],
    ),
    "poolings beside convolutions": (
        [
            NARROW,
            {"choose": [NARROW | {"stride": 2}, POOLS | {"pool_size": [2, 3, 4, 5]}]},
            {"choose": [NARROW, POOLS | {"pool_size": [3, 5, 7], "stride": 1}], "optional": True},
        ],
        ["relu", "sigmoid"],
    ),
}


def declared(name: str) -> Callable[[str], SearchSpace]:
    return lambda which: Macro(*DECLARED[name], which, signature=Signature(SHAPE, CLASSES))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Cost:
    """What the steps of one case took: each one's seconds, and the bytes at the peak."""

    seconds: list[float]
    memory: float

    @property
    def time(self) -> float:
        return statistics.median(self.seconds)


class PeakMemory:
    """The most memory held since :meth:`reset`, in bytes, by the process or on a GPU; NaN where that is not known.

    Args:
        device: Whose memory is asked for.
    """

    def __init__(self, device: str) -> None:
        self._status, self._clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
        self._on_gpu, self._before = device != "cpu", math.nan

    def reset(self) -> None:
        gc.collect()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        try:
            ctypes.CDLL(None).malloc_trim(0)
            self._clear.write_text("5")
            self._before = self._peak()
        except (OSError, AttributeError):
            self._before = math.nan

    def beyond(self) -> float:
        """Since the reset, beyond what was held then."""
        return self._peak() - self._before if math.isfinite(self._before) else math.nan

    def _peak(self) -> float:
        if self._on_gpu:
            return torch.cuda.max_memory_allocated()
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024.0 * int(line.split()[1])


class Kept:
    """The turns that have been measured, in a file, so that a run can go on where one was ended.

    Args:
        path: Of the file; None keeps them for this run only.
        setting: What the figures depend on; those of another setting, or of other code, are not taken over.
    """

    def __init__(self, path: Path | None, setting: str) -> None:
        code = hashlib.sha256(setting.encode())
        own = [Path(__file__).with_name(name) for name in (Path(__file__).name, *PARTS_OF_THIS)]
        for file in sorted([*(ROOT / "nas").rglob("*.py"), *(ROOT / "nas").rglob("*.cpp"), *own]):
            code.update(file.read_bytes())
        self.path, self.code = path, code.hexdigest()
        found = json.loads(path.read_text()) if path is not None and path.exists() else {}
        good = found.get("code") == self.code
        self.turns: dict[str, list[dict[str, float]]] = found["turns"] if good else {}  # seconds by case
        self.memory: dict[str, dict[str, float]] = found["memory"] if good else {}  # bytes by case

    def save(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            state = {"code": self.code, "turns": self.turns, "memory": self.memory}
            write_atomically(self.path, json.dumps(state).encode())


def measured(title: str, cases: Mapping[str, Case | RecurrentCase], repeats: int, kept: Kept) -> dict[str, Cost]:
    """Every case ``repeats`` times, one after the other in turn, once it is warm; without those that fail on a GPU."""
    turns, memory = kept.turns.setdefault(title, []), kept.memory.setdefault(title, {})
    if any(name not in turn for turn in turns for name in cases):
        turns.clear()  # of fewer cases, as a quick run has them
    if len(turns) < repeats:
        steps = {}
        for name, case in cases.items():
            warm = attempted(f"{title}: {name}", case.device, partial(warmed_up, case))
            if warm is not None:
                steps[name], memory[name] = warm
        while len(turns) < repeats:
            turn = {}
            for name, step in list(steps.items()):
                device = cases[name].device
                seconds = attempted(f"{title}: {name}", device, partial(timed, step, device))
                if seconds is None:
                    del steps[name]
                else:
                    turn[name] = seconds
            turns.append(turn)
            kept.save()
    turns = turns[:repeats]
    return {
        name: Cost([turn[name] for turn in turns], memory[name])
        for name in cases
        if all(name in turn for turn in turns)
    }


def warmed_up(case: Case | RecurrentCase) -> tuple[Callable[[], None], float]:
    """A step that has been taken as often as it takes to be warm, and the bytes at the peak of that.

    Memory is measured here since doing so gives freed memory back to the system, which a step then has to ask for.
    """
    step, peak = case.step(), PeakMemory(case.device)
    peak.reset()
    for _ in range(case.warm_up):
        step()
    return step, peak.beyond()


def timed(step: Callable[[], None], device: str) -> float:
    """The seconds of one step."""
    on_gpu = device != "cpu"
    began = clock(on_gpu)
    step()
    return clock(on_gpu) - began


def attempted(name: str, device: str, work: Callable[[], Result]) -> Result | None:
    """What ``work`` returns; None, and a line, where it fails on a GPU, since the exit code is the CPU's."""
    try:
        return work()
    except (RunFailed, RuntimeError) as error:
        if device == "cpu":
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        print(f"failed   {name}: {said[0]}", flush=True)
        return None


def clock(on_gpu: bool = False) -> float:
    """Seconds: of this process's CPU time where it has one thread."""
    if on_gpu:
        torch.cuda.synchronize()
    return time.process_time() if torch.get_num_threads() == 1 and not on_gpu else time.perf_counter()


@dataclass(frozen=True)
class Target:
    """A figure with its bound."""

    text: str
    value: float
    bound: float
    at_least: bool

    @property
    def reached(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def line(self) -> str:
        sign = "at least" if self.at_least else "at most"
        return f"{'reached' if self.reached else 'MISSED '}  {self.text}: {self.value:.2f} ({sign} {self.bound:g})"


def show(title: str, costs: Mapping[str, Cost], against: Mapping[str, str]) -> None:
    """One row per case; ``against`` names what its ratios are to, where that was measured."""
    rows = []
    for name, cost in costs.items():
        base = costs.get(against.get(name, name), Cost([math.nan], math.nan))
        low, high = min(cost.seconds), max(cost.seconds)
        ratio, memory = f"{base.time / cost.time:.2f}", f"{cost.memory / base.memory:.2f}"
        rows.append([name, f"{cost.time:.2f}", f"{low:.2f} - {high:.2f}", ratio, f"{cost.memory / 1e9:.2f}", memory])
    columns = ["step", "seconds", "range", "times as fast", "GB at the peak", "share"]
    print_table(comparison_table(f"{title} ({medians(costs)})", columns, rows))
    sys.stdout.flush()


def medians(costs: Mapping[str, Cost]) -> str:
    """What the figures of a table are."""
    return f"medians of {min((len(cost.seconds) for cost in costs.values()), default=0)}"


def first_order_lines(kept: Kept, batch: int, repeats: int, ways: Sequence[str]) -> list[Target]:
    """The DARTS table of first-order steps for one batch size, and its targets."""
    title = f"DARTS, 16 channels, 8 cells, 32x32, batch {batch}"
    cases = {f"first order, {way}": Case(darts(), batch, "first order", way) for way in ways}
    costs = measured(title, cases, repeats, kept)
    show(title, costs, dict.fromkeys(costs, "first order, plain"))
    plain, fast = costs["first order, plain"], costs["first order, fast"]
    label = f"DARTS, batch {batch}"
    targets = [
        Target(f"{label}: the fast first-order step against the plain one", plain.time / fast.time, 4.0, True),
        Target(
            f"{label}: peak memory of the fast step, share of the plain one's", fast.memory / plain.memory, 0.65, False
        ),
    ]
    if "stock" in ways:
        stock = costs["first order, stock"]
        targets.append(Target(f"{label}: stock PyTorch alone", plain.time / stock.time, 2.2, True))
        if "original" in ways:
            original = costs["first order, original"].time
            print(
                f"against the original's step: plain {original / plain.time:.2f} times as fast, "
                f"stock {original / stock.time:.2f}, fast {original / fast.time:.2f}\n"
            )
            targets.append(Target(f"{label}: the plain step against the original's", original / plain.time, 1.0, True))
    return targets


def second_order_lines(kept: Kept, batch: int, repeats: int, kinds: Sequence[str], plain: bool) -> list[Target]:
    """The DARTS table of the steps that cost more than first-order ones, and its targets.

    Args:
        kept: What has been measured.
        batch: Images in a batch.
        repeats: How often every step is taken.
        kinds: Of steps beside first-order and finite-difference ones.
        plain: Whether the plain finite-difference step is taken, too.
    """
    cases = {"first order, fast": Case(darts(), batch)}
    ways = ("plain", "fast") if plain else ("fast",)
    cases |= {f"finite difference, {way}": Case(darts(), batch, "finite difference", way) for way in ways}
    cases |= {f"{kind}, fast": Case(darts(), batch, kind) for kind in kinds}
    title = f"DARTS, the other kinds of steps, batch {batch}"
    costs = measured(title, cases, repeats, kept)
    against = dict.fromkeys(costs, "first order, fast")
    if plain:
        against["finite difference, fast"] = "finite difference, plain"
    show(title, costs, against)
    label, first_order = f"DARTS, batch {batch}", costs["first order, fast"].time
    if AHEAD in kinds:
        every_second = (costs[f"{AHEAD}, fast"].time + first_order) / 2 / first_order
        print(f"a joint search by default, whose hyperparameters look ahead at every second step: {every_second:.2f}\n")
    targets = []
    if plain:
        oracle, fast = (costs[f"finite difference, {way}"] for way in ways)
        share = f"{label}: peak memory of the fast finite-difference step, share of the plain one's"
        targets = [
            Target(
                f"{label}: the fast finite-difference step against the plain one", oracle.time / fast.time, 3.5, True
            ),
            Target(share, fast.memory / oracle.memory, 0.65, False),
        ]
    exact, joint = (costs[f"{kind}, fast"].time / first_order for kind in ("exact", JOINT))
    return [
        *targets,
        Target(f"{label}: an exact step in first-order ones", exact, 3.0, False),
        Target(f"{label}: a joint step in first-order ones", joint, 2.2, False),
    ]


def nasbench201_lines(kept: Kept, repeats: int) -> list[Target]:
    cases = {f"first order, {way}": Case(nasbench201, 64, "first order", way) for way in ("plain", "stock", "fast")}
    cases |= {f"{kind}, fast": Case(nasbench201, 64, kind) for kind in ("finite difference", "exact", JOINT)}
    title = "NAS-Bench-201, 16 channels, 5 cells a stage, batch 64"
    costs = measured(title, cases, repeats, kept)
    show(title, costs, dict.fromkeys(costs, "first order, plain"))
    return []


def macro_lines(kept: Kept, repeats: int) -> list[Target]:
    title = "macro space, batch 64"
    pairs = [(kind, way) for kind in KINDS for way in ("plain", "fast")]
    costs = measured(title, {f"{kind}, {way}": Case(macro, 64, kind, way) for kind, way in pairs}, repeats, kept)
    show(title, costs, {f"{kind}, {way}": f"{kind}, plain" for kind, way in pairs})
    title = "macro space, other declarations, batch 64, first order"
    pairs = [(name, way) for name in DECLARED for way in ("plain", "fast")]
    costs = measured(
        title, {f"{name}, {way}": Case(declared(name), 64, variant=way) for name, way in pairs}, repeats, kept
    )
    show(title, costs, {f"{name}, {way}": f"{name}, plain" for name, way in pairs})
    return []


def one_shot_lines(kept: Kept, batch: int, repeats: int) -> list[Target]:
    """The steps of the one-shot methods against that of DARTS, taken in the same turns."""
    title = f"One-shot methods, DARTS cells, 16 channels, 8 cells, 32x32, batch {batch}"
    cases = {name: Case(darts(**method.space), batch, method=method) for name, method in METHODS.items()}
    costs = measured(title, cases, repeats, kept)
    show(title, costs, dict.fromkeys(costs, DARTS))
    figures = {name: (cost.seconds, cost.memory) for name, cost in costs.items()}
    return [Target(*target, False) for target in targets_of(figures, f"batch {batch}")]


def recurrent_lines(kept: Kept, repeats: int) -> list[Target]:
    """The steps of the recurrent space: plain, fast, and the original's way."""
    targets = []
    for title, cases in recurrent_cases().items():
        costs = measured(title, cases, repeats, kept)
        show(title, costs, {name: f"{name.split(', ')[0]}, plain" for name in costs})
        for kind in ("first order", "exact"):
            fast = costs[f"{kind}, fast"].time
            for way, other in {"plain": "the plain one", "original": "the original's"}.items():
                text = f"{title}: the fast {kind} step against {other}"
                targets.append(Target(text, costs[f"{kind}, {way}"].time / fast, LEAST, True))
    return targets


def sweeps_of(batch: int) -> dict[str, list[tuple[int, Case]]]:
    """Fast first-order steps of every size that a user can set, one size varied at a time."""
    small: dict[str, Any] = {"channels": 16, "cells": 3}
    mixed = [name for name in OPERATIONS if "conv" in name]
    few = small | {"multiplier": 2}  # nodes that a cell's output concatenates, as many in every size
    return {
        "channels": [(n, Case(darts(**small | {"channels": n}), batch)) for n in (16, 32, 64)],
        "cells": [(n, Case(darts(**small | {"cells": n}), batch)) for n in (3, 6, 12)],
        "batch": [(n, Case(darts(**small), n)) for n in (8, 16, 32)],
        "edges per cell": [(n * (n + 3) // 2, Case(darts(**few | {"steps": n}), batch)) for n in (2, 4, 6)],
        # All of one kind of cost: the number is varied, not the mixture.
        "operations": [(n, Case(darts(**small | {"operations": mixed[:n]}), batch)) for n in (1, 2, 4)],
    }


LINEAR_IN = ("edges per cell", "operations")  # the sizes whose growth has a target


def growth(kept: Kept, repeats: int, quick: bool, figure: Path) -> list[Target]:
    """Time and memory of a fast first-order step against the sizes that a user can set.

    A quick run takes the smallest and the largest of those that have a target.
    """
    batch = 8 if quick else 16
    sweeps = sweeps_of(batch)
    if quick:
        sweeps = {name: [sweeps[name][0], sweeps[name][-1]] for name in LINEAR_IN}
    fig, axes = plt.subplots(1, len(sweeps), figsize=(3 * len(sweeps), 3), layout="constrained")
    rows, targets = [], []
    for (name, points), axis in zip(sweeps.items(), axes, strict=True):
        title = f"growth with {name}, batch {batch}"
        costs = measured(title, {str(size): case for size, case in points}, repeats, kept)
        sizes, times = [size for size, _ in points], [cost.time for cost in costs.values()]
        memory = [cost.memory / 1e9 for cost in costs.values()]
        exponents = [exponent(sizes, values) for values in (times, memory)]
        for size, seconds, held in zip(sizes, times, memory, strict=True):
            last = [f"{one:.2f}" if size == sizes[-1] else "" for one in exponents]
            rows.append([f"{name} {size}", f"{seconds:.3f}", last[0], f"{held:.3f}", last[1]])
        if name in LINEAR_IN:
            targets += [
                Target(f"growth of {what} with {name}: exponent", value, LINEAR, False)
                for what, value in zip(("time", "memory"), exponents, strict=True)
            ]
        axis.loglog(sizes, times, "o-", label="CPU seconds")
        axis.loglog(sizes, memory, "s--", label="GB at the peak")
        axis.set(xlabel=name, xticks=sizes, xticklabels=list(map(str, sizes)))
        axis.minorticks_off()
    axes[0].legend()
    figure.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(figure, dpi=120)
    plt.close(fig)
    columns = ["fast first-order step", "seconds", "exponent", "GB at the peak", "exponent"]
    title = f"DARTS, 16 channels, 3 cells, batch {batch}, one size varied ({medians(costs)})"
    print_table(comparison_table(title, columns, rows))
    print(f"as a figure: {figure}\n", flush=True)
    return targets


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Of the power of the size that leads from the first value to the last; NaN where one of them is not positive."""
    if not min(values[0], values[-1]) > 0:
        return math.nan
    return math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])


SEPARABLE = "separable convolutions (own kernels)"
PARTS = {
    SEPARABLE: ("_SeparableFunction", "_SeparableFunctionBackward"),
    "other convolutions": (
        "aten::mkldnn_convolution",
        "aten::_slow_conv2d_forward",
        "aten::thnn_conv2d",
        "aten::_conv_depthwise2d",
        "aten::convolution_backward",
        "aten::mkldnn_convolution_backward",
    ),
    "mixture with its batch norms (own kernels)": ("_MixtureFunction", "_MixtureFunctionBackward"),
    "batch norms, activations and masks (own kernels)": ("_Activated", "_ActivatedBackward"),
    "poolings (own kernels)": (
        "_PoolingFunction",
        "_PoolingFunctionBackward",
        "_Pooled",
        "_PooledInputGradient",
        "_PooledWeightGradient",
    ),
    "other batch norms": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
}


def where_it_goes(name: str, case: Case) -> list[Target]:
    """A profile of one fast step: shares of the time by part, and what the convolutions alone would allow at least."""
    step = case.step()
    step()
    with profile() as profiler:
        step()
    spent = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(spent.values())
    shares = {part: sum(spent.get(name, 0.0) for name in names) / total for part, names in PARTS.items()}
    shares["everything else (additions, copies, optimisers, Python)"] = 1 - sum(shares.values())
    rows = [[part, f"{100 * share:.0f} %"] for part, share in shares.items() if share >= 0.005]
    title = f"Where a fast first-order {name} step goes, batch {case.batch} (one step)"
    print_table(comparison_table(title, ["", "share"], rows))
    convolutions = sum(share for part, share in shares.items() if "convolutions" in part)
    own = shares[SEPARABLE] >= 0.005
    what = "at most (their own kernels' ReLU, statistics and batch norm in between are in it)" if own else "of the time"
    print(
        f"convolutions: {100 * convolutions:.0f} % {what}, "
        f"so the limit, without all the rest, is {'at least ' if own else ''}{1 / convolutions:.2f} times as fast\n"
    )
    return []


def gpu_title(batch: int) -> str:
    return f"DARTS on {torch.cuda.get_device_name()}, batch {batch}"


def gpu_lines(kept: Kept, repeats: int) -> list[Target]:
    """Tables and targets of a GPU where there is one; a case that fails there is a line."""
    if not torch.cuda.is_available():
        print("GPU: not measured, none is at hand\n")
        return []
    for batch in BATCHES:
        cases = {way: Case(darts(), batch, "first order", way, "cuda") for way in ("plain", "fast")}
        fast = cases["fast"]
        cases["fast, recorded"] = replace(fast, recorded=True)
        cases["fast, compiled, bf16"] = replace(fast, compiled=True, precision=torch.bfloat16)
        cases["fast, compiled, bf16, recorded"] = replace(cases["fast, compiled, bf16"], recorded=True)
        costs = measured(gpu_title(batch), cases, repeats, kept)
        show(gpu_title(batch), costs, dict.fromkeys(costs, "plain"))
        for name, bound in GPU_TARGETS.items():
            if "plain" in costs and name in costs:
                ratio = costs["plain"].time / costs[name].time
                print(Target(f"GPU, batch {batch}: {name}", ratio, bound, True).line())
            else:
                print(f"GPU, batch {batch}: {name}: not measured")
    return []  # the exit code is the CPU's


def data_lines(kept: Kept, repeats: int, batches: Sequence[int]) -> list[Target]:
    """How many samples the in-memory path delivers, against what the fastest step of CPU and GPU consumes."""
    title = f"the fastest step, batches {', '.join(map(str, batches))}"
    costs = measured(title, {str(batch): Case(darts(), batch) for batch in batches}, repeats, kept)
    steps = [("cpu", batch, costs[str(batch)].time) for batch in batches]
    for batch in BATCHES if torch.cuda.is_available() else ():
        turns = kept.turns.get(gpu_title(batch), [])
        for name in set[str]().union(*turns):
            steps.append(("cuda", batch, statistics.median(turn[name] for turn in turns if name in turn)))
    device, batch, seconds = min(steps, key=lambda step: step[2] / step[1])
    work = partial(samples_delivered, batch)
    delivered = attempted(f"data on {device}", device, partial(work, device)) or work("cpu")
    consumed = 2 * batch / seconds
    print(
        f"data: {delivered:,.0f} samples/s delivered (crop, flip, cutout), "
        f"{consumed:,.0f} consumed by the fastest step, "
        f"with batches of {batch} on the {'CPU' if device == 'cpu' else 'GPU'} ({medians(costs)})\n"
    )
    return [Target("samples delivered per sample consumed", delivered / consumed, 10.0, True)]


def samples_delivered(batch: int, device: str) -> float:
    """Per second, augmented, from a data set that lies on the device."""
    images = torch.randint(0, 256, (5000, *SHAPE), dtype=torch.uint8)
    dataset = ImageDataset(images, torch.randint(CLASSES, (5000,)), CLASSES).to(device)
    order, draws = torch.Generator().manual_seed(0), torch.Generator(device).manual_seed(1)
    augmentation = Augmentation(crop_padding=4, flip=True, cutout=8)
    stream = dataset.stream(batch, (0.5,) * 3, (0.25,) * 3, order, augmentation, draws)
    stream.next()
    count, on_gpu = max(5000 // batch, 20), device != "cpu"
    began = clock(on_gpu)
    for _ in range(count):
        stream.next()
    return count * batch / (clock(on_gpu) - began)


COMPILED: dict[str, Case] = {
    "DARTS, batch 16": Case(darts(), 16, compiled=True),
    "NAS-Bench-201, batch 64": Case(nasbench201, 64, compiled=True),
    "macro space, batch 64": Case(macro, 64, compiled=True),
}


def compiled_lines(kept: Kept, repeats: int) -> list[Target]:
    """What ``training.compile=true`` makes of a first-order step on the CPU, and how long a run then takes to start."""
    rows, counts = [], []
    for name, case in COMPILED.items():
        eager = {way: replace(case, variant=way, compiled=False) for way in ("plain", "stock", "fast")}
        costs = measured(f"{name}, not compiled", eager, repeats, kept)
        turns = kept.turns.setdefault(f"{name}, compiled", [])
        if not turns:
            with TemporaryDirectory() as folder:
                (first, _), (again, made) = (in_own_process(name, steps, folder) for steps in (0, 5))
            turns += [{"first": first[0], "again": again[0], "step": seconds, **made} for seconds in again[1:]]
            kept.save()
        step = statistics.median(turn["step"] for turn in turns)
        counts += [len(turns), *(len(cost.seconds) for cost in costs.values())]
        times = [costs["plain"].time, costs["stock"].time, step, costs["fast"].time]
        starts = [turns[0][start] for start in ("first", "again")]
        graphs = [turns[0][count] for count in ("graphs", "graphs later", "graph breaks")]
        rows.append([name, *(f"{seconds:.2f}" for seconds in times), *(f"{one:.0f}" for one in (*starts, *graphs))])
    columns = ["a step's CPU seconds", "plain", "stock", "compiled", "fast", "the first one compiled", "in a later run"]
    columns += ["graphs", "made in later steps", "graph breaks"]
    title = f"torch.compile by regions, on the CPU (steps: medians of {min(counts)})"
    print_table(comparison_table(title, columns, rows))
    sys.stdout.flush()
    return []


Steps = tuple[list[float], dict[str, float]]  # each one's CPU seconds, and counts of graphs


def in_own_process(name: str, steps: int, folder: str) -> Steps:
    """:func:`first_and_further_steps` in a new process that keeps compiled code in ``folder``."""
    settings = {"TORCHINDUCTOR_CACHE_DIR": folder, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    before = {key: os.environ.get(key) for key in settings}
    os.environ |= settings
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as processes:
            return processes.submit(first_and_further_steps, name, steps, torch.get_num_threads()).result()
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def first_and_further_steps(name: str, further: int, threads: int) -> Steps:
    """CPU seconds of steps of a compiled case, those of the C++ compiler included, and what PyTorch made of it.

    Its counts of graphs are no public interface and differ between versions: they are printed here, and not tested.
    """
    from torch._dynamo.utils import counters

    torch.set_num_threads(threads)
    keep_freed_memory()
    step, seconds, graphs = COMPILED[name].step(), [], []
    for _ in range(1 + further):
        began = sum(os.times()[:4])
        step()
        seconds.append(sum(os.times()[:4]) - began)
        graphs.append(counters["stats"]["unique_graphs"])
    breaks = sum(counters["graph_break"].values())
    return seconds, {"graphs": graphs[-1], "graphs later": graphs[-1] - graphs[0], "graph breaks": breaks}


def main(arguments_given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about seven minutes of one core")
    parser.add_argument("--repeats", type=int, default=5, help="of every step, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--figure", type=Path, default=Path("runs/benchmark_step.png"), help="where the plot goes")
    parser.add_argument("--parts", nargs="+", choices=PARTS_OF_A_RUN, metavar="PART", help=", ".join(PARTS_OF_A_RUN))
    parser.add_argument("--kept", type=Path, help="a file for what has been measured, to go on from")
    arguments = parser.parse_args(arguments_given)
    for name in ("repeats", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    kernels = "with C++ kernels" if library() is not None else "without C++ kernels (no compiler, or switched off)"
    unit = "CPU seconds" if arguments.threads == 1 else "wall-clock seconds"
    setting = f"PyTorch {torch.__version__}, {kernels}, {arguments.threads} thread(s), {unit}"
    print(f"{setting}\n", flush=True)

    repeats, quick, kept = arguments.repeats, arguments.quick, Kept(arguments.kept, setting)
    ways = ("original", "plain", "stock", "fast")
    kinds = ("exact", JOINT)
    parts: dict[str, Callable[[], list[Target]]] = {
        "first_order": partial(first_order_lines, kept, 16, repeats, ways),
        "second_order": partial(second_order_lines, kept, 16, repeats, kinds if quick else (*kinds, AHEAD), True),
        "batch64": partial(first_order_lines, kept, 64, repeats, ("plain", "fast")),
        "second_order_batch64": partial(second_order_lines, kept, 64, repeats, kinds, False),
        "nasbench201": partial(nasbench201_lines, kept, repeats),
        "macro": partial(macro_lines, kept, repeats),
        "one_shot": partial(one_shot_lines, kept, 16, repeats),
        "recurrent": partial(recurrent_lines, kept, repeats),
        "growth": partial(growth, kept, repeats, quick, arguments.figure),
        "profile": lambda: [*where_it_goes("DARTS", Case(darts(), 16)), *where_it_goes("macro", Case(macro, 64))],
        "gpu": partial(gpu_lines, kept, repeats),
        "data": partial(data_lines, kept, repeats, (16,) if quick else BATCHES),
        "compile": partial(compiled_lines, kept, repeats),
    }
    wanted = arguments.parts or [name for name in parts if name not in (*ASKED_FOR, *(LONG if quick else ()))]
    targets = [target for name in wanted for target in parts[name]()]
    for target in targets:
        print(target.line())
    reached = sum(target.reached for target in targets)
    print(f"search step: {reached} of {len(targets)} targets reached")
    return 0 if reached == len(targets) else 1


if __name__ == "__main__":
    sys.exit(main())
