"""Weights of edges, partial channels and auxiliary skips in the cell spaces: what is read off, counted and refused."""

from functools import partial

import pytest
import torch

from nas.bilevel.first_order import FirstOrder
from nas.candidate import Architecture
from nas.errors import InvalidValue
from nas.evaluation.network_cost import BlockCosts, supernet_multiply_adds
from nas.operations.edge_structure import EdgeStructure
from nas.relaxations.gumbel_softmax import GumbelSoftmax
from nas.relaxations.relaxation import Temperature
from nas.relaxations.sigmoid import Sigmoid
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.darts.choices import edge_weight_row, edges_alpha
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.recorded import space_from_description
from nas.spaces.space import SearchSpace
from tests.problems import batch_for, every_entry, problem_over, seeded_supernet

SHAPE = (3, 8, 8)
darts = partial(
    Darts, 4, 3, 2, 2, 1, final_channels=4, final_cells=3, signature=Signature(SHAPE, 3)
)  # channels, cells, steps, multiplier, stem_multiplier
weighted_darts = partial(darts, edge_normalisation=True, operations=("none", "skip_connect", "sep_conv_3x3"))
softmax = partial(Softmax, Temperature())


def test_the_weights_of_the_edges_are_decisions_of_their_own() -> None:
    supernet = weighted_darts().supernet(softmax())
    assert list(supernet.alpha) == [
        "normal",
        "reduce",
        *(edges_alpha(c, n) for c in ("normal", "reduce") for n in (2, 3)),
    ]
    assert supernet.alpha_rows(edges_alpha("normal", 3)) == [
        (edge_weight_row("normal", 3), ("from0", "from1", "from2"))
    ]
    assert sum(supernet.probabilities()["reduce.node3.edges"].values()) == pytest.approx(1)


def test_an_edge_is_as_strong_as_its_weight_times_its_operation() -> None:
    """Without the edges' weights node 3 would keep states 0 and 1, where an operation is nearly certain."""
    supernet = weighted_darts().supernet(softmax())
    space = supernet.space
    with torch.no_grad():
        for alpha in supernet.alpha.values():
            alpha.zero_()
        supernet.alpha["normal"][2, 1] = 4.0  # node 3 from 0, 1, 2
        supernet.alpha["normal"][3, 2] = 3.0
        supernet.alpha["normal"][4, 2] = 1.0
        supernet.alpha[edges_alpha("normal", 3)].copy_(torch.tensor([0.1, 0.2, 0.7]).log())
    probabilities = supernet.probabilities()
    found = supernet.discretise()
    assert space.genotype(found).normal[2:] == (("sep_conv_3x3", 2), ("sep_conv_3x3", 1))
    other = space.runner_up("normal.node3.second.input", found, probabilities)
    assert other is not None
    assert other.option == "0 (skip_connect)"
    p = {source: max(probabilities[f"normal.node3.from{source}"].values()) for source in (0, 1)}
    assert other.margin == pytest.approx(0.2 * p[1] - 0.1 * p[0])


@pytest.mark.parametrize("implementation", ["plain", "fast"])
def test_an_architecture_has_whole_edges_and_no_auxiliary_skip(implementation: str) -> None:
    made = partial(weighted_darts, partial_channels=2, implementation=implementation)
    supernet = made(auxiliary_skip=True).supernet(softmax()).double().eval()
    plain = made(edge_normalisation=False).supernet(softmax()).double().eval()
    state = supernet.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    architecture = supernet.space.sample(torch.Generator().manual_seed(0)).architecture
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    weights = supernet.architecture_weights(architecture)
    found = supernet(x, weights)
    supernet.advance(0.5)
    assert float(state["auxiliary_skip"]) == 0.5
    assert torch.equal(found, supernet(x, weights))
    others = {name: weight for name, weight in weights.items() if "_node" in name}
    assert all(float(weight.sum()) in (1, 2) and weight.max() == 1 for weight in others.values())
    whole = plain.architecture_weights(architecture)
    passing = supernet.edge_weights("normal", weights)[:, -1]
    assert torch.equal(passing, torch.cat([weights[edges_alpha("normal", node)] for node in (2, 3)]))
    assert torch.equal(supernet.edge_weights("normal", weights)[:, :3], whole["normal"])


def test_the_gradient_of_the_edges_weights_is_that_of_automatic_differentiation() -> None:
    space = weighted_darts(partial_channels=2, auxiliary_skip=True, implementation="plain")
    supernet, generators = seeded_supernet(space)
    problem = problem_over(supernet, every_entry(), None, generators)
    alphas = supernet.architecture_parameters()
    batch = batch_for(1, shape=SHAPE, classes=3)
    found = FirstOrder().gradients(problem, batch, batch, alphas).gradients
    loss, _ = problem.validation_loss(problem.weights(), batch)
    for one, expected in zip(found, torch.autograd.grad(loss, alphas), strict=True):
        torch.testing.assert_close(one, expected, atol=1e-12, rtol=0)


def test_the_expected_cost_counts_the_edges_that_a_node_keeps() -> None:
    space, cost = weighted_darts(), BlockCosts("parameters")
    architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    of_network = sum(parameter.numel() for parameter in space.network(architecture).parameters())
    assert float(space.expected_cost(space.architecture_weights(architecture), cost)) == of_network
    weights = {name: alpha.detach().softmax(-1) for name, alpha in space.supernet(softmax()).alpha.items()}
    alike = float(space.expected_cost(weights, cost))
    every = float(darts(operations=space.operations).expected_cost(weights, cost))
    assert alike < every  # two of the three edges of node 3


@pytest.mark.parametrize("made", [darts, partial(NasBench201, 4, 1, signature=Signature(SHAPE, 3))])
def test_the_supernets_cost_knows_partial_channels_and_auxiliary_skips(made: partial[SearchSpace]) -> None:
    usual, part = (supernet_multiply_adds(made(partial_channels=k), softmax()) for k in (1, 2))
    assert part < 0.8 * usual
    more = supernet_multiply_adds(made(auxiliary_skip=True), softmax())
    assert more > usual if made is darts else more == usual  # an identity costs nothing


def test_a_description_tells_only_what_is_not_usual() -> None:
    assert "partial_channels" not in darts().settings()
    for space in (
        darts(partial_channels=2, edge_normalisation=True),
        NasBench201(4, 1, auxiliary_skip=True, auxiliary_decay="cosine", signature=Signature(SHAPE, 3)),
    ):
        again = space_from_description(space.describe())
        assert again.describe() == space.describe()
        assert again.structure == space.structure != EdgeStructure()  # type: ignore[attr-defined]


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InvalidValue, match="divide the 4 channels"):
        darts(partial_channels=3)
    with pytest.raises(InvalidValue, match="sum to 1"):
        weighted_darts().supernet(Sigmoid())
    for key in ("edge_normalisation", "auxiliary_skip"):
        sampled = GumbelSoftmax(Temperature(), hard=True, gradient="chosen_only", sampled=True)
        with pytest.raises(InvalidValue, match="one operation of every edge alone"):
            darts(**{key: True}).supernet(sampled)


def test_weights_of_partial_channels_are_not_handed_down() -> None:
    space = darts(partial_channels=2, operations=("none", "sep_conv_3x3"))
    architecture: Architecture = space.sample(torch.Generator().manual_seed(0)).architecture
    with pytest.raises(InvalidValue, match="partial_channels"):
        space.supernet(softmax()).inherited_state(architecture)
