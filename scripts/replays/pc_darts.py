"""yuhuixu1993/PC-DARTS: partial channels and edge weights, alone, in a network and over whole search steps."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from nas.bilevel.first_order import FirstOrder
from nas.bilevel.problem import BilevelProblem
from nas.data.batches import Batch
from nas.errors import UnusableInput
from nas.hyperparameters.collection import HyperparameterSet
from nas.hyperparameters.kinds import LearningRate, WeightDecay
from nas.interop.original_state import original_name
from nas.operations.edge_structure import PartialEdge
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.spaces.darts.choices import CELLS, edges_alpha
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.supernet import DartsSupernet
from nas.training.sgd import global_norm
from replays.packed_darts import searched_darts
from replays.reference import (
    FORWARD,
    LARGEST_STEPS,
    LARGEST_WIDTH,
    ArrayFile,
    Comparison,
    Configuration,
    compared_absolutely,
    compared_equal,
)

WHOLE_STEPS = 1e-8


class PartialReplay:
    """A PC-DARTS search in one implementation."""

    def __init__(self, file: ArrayFile, implementation: str) -> None:
        self.file, self.implementation = file, implementation
        values = file.json("config")
        self.configuration = Configuration(values)
        self.architecture = Configuration(values.get("arch"))
        self.images, self.labels = file.tensor("x", 5).double(), file.tensor("y", 2)
        self.steps = self.configuration.whole("search_steps", LARGEST_STEPS)
        if self.labels.shape != self.images.shape[:2] or len(self.images) < 2 * self.steps:
            raise UnusableInput(f"its x and y hold no two batches for each of {self.steps} steps.")

    def supernet(self) -> DartsSupernet:
        made = searched_darts(
            self.file,
            self.images.shape[2:],
            Softmax(Temperature()),
            prefix="init/",
            partial_channels=self.configuration.whole("k", LARGEST_WIDTH),
            edge_normalisation=True,
            implementation=self.implementation,
        )
        for kind in CELLS:
            nodes = range(2, made.space.steps + 2)
            betas = self.file.tensor(f"init/betas_{kind}", 1)
            if len(betas) != sum(nodes):
                raise UnusableInput(f"its init/betas_{kind} are not one for each of {sum(nodes)} edges.")
            for node, own in zip(nodes, betas.split(list(nodes)), strict=True):
                made.alpha[edges_alpha(kind, node)].data.copy_(own)
        return made

    def problem(self) -> BilevelProblem:
        number = self.configuration.number
        supernet = self.supernet()
        rate = number("learning_rate")
        optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=rate, momentum=number("momentum"))
        held = {
            "learning_rate": LearningRate(rate, 0.0, 1.0, "linear", learn=False),
            "weight_decay": WeightDecay(number("weight_decay"), 0.0, 1.0, "linear", learn=False),
        }
        return BilevelProblem(supernet, optimiser, HyperparameterSet(held), number("gradient_clip"))

    def batch(self, index: int) -> Batch:
        return Batch(self.images[index], self.labels[index])

    def compare(self) -> Iterator[Comparison]:
        """Every quantity in the file."""
        yield from self.edges_alone()
        yield from self._first_pass()
        yield from self._whole_steps()

    def edges_alone(self) -> Iterator[Comparison]:
        supernet = self.supernet()
        for kind in CELLS:
            given, wanted = (self.file.tensor(f"mixed_op/{kind}/{name}", 4).double() for name in ("input", "output"))
            cell = CELLS.index(kind)  # the originals' edge is the first of cells.0 and of cells.1
            needed = "reduce" if wanted.shape[-1] < given.shape[-1] else "normal"
            if supernet.cell_types[cell] != needed:
                cell = supernet.cell_types.index(needed)
            edge = supernet.get_submodule(f"cells.{cell}.edges.0")
            weights = self.file.tensor(f"mixed_op/{kind}/weights", 1)
            if isinstance(edge, PartialEdge):
                weights = torch.cat([weights, weights.new_ones(1)])
            yield self._compared(f"mixed_op/{kind}/output", edge(given, weights))

    def _first_pass(self) -> Iterator[Comparison]:
        problem, batch = self.problem(), self.batch(1)
        supernet = problem.supernet
        assert isinstance(supernet, DartsSupernet)
        with torch.no_grad():
            yield self._compared("first/eval_logits", supernet.eval()(batch.inputs))
        supernet.train()
        weights, alphas = problem.weights(), dict(supernet.alpha.items())
        loss, logits = problem.validation_loss(weights, batch)
        yield self._compared("first/val_logits", logits)
        yield self._compared("first/val_loss", loss)
        found = torch.autograd.grad(loss, [*alphas.values(), *weights.values()], materialize_grads=True)
        of_weights = dict(zip(weights, found[len(alphas) :], strict=True))
        for name, gradient in _by_their_names(dict(zip(alphas, found, strict=False))).items():
            yield self._compared(f"first/grad_{name}", gradient)
        report = FirstOrder().gradients(problem, self.batch(0), batch, list(alphas.values()))
        for name, gradient in _by_their_names(dict(zip(alphas, report.gradients, strict=True))).items():
            yield compared_absolutely(
                f"{self.implementation}/first order/{name}", gradient, self.file.tensor(f"first/grad_{name}"), FORWARD
            )
        named = {original_name(supernet, name): gradient for name, gradient in of_weights.items()}
        for name in self.file.state("first/grad_weight/"):
            if name not in named:
                raise UnusableInput(f"it has the gradient of {name}, which its network has not.")
            yield self._compared(f"first/grad_weight/{name}", named[name])
        yield self._compared("first/grad_weight_norm", global_norm(of_weights))
        genotype = supernet.space.genotype(supernet.discretise())
        yield compared_equal(
            f"{self.implementation}/genotype_init", genotype, Genotype.from_mapping(self.file.json("genotype_init"))
        )

    def _whole_steps(self) -> Iterator[Comparison]:
        problem = self.problem()
        supernet = problem.supernet
        assert isinstance(supernet, DartsSupernet)
        first, second = self.architecture.shares("betas", 2)
        alphas = supernet.architecture_parameters()
        rate, decay = self.architecture.number("lr"), self.architecture.number("weight_decay")
        adam = torch.optim.Adam(alphas, lr=rate, betas=(first, second), weight_decay=decay)
        losses = []
        for step in range(self.steps):
            training, validation = self.batch(2 * step), self.batch(2 * step + 1)
            report = FirstOrder().gradients(problem, training, validation, alphas)
            for alpha, gradient in zip(alphas, report.gradients, strict=True):
                alpha.grad = gradient
            adam.step()
            losses.append(problem.step(training).loss)
        found = {f"{name}_after": tensor for name, tensor in _by_their_names(dict(supernet.alpha.items())).items()}
        found |= {
            f"train_losses_{self.steps}_steps": torch.stack(losses),
            "stem_weight_after": supernet.get_parameter("stem.0.weight"),
            "classifier_weight_after": supernet.classifier.weight,
        }
        for name, tensor in found.items():
            yield self._compared(f"steps/{name}", tensor, WHOLE_STEPS)
        genotype = supernet.space.genotype(supernet.discretise())
        reference = Genotype.from_mapping(self.file.json("steps/genotype_after"))
        yield compared_equal(f"{self.implementation}/steps/genotype_after", genotype, reference)

    def _compared(self, entry: str, ours: Tensor, tolerance: float = FORWARD) -> Comparison:
        return compared_absolutely(f"{self.implementation}/{entry}", ours, self.file.tensor(entry), tolerance)


def _by_their_names(tensors: Mapping[str, Tensor | nn.Parameter]) -> dict[str, Tensor]:
    """Tensors per alpha as the original has them: ``alphas_normal``, ``betas_normal`` with all edges in one row, ..."""
    found: dict[str, Tensor] = {}
    for kind in CELLS:
        found[f"alphas_{kind}"] = tensors[kind]
        found[f"betas_{kind}"] = torch.cat([one for name, one in tensors.items() if name.startswith(f"{kind}_node")])
    return found


def replay_pc_darts(file: ArrayFile) -> Iterator[Comparison]:
    """Mixed operations alone, a forward pass with its gradients, and whole search steps, in both implementations."""
    for implementation in ("plain", "fast"):
        yield from PartialReplay(file, implementation).compare()
