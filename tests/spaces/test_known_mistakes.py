"""What users of other code bases have reported as wrong there, and is right here."""

import pytest
import torch

from nas.data.batches import Batch
from nas.evaluation.network_cost import count_multiply_adds, count_parameters
from nas.interop.named_architecture import PUBLISHED
from nas.operations.stochastic import set_drop_path
from nas.signature import Signature
from nas.spaces.darts.choices import cell_edges, edge_name
from nas.spaces.darts.network import DartsNetwork
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.choices import parse_architecture
from nas.spaces.nasbench201.network import NasBench201Network
from nas.spaces.nasbench201.space import NasBench201
from nas.tasks import Classification
from nas.training.metrics import measure


def test_edges_are_chosen_by_probabilities_and_not_by_raw_alpha() -> None:
    """The numbers of an issue of pt.darts: the edge of the largest alphas is undecided among its operations."""
    space = Darts(signature=Signature((3, 32, 32), 10))
    alpha = {0: [1, 1, 1, 1, 5, 1, 1, 1], 1: [10, 10, 10, 11, 10, 10, 10, 10], 2: [10, 15, 10, 10, 10, 10, 10, 10]}
    probabilities = {}
    for cell in ("normal", "reduce"):
        for node, source in cell_edges(4):
            row = torch.tensor(alpha[source] if node == 3 else [0] * 8, dtype=torch.float64)
            values = row[: len(space.operations)].softmax(0).tolist()
            probabilities[edge_name(cell, node, source)] = dict(zip(space.operations, values, strict=True))
    genotype = space.genotype(space.preferred(probabilities))
    assert {source for _, source in genotype.normal[2:4]} == {0, 2}
    assert genotype.normal[2:4] == (("max_pool_3x3", 2), ("sep_conv_3x3", 0))


def test_no_path_is_dropped_while_measuring() -> None:
    torch.manual_seed(0)
    network = DartsNetwork(PUBLISHED["darts_v2"], in_channels=3, channels=4, cells=3, classes=4)
    batches = [Batch(torch.randn(16, 3, 8, 8), torch.randint(4, (16,)))]
    task = Classification.of(Signature((3, 8, 8), 4))
    losses = []
    for rate, seed in ((0.0, 0), (0.3, 0), (0.3, 1), (0.3, 2)):
        set_drop_path(network, rate)
        torch.manual_seed(seed)
        losses.append(measure(network, batches, task, torch.device("cpu")).loss)
    assert len(set(losses)) == 1


def test_the_network_of_nasbench201_ends_in_batch_norm_and_relu() -> None:
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    space = NasBench201(signature=Signature((3, 32, 32), 10))
    with torch.device("meta"):
        network = space.network(parse_architecture(cell))
    assert isinstance(network, NasBench201Network)
    assert [type(layer) for layer in network.last_activation] == [torch.nn.BatchNorm2d, torch.nn.ReLU]
    assert count_parameters(network, space.input_shape) == 1_288_506
    assert count_multiply_adds(network, space.input_shape) == pytest.approx(184.7e6, abs=5e4)
    torch.manual_seed(0)
    small = NasBench201(channels=2, cells_per_stage=1, signature=Signature((3, 8, 8), 10))
    images = torch.randn(4, 3, 8, 8)
    seen: list[torch.Tensor] = []
    made = small.network(parse_architecture(cell))
    made.dropout.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    made(images)
    assert (seen[0] >= 0).all()
