"""Recurrent cells that read a text or a series as a whole: plain and fast, ends of texts, exact gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.bilevel.exact import Exact
from nas.data.batches import Batch
from nas.errors import InvalidValue
from nas.evaluation.network_cost import BlockCosts, count_multiply_adds
from nas.operations.stochastic import set_dropouts
from nas.signature import Signature
from nas.spaces import Recurrent
from nas.spaces.recurrent.supernet import ReaderSupernet
from nas.tasks import PLAIN_CLASSIFICATION
from tests.brute_force import LEARNED, largest_error, targets_of, written_out
from tests.problems import entries, problem_over, seeded_supernet

WIDTH, ROWS = 3, 4
INPUTS = {
    "texts": Signature((5,), 3, categories=(6,), tokens=True),
    "series": Signature((2, 4), 3),
}


def space_of(name: str, implementation: str = "fast", **settings: Any) -> Recurrent:
    usual = {"width": WIDTH, "final_width": WIDTH, "nodes": 2, "implementation": implementation}
    return Recurrent(**{**usual, **settings}, signature=INPUTS[name])


def supernet_of(name: str, implementation: str = "fast") -> tuple[ReaderSupernet, list[torch.Generator]]:
    supernet, generators = seeded_supernet(space_of(name, implementation))
    assert isinstance(supernet, ReaderSupernet)
    for weight in supernet.weight_parameters():
        nn.init.normal_(weight, std=0.5)
    return supernet, generators


def batch(name: str, seed: int) -> Batch:
    one, generator = INPUTS[name], torch.Generator().manual_seed(seed)
    targets = torch.randint(one.outputs, (ROWS,), generator=generator)
    if one.is_tokens:
        return Batch(torch.randint(one.categories[0], (ROWS, *one.input_shape), generator=generator), targets)
    return Batch(torch.randn(ROWS, *one.input_shape, generator=generator, dtype=torch.float64), targets)


@pytest.mark.parametrize("name", INPUTS)
def test_fast_is_plain(name: str) -> None:
    results: list[list[Tensor]] = []
    for implementation in ("plain", "fast"):
        supernet, generators = supernet_of(name, implementation)
        places = ("embedding", "cell_x", "cell_h", "output", *(("words",) if name == "texts" else ()))
        set_dropouts(supernet, {f"dropout_{place}": 0.3 for place in places})
        generators[0].manual_seed(7)
        inputs, targets, _ = batch(name, 1)
        outputs = supernet(inputs)
        gradients = torch.autograd.grad(F.cross_entropy(outputs, targets), list(supernet.parameters()))
        results.append([outputs.detach(), *gradients])
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", INPUTS)
def test_the_search_cell_without_its_batch_norm_is_the_stand_alone_cell(name: str) -> None:
    supernet, _ = supernet_of(name)
    supernet.network.cell.norm = nn.Identity()  # type: ignore[union-attr]
    space, costs = space_of(name), BlockCosts("multiply_adds")
    for seed in range(3):
        architecture = space.sample(torch.Generator().manual_seed(seed)).architecture
        network = space.network(architecture).double()
        network.load_state_dict(supernet.inherited_state(architecture))
        inputs = batch(name, seed).inputs
        found = supernet(inputs, supernet.architecture_weights(architecture))
        torch.testing.assert_close(found, network(inputs), rtol=1e-10, atol=1e-12)
        weights = space.architecture_weights(architecture)
        assert float(space.expected_cost(weights, costs)) == count_multiply_adds(network, space.signature)


def test_what_is_behind_the_end_of_a_text_changes_nothing() -> None:
    space = space_of("texts")
    network = space.network(space.sample(torch.Generator().manual_seed(1)).architecture)
    padded = torch.tensor([[3, 1, 4, 0, 0], [2, 2, 1, 4, 0]])
    found = network(padded)
    for row, length in enumerate((3, 4)):
        torch.testing.assert_close(network(padded[row : row + 1, :length])[0], found[row])


@pytest.mark.parametrize("name", INPUTS)
def test_exact_hypergradients_are_those_of_brute_force(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    supernet, generators = supernet_of(name)
    problem = problem_over(supernet, entries(LEARNED[:2]), 0.25, generators, momentum=0.0, task=PLAIN_CLASSIFICATION)
    batches = [batch(name, seed) for seed in (10, 11)]
    references = written_out(problem, PLAIN_CLASSIFICATION, batches)
    targets = targets_of(problem)
    found = Exact().gradients(problem, *batches, list(targets.values())).gradients
    for (key, reference), gradient in zip(references.items(), found, strict=True):
        assert float(reference.abs().max()) > 0, key
        assert largest_error(gradient, reference) < 1e-6, key


def test_rows_of_numbers_are_refused_in_words() -> None:
    with pytest.raises(InvalidValue, match=r"it is for texts or series with .*rows of 4 numbers.*space=macro_table"):
        Recurrent(signature=Signature((4,), 2))
