"""The Transformer space: networks, derivatives, costs, descriptions, and what it refuses."""

import pytest
import torch
from torch import nn

from nas.bilevel.exact import Exact
from nas.bilevel.problem import BilevelProblem
from nas.candidate import Architecture
from nas.data.batches import Batch
from nas.errors import InvalidValue
from nas.evaluation.network_cost import BlockCosts, count_multiply_adds, count_parameters
from nas.hyperparameters.collection import HyperparameterSet
from nas.relaxations.sigmoid import Sigmoid
from nas.signature import Signature
from nas.spaces import Transformer, space_from_description
from nas.tasks import PLAIN_CLASSIFICATION, Language, Task
from nas.training.settings import TrainingSettings
from nas.training.weight_step import weight_optimiser
from tests.brute_force import LEARNED, largest_error, targets_of, written_out
from tests.problems import entries, seeded_supernet

TOKENS = Signature((6,), 5, "sequence", (5,))
TEXTS = Signature((6,), 3, categories=(5,), tokens=True)
INPUTS = {"tokens": TOKENS, "texts": TEXTS, "series": Signature((2, 7), 3), "images": Signature((1, 5, 6), 3)}
SMALL = {"width": 4, "layers": 2, "optional": 1, "heads": (1, 2), "ratios": (1, 2), "activations": ("gelu", "tanh")}


def space_for(name: str, **settings: object) -> Transformer:
    patch = None if INPUTS[name].is_tokens else 2
    return Transformer(**{**SMALL, "patch": patch, **settings}, signature=INPUTS[name])  # type: ignore[arg-type]


def batch_for(signature: Signature, seed: int, size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    if signature.is_tokens:
        tokens = torch.randint(signature.categories[0], (size, signature.input_shape[0] + 1), generator=generator)
        of_texts = torch.randint(signature.outputs, (size,), generator=generator)
        return Batch(tokens[:, :-1], tokens[:, 1:] if signature.head == "sequence" else of_texts)
    inputs = torch.randn(size, *signature.input_shape, generator=generator, dtype=torch.float64)
    return Batch(inputs, torch.randint(signature.outputs, (size,), generator=generator))


def architectures(space: Transformer, count: int = 6) -> list[Architecture]:
    generator = torch.Generator().manual_seed(0)
    return [space.sample(generator).architecture for _ in range(count)]


@pytest.mark.parametrize("name", INPUTS)
def test_the_supernet_is_the_network_at_weights_of_1_and_0(name: str) -> None:
    space = space_for(name)
    supernet, _ = seeded_supernet(space)
    inputs = batch_for(space.signature, 1).inputs
    for architecture in architectures(space):
        network = space.network(architecture).double()
        network.load_state_dict(supernet.inherited_state(architecture))
        expected = network.eval()(inputs)
        found = supernet(inputs, supernet.architecture_weights(architecture))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        trained = network.train()(inputs)  # with the fused kernel
        torch.testing.assert_close(trained, expected, rtol=1e-10, atol=1e-12)
        assert len(expected) == 4


def test_a_token_sees_none_behind_it() -> None:
    supernet, _ = seeded_supernet(space_for("tokens"))
    tokens = batch_for(TOKENS, 1).inputs
    changed = tokens.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 5
    one, other = supernet(tokens), supernet(changed)
    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.equal(one[:, 4:], other[:, 4:])
    torch.testing.assert_close(supernet(tokens[:, :3]), one[:, :3], rtol=1e-12, atol=1e-14)  # a shorter text


def test_what_is_behind_the_end_of_a_text_changes_nothing() -> None:
    space = space_for("texts")
    supernet, _ = seeded_supernet(space)
    padded = torch.tensor([[3, 1, 4, 0, 0, 0], [2, 2, 1, 4, 0, 0]])
    found = supernet(padded)
    for row, length in enumerate((3, 4)):
        torch.testing.assert_close(supernet(padded[row : row + 1, :length])[0], found[row], rtol=1e-10, atol=1e-12)
    assert bool(supernet(torch.zeros(1, 6, dtype=torch.int64)).isfinite().all())
    supernet.expect_first_derivatives_only()  # with the fused kernel
    torch.testing.assert_close(supernet.train()(padded), found, rtol=1e-10, atol=1e-12)


def test_attention_is_pytorchs_own() -> None:
    from nas.operations.attention import Attention

    torch.manual_seed(0)
    own, other = Attention(6, 3, causal=False).double(), nn.MultiheadAttention(6, 3, batch_first=True).double()
    with torch.no_grad():
        other.in_proj_weight.copy_(own.inner.weight)
        other.in_proj_bias.zero_()
        other.out_proj.load_state_dict(own.outer.state_dict())
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(own.eval()(x), other(x, x, x, need_weights=False)[0], rtol=1e-12, atol=1e-13)


def problem_for(space: Transformer, optimiser: str, task: Task, steps: int) -> BilevelProblem:
    supernet, generators = seeded_supernet(space)
    settings = TrainingSettings(4, 0.9, None, "constant", optimiser=optimiser, epsilon=1e-8)  # type: ignore[arg-type]
    made = weight_optimiser(settings, supernet.weight_parameters())
    problem = BilevelProblem(supernet, made, HyperparameterSet(entries(LEARNED)), None, tuple(generators), task=task)
    for number in range(steps):
        problem.step(batch_for(space.signature, number))
    return problem


@pytest.mark.parametrize(
    ("name", "optimiser"),
    [("tokens", "sgd"), ("tokens", "adamw"), ("texts", "adamw"), ("series", "adamw"), ("images", "sgd")],
)
def test_exact_hypergradients_are_those_of_brute_force(name: str, optimiser: str) -> None:
    space = space_for(name)
    task: Task = Language() if name == "tokens" else PLAIN_CLASSIFICATION
    problem = problem_for(space, optimiser, task, 2)
    batches = [batch_for(space.signature, seed) for seed in (10, 11)]
    references = written_out(problem, task, batches)
    targets = targets_of(problem)
    found = Exact().gradients(problem, *batches, list(targets.values())).gradients
    for (key, reference), gradient in zip(references.items(), found, strict=True):
        assert float(reference.abs().max()) > 0, key
        assert largest_error(gradient, reference) < 1e-6, key


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_attention_without_dropout_is_differentiated_twice(optimiser: str) -> None:
    """PyTorch takes kernels without a second derivative where there is no dropout: a test with dropout hides that."""
    space = space_for("tokens", mixers=("attention",))
    problem = problem_for(space, optimiser, Language(), 2)
    problem.hyperparameters = HyperparameterSet(entries(LEARNED[:2]) | {"dropout": entries(())["dropout"]})
    problem.hyperparameters.entries["dropout"] = type(entries(())["dropout"])(0.0, 0.0, 0.9, "logit", False)
    batches = [batch_for(TOKENS, seed) for seed in (10, 11)]
    references = written_out(problem, Language(), batches)
    targets = targets_of(problem)
    found = Exact().gradients(problem, *batches, list(targets.values())).gradients
    for key, gradient in zip(targets, found, strict=True):
        assert largest_error(gradient, references[key]) < 1e-6, key


def test_first_order_searches_may_use_the_fused_kernel() -> None:
    space = space_for("tokens", mixers=("attention",))
    supernet, _ = seeded_supernet(space)
    tokens = batch_for(TOKENS, 1).inputs
    plain = supernet(tokens)
    supernet.expect_first_derivatives_only()
    torch.testing.assert_close(supernet(tokens), plain, rtol=1e-12, atol=1e-14)
    (slope,) = torch.autograd.grad(supernet(tokens).square().sum(), supernet.stem.positions, create_graph=True)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"derivative|double"):
        torch.autograd.grad(slope.square().sum(), supernet.stem.positions)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("cost", ["parameters", "multiply_adds"])
def test_expected_costs_are_those_of_the_networks(name: str, cost: str) -> None:
    space, count = space_for(name), {"parameters": count_parameters, "multiply_adds": count_multiply_adds}[cost]

    def of(architecture: Architecture) -> float:
        with torch.device("meta"):
            return count(space.network(architecture), space.signature)

    costs = BlockCosts(cost)
    for architecture in architectures(space):
        found = float(space.expected_cost(space.architecture_weights(architecture), costs))
        assert found == pytest.approx(of(architecture), rel=1e-6)
    one = architectures(space)[0]
    weights = {key: weight.double() for key, weight in space.architecture_weights(one).items()}
    kept = {key: weight.clone() for key, weight in weights.items()}
    key = next(key for key in weights if key.endswith("ratio"))
    mixed = {**kept, key: torch.tensor([0.25, 0.75], dtype=torch.float64)}
    ends = [{**kept, key: torch.eye(2, dtype=torch.float64)[place]} for place in (0, 1)]
    low, high = (float(space.expected_cost(end, costs)) for end in ends)
    assert float(space.expected_cost(mixed, costs)) == pytest.approx(0.25 * low + 0.75 * high)


@pytest.mark.parametrize("name", INPUTS)
def test_a_description_gives_the_space_back(name: str) -> None:
    space = space_for(name)
    again = space_from_description(space.describe())
    assert isinstance(again, Transformer)
    assert again.choices == space.choices
    assert again.settings() == space.settings()
    assert again.patch == space.patch
    for architecture in architectures(space):
        shapes = [
            {key: entry.shape for key, entry in one.network(architecture).state_dict().items()}
            for one in (space, again)
        ]
        assert shapes[0] == shapes[1]
        assert len(space.layer_descriptions(architecture)) == 2


def test_what_depends_on_another_choice() -> None:
    assert space_for("tokens").conditions() == {
        "layer1.heads": ("layer1.mixer", "attention"),
        "layer2.mixer": ("layer2.type", "block"),
        "layer2.heads": ("layer2.mixer", "attention"),
        "layer2.ratio": ("layer2.type", "block"),
        "layer2.activation": ("layer2.type", "block"),
    }


def test_its_attributes_are_all_but_what_stands_at_a_place() -> None:
    own = {f"layer{number}.{name}" for number in (1, 2) for name in ("heads", "ratio", "activation")}
    assert space_for("tokens").attributes() == own


def test_patches_are_the_smallest_that_give_at_most_64() -> None:
    def patch_of(*shape: int) -> tuple[int, tuple[int, ...]]:
        space = Transformer(signature=Signature(shape, 3))
        return space.patch, space.sides

    assert patch_of(1, 28, 28) == (4, (7, 7))
    assert patch_of(1, 8, 8) == (1, (8, 8))
    assert patch_of(3, 150) == (3, (50,))
    assert Transformer(signature=TOKENS).sides == (6,)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 6, "heads": (4,)}, r"^heads=4 is not allowed: it must divide width=6"),
        ({"kernel_size": 2}, r"^kernel_size=2 .*odd"),
        ({"optional": 3}, r"^optional=3 .*from 0 to layers=2"),
        ({"mixers": ("attention", "pooling")}, r"^mixers=pooling .*attention, convolution, gated"),
        ({"ratios": ()}, r"^ratios=.*one or more"),
        ({"ratios": (2, 2)}, r"^ratios=.*twice"),
        ({"ratios": (0,)}, r"^ratios=0 "),
        ({"patch": 2}, r"^patch=2 .*a token is a place"),
    ],
)
def test_what_it_refuses(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        space_for("tokens", **settings)


def test_data_and_relaxations_that_do_not_fit() -> None:
    with pytest.raises(InvalidValue, match=r"^space=transformer .*rows of 4 numbers.*take space=macro_table"):
        Transformer(signature=Signature((4,), 2))
    with pytest.raises(InvalidValue, match=r"^space=transformer .*take space=macro_dense"):
        Transformer(signature=Signature((1, 8), 2, "dense"))
    with pytest.raises(InvalidValue, match=r"^relaxation=Sigmoid"):
        space_for("tokens").supernet(Sigmoid())
    with pytest.raises(InvalidValue, match=r"it must hold activations, heads"):
        space_from_description({**space_for("tokens").describe(), "settings": {}})
