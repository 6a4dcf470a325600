"""Two gloo processes, each with half of every batch, against one process with the joint batch."""

import multiprocessing
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import forward_ad

from nas.bilevel.data_parallel import data_parallel
from nas.bilevel.exact import Exact
from nas.bilevel.finite_difference import FiniteDifference
from nas.bilevel.first_order import FirstOrder
from nas.bilevel.forward_accumulation import ForwardAccumulation
from nas.bilevel.hypergradient import Hypergradient
from nas.bilevel.implicit import NeumannSeries
from nas.bilevel.last_step import LastStep
from nas.bilevel.problem import BilevelProblem
from nas.bilevel.smoothed import Smoothed
from nas.data.batches import Batch, ShardedStream
from nas.distributed import Ranks
from nas.errors import UnusableInput
from nas.hyperparameters.kinds import LabelSmoothing
from nas.hyperparameters.rules import AdamUpdate
from nas.operations.fast.library import without_kernels
from nas.operations.synchronised import SynchronisedBatchNorm, synchronise_batch_norm
from nas.run.randomness import Randomness
from nas.signature import Signature
from tests.problems import (
    CELL_SPACES,
    CLASSES,
    batch_for,
    entries,
    problem_for,
    problem_over,
    seeded_supernet,
)

COUNT = 2
HYPERGRADIENTS: dict[str, Hypergradient] = {
    "first order": FirstOrder(),
    "exact": Exact(),
    "finite difference": FiniteDifference(),
    "Neumann": NeumannSeries(),
    "forward accumulation": ForwardAccumulation(),
    "last step": LastStep(),
    "smoothed": Smoothed(),
}
CASES = [(hypergradient, *more) for hypergradient in HYPERGRADIENTS for more in (("softmax", None), ("gumbel", 0.1))]
Result = dict[str, Tensor]


def share_of(batch: Batch, ranks: Ranks) -> Batch:
    size = len(batch.targets) // ranks.count
    own = slice(ranks.rank * size, (ranks.rank + 1) * size)
    return Batch(batch.inputs[own], batch.targets[own])


def follow(hypergradient: Hypergradient, problem: BilevelProblem, batch: Batch, steps: int = 2) -> None:
    """Take the weight steps that it must have seen; the second one carries on what the first one left."""
    hypergradient.forget()
    if hypergradient.needs_graph == "always":
        for _ in range(steps):
            step = problem.step(batch, keep_graph=True, second_order=True)
            hypergradient.after_weight_step(problem, step, problem.hyperparameters.raw_parameters())
    elif hypergradient.looks_back:
        problem.step(batch, keep_graph=True, second_order=True)


def results(ranks: Ranks) -> dict[str, Result]:
    """Per case every gradient, what the step reports, and the weights and statistics after a weight step."""
    batches = [share_of(batch_for(seed), ranks) for seed in (10, 11)]
    found = {}
    for hypergradient, relaxation, clip in CASES:
        learned = entries(("learning_rate", "weight_decay"))
        learned["label_smoothing"] = LabelSmoothing(0.1, 0.0, 0.5, "logit", True, AdamUpdate(0.1))
        problem = problem_for(relaxation=relaxation, clip=clip, filled=True, hyperparameters=learned)
        data_parallel(problem, ranks)
        problem.supernet.dropout.eval()  # every rank has noise of its own
        synchronise_batch_norm(problem.supernet, ranks)
        raw = {} if hypergradient == "first order" else problem.hyperparameters.raw
        targets: dict[str, nn.Parameter] = {**raw}
        if "architecture" in HYPERGRADIENTS[hypergradient].reaches:
            targets |= problem.supernet.alpha
        follow(HYPERGRADIENTS[hypergradient], problem, batches[0])
        report = HYPERGRADIENTS[hypergradient].gradients(problem, *batches, list(targets.values()))
        result = dict(zip([f"gradient of {name}" for name in targets], report.gradients, strict=True))
        result["validation loss"] = report.validation_loss
        result["lengths"] = torch.tensor([report.validation_gradient_norm, report.step_length])
        step = problem.step(batches[0])
        result |= {"training loss": step.loss, "norm": step.norm}
        result |= {name: entry.detach().clone() for name, entry in problem.supernet.state_dict().items()}
        found[f"{hypergradient}, {relaxation}, clip {clip}"] = result
    return found


OF_EVERY_KIND = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3")
OF_CELLS = {**CELL_SPACES, "darts": partial(CELL_SPACES["darts"], operations=OF_EVERY_KIND)}
CELL_CASES = [  # the darts cells, whose steps are many messages, where a case holds what the others have
    *("darts, exact, kernels", "darts, exact, stock", "darts, forward accumulation, kernels"),
    *(
        f"nasbench201, {hypergradient}, {kernels}"
        for hypergradient in ("first order", "exact", "forward accumulation")
        for kernels in ("kernels", "stock")
    ),
]


def results_of_cells(ranks: Ranks) -> dict[str, Result]:
    """As :func:`results`, of the fast supernets of cells, with drop path's and dropout's noise off."""
    shape = (2, 6, 6)
    batches = [share_of(batch_for(seed, shape=shape), ranks) for seed in (4, 5)]
    found = {}
    for case in CELL_CASES:
        space, hypergradient, kernels = case.split(", ")
        made = OF_CELLS[space](implementation="fast", signature=Signature(shape, CLASSES))
        supernet, noise = seeded_supernet(made)
        synchronise_batch_norm(supernet, ranks)
        learned = entries(() if hypergradient == "first order" else ("learning_rate", "weight_decay"))
        del learned["dropout"]
        problem = data_parallel(problem_over(supernet, learned, None, noise), ranks)
        targets: dict[str, nn.Parameter] = {**problem.hyperparameters.raw}
        if "architecture" in HYPERGRADIENTS[hypergradient].reaches:
            targets |= supernet.alpha
        with without_kernels() if kernels == "stock" else nullcontext():
            problem.step(batches[1])  # so that there is momentum
            follow(HYPERGRADIENTS[hypergradient], problem, batches[0], steps=1)
            report = HYPERGRADIENTS[hypergradient].gradients(problem, *batches, list(targets.values()))
            result = dict(zip([f"gradient of {name}" for name in targets], report.gradients, strict=True))
            result |= {"validation loss": report.validation_loss}
            step = problem.step(batches[0])
        result |= {"training loss": step.loss, "norm": step.norm}
        found[case] = result | {name: entry.detach().clone() for name, entry in supernet.state_dict().items()}
    return found


def second_derivatives(ranks: Ranks) -> Result:
    """Of a function with batch norm, twice differentiated: the mean over the ranks is that of the joint batch."""
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(3).double()
    synchronise_batch_norm(layer, ranks)
    share = share_of(Batch(torch.randn(8, 3, dtype=torch.float64), torch.arange(8)), ranks)
    layer.track_running_stats = False

    def loss_of(weight: Tensor) -> Tensor:
        shared = ranks.with_average_gradients({"weight": weight})["weight"]
        return ranks.average([layer((share.inputs * shared).tanh()).pow(3).mul(shared.sin()).mean()])[0]

    weight = torch.linspace(0.5, 1.5, 3, dtype=torch.float64).requires_grad_()
    direction = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    loss = loss_of(weight)
    (first,) = torch.autograd.grad(loss, weight, create_graph=True)
    (second,) = torch.autograd.grad((first * direction).sum(), weight)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight.detach().requires_grad_(), direction)
        (gradient,) = torch.autograd.grad(loss_of(dual), dual)
        forward = forward_ad.unpack_dual(gradient).tangent
    assert torch.allclose(forward, second, rtol=1e-12, atol=1e-12), "forward over reverse is reverse over reverse"
    return {"loss": loss.detach(), "first": first.detach(), "second": second}


def noise(ranks: Ranks) -> Result:
    """What each rank draws, before and after a checkpoint."""
    randomness = Randomness(0, ranks=ranks)
    weights = torch.rand(3)
    randomness.seed_ranks_apart()
    drawn = {"weights": weights, "global": torch.rand(3)}
    names = ("dropout", "relaxation", "augmentation")
    drawn |= {name: torch.rand(3, generator=randomness.on_device(name)) for name in names}
    state = ranks.share(randomness.state_dict())
    after = [torch.rand(3, generator=randomness.on_device("dropout")), torch.rand(3)]
    resumed = Randomness(0, ranks=ranks)
    resumed.load_state_dict(state)
    drawn["resumed"] = torch.stack([torch.rand(3, generator=resumed.on_device("dropout")), torch.rand(3)])
    drawn["went on"] = torch.stack(after)
    return drawn


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=COUNT)
    ranks = Ranks(rank, COUNT)
    found = {
        "results": results(ranks) | results_of_cells(ranks),
        "second": second_derivatives(ranks),
        "noise": noise(ranks),
    }
    found["any"] = [ranks.any(rank == 1), ranks.any(False)]
    found["same"] = []
    for value in (0.0, float(rank)):
        try:
            ranks.require_same(3, {"weight": torch.tensor(value)})
            found["same"].append(True)
        except RuntimeError:
            found["same"].append(False)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=process, args=(rank, folder)) for rank in range(COUNT)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(400)
        assert one.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(COUNT)]


@pytest.fixture(scope="module")
def joint() -> dict[str, Result]:
    return results(Ranks()) | results_of_cells(Ranks())


@pytest.mark.parametrize(
    "case", [f"{hypergradient}, {relaxation}, clip {clip}" for hypergradient, relaxation, clip in CASES] + CELL_CASES
)
def test_gradients_steps_and_statistics_are_those_of_the_joint_batch(case, of_ranks, joint):
    expected = joint[case]
    assert any("gradient of learning_rate" in name for name in expected) or "first order" in case
    for name, value in expected.items():
        scale = float(value.double().abs().max())
        for found in of_ranks:
            error = float((found["results"][case][name].double() - value.double()).abs().max())
            assert error <= 1e-10 * max(scale, 1.0), name


def test_every_rank_has_the_same_bytes(of_ranks):
    for case, result in of_ranks[0]["results"].items():
        for name, value in result.items():
            assert torch.equal(value, of_ranks[1]["results"][case][name]), f"{case}: {name}"


def test_synchronised_batch_norm_is_differentiable_twice(of_ranks):
    for name, value in second_derivatives(Ranks()).items():
        torch.testing.assert_close(of_ranks[0]["second"][name], value, rtol=1e-12, atol=1e-12)


def test_ranks_draw_the_same_data_and_weights_and_noise_of_their_own(of_ranks):
    first, second = (found["noise"] for found in of_ranks)
    assert all(torch.equal(first[name], second[name]) for name in ("weights", "relaxation", "augmentation"))
    assert not any(torch.equal(first[name], second[name]) for name in ("global", "dropout"))
    alone = noise(Ranks())
    assert all(torch.equal(first[name], alone[name]) for name in alone)
    for found in (first, second):
        assert torch.equal(found["resumed"], found["went on"])


def test_ranks_tell_each_other(of_ranks):
    for found in of_ranks:
        assert found["any"] == [True, False]
        assert found["same"] == [True, False]


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}])
def test_synchronised_batch_norm_alone_is_pytorchs(kind, options):
    x = torch.randn(6, 4, *([5, 5] if kind is nn.BatchNorm2d else []), dtype=torch.float64)
    plain, own = kind(4, **options).double(), kind(4, **options).double()
    own.__class__, own.ranks = SynchronisedBatchNorm, Ranks()
    for _ in range(2):
        torch.testing.assert_close(own(x), plain(x), rtol=1e-12, atol=1e-12)
    assert own.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(dict(own.state_dict()), dict(plain.state_dict()), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.eval()(x), plain.eval()(x), rtol=1e-12, atol=1e-12)


class Stub:
    steps_per_epoch = 1

    def __init__(self, size: int) -> None:
        self.size = size

    def next(self) -> Batch:
        return Batch(torch.arange(float(self.size)).view(-1, 1, 1, 1), torch.arange(self.size))


def test_shares_of_a_batch_make_up_the_batch():
    shares = [ShardedStream(Stub(6), Ranks(rank, 3)).next().targets.tolist() for rank in range(3)]
    assert shares == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("size", [7, 3])
def test_a_batch_that_cannot_be_shared_is_refused(size):
    with pytest.raises(ValueError, match=f"^training.batch_size={size} is not allowed: it must be a multiple of the 3"):
        ShardedStream(Stub(size), Ranks(0, 3)).next()


def test_another_number_of_ranks_cannot_go_on():
    with pytest.raises(
        Exception, match=r"begun by 2 processes and this one has 1: .* with torchrun --nproc-per-node 2"
    ):
        Ranks().require_as_many({"ranks": 2})
    with pytest.raises(UnusableInput, match=r"begun by 1 process and this one has 2: .* resume it without torchrun"):
        Ranks(1, 2).require_as_many({})
