"""The recurrent search as quark0/darts computes it: its cell's order of summation, its unrolled gradient."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nas.errors import UnusableInput
from nas.operations.locked_dropout import PLACES, Masks, masked
from nas.operations.memory import Remembered
from nas.spaces.recurrent.genotype import OPERATIONS
from nas.spaces.recurrent.network import FUNCTIONS
from nas.spaces.recurrent.supernet import RecurrentSupernet, SearchCell
from nas.training.sgd import Weights, global_norm
from replays.reference import ArrayFile

EMBEDDING = "network.embedding"
NORM = {name: f"rnns.0.bn.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def original_names(nodes: int) -> dict[str, str]:
    """The names of a network's weights here, and there, in the order there."""
    names = {"embedding": "encoder.weight", "cell.first": "rnns.0._W0"}
    names |= {f"cell.nodes.{node}": f"rnns.0._Ws.{node}" for node in range(nodes)}
    return names | {"output_bias": "decoder.bias"}


def masks_of(file: ArrayFile, prefix: str) -> Masks:
    """The masks below ``prefix``; those with a time axis of one lose it."""
    found = {place: file.tensor(f"{prefix}{place}") for place in PLACES}
    return Masks(**{place: mask.squeeze(0) if mask.dim() == 3 else mask for place, mask in found.items()})


def tokens_of(file: ArrayFile, name: str, vocabulary: int) -> Tensor:
    """Tokens (time, batch)."""
    tokens = file.tensor(name, 2)
    if tokens.dtype != torch.int64 or not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
        raise UnusableInput(f"its {name} holds a token that is none of {vocabulary}.")
    return tokens


def rows(tokens: Tensor, start: int, length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (batch, length) from row ``start`` of ``tokens`` (time, batch)."""
    length = min(length, len(tokens) - 1 - start)
    if length < 1:
        raise UnusableInput(f"its tokens have no rows from {start} on.")
    return tokens[start : start + length].t(), tokens[start + 1 : start + 1 + length].t()


def token_loss(found: Remembered, targets: Tensor) -> Tensor:
    """The mean cross-entropy per token, summed in the order of the original."""
    return F.cross_entropy(time_first(found.logits).flatten(0, 1), targets.t().flatten())


def terms(found: Remembered) -> tuple[Tensor, Tensor]:
    """What AR and TAR are times their factors."""
    hidden = time_first(found.hidden)
    return time_first(found.dropped).square().mean(), (hidden[1:] - hidden[:-1]).square().mean()


def time_first(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1)


class Recalled(nn.Module):
    """A supernet whose call is its pass with a memory, for :func:`torch.func.functional_call`."""

    def __init__(self, supernet: RecurrentSupernet) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, tokens: Tensor, state: Tensor) -> Remembered:
        return self.supernet.recall(tokens, state)


def recall_at(recalled: Recalled, weights: Mapping[str, Tensor], tokens: Tensor, state: Tensor) -> Remembered:
    """The pass at ``weights``; running averages stay."""
    held = {f"supernet.{name}": tensor for name, tensor in weights.items()}
    held |= {name: buffer.clone() for name, buffer in recalled.named_buffers()}
    found: Remembered = functional_call(recalled, held, (tokens, state))
    return found


class OriginalOrder(SearchCell):
    """The search cell with all inputs of a node in one tensor, added up in the order of the original.

    A search magnifies a rounding error of its first step by up to 1e7 in its last: only the same order gives the same
    numbers after whole steps.
    """

    def states(self, x: Tensor, state: Tensor, masks: Masks, weights: Tensor | None) -> list[Tensor]:
        assert weights is not None
        states, row = self.norm(self.first_state(x, state, masks))[None], 0
        for node in self.nodes:
            many = len(states)
            product = (masked(states, masks.cell_h).flatten(0, 1) @ node).view(many, len(x), -1)
            gate, z = product.chunk(2, -1)
            gate, total = gate.sigmoid(), torch.zeros_like(state)
            for column, operation in enumerate(OPERATIONS):
                if operation != "none":
                    candidates = states + gate * (FUNCTIONS[operation](z) - states)
                    total = total + (weights[row : row + many, column, None, None] * candidates).sum(0)
            row += many
            states = torch.cat([states, self.norm(total)[None]])
        return list(states)


class PublishedSecondOrder:
    """The original's unrolled gradient of alpha (``rnn/architect.py``), with its three errors.

    1. Its unrolled copy is loaded from a state dict in which the embedding stands twice, and the second one is that
       from before the step: the embedding is not stepped.
    2. The validation gradient is clipped before it meets the Hessian, and not scaled back.
    3. The second term is multiplied by clip / norm of the training gradient even where nothing was clipped.

    Args:
        embedding: Whether the embedding is stepped all the same.

    Attributes:
        coefficient: That of the third error, 0-dim.
        after: The weights of the unrolled copy.
    """

    coefficient: Tensor
    after: Weights

    def __init__(
        self, supernet: RecurrentSupernet, clip: float, decay: float, scale: float, embedding: bool = False
    ) -> None:
        self.recalled, self.clip, self.decay, self.scale = Recalled(supernet), clip, decay, scale
        self.alpha, self.embedding = supernet.alpha["recurrent"], embedding
        names = [f"network.{name}" for name in original_names(supernet.space.nodes)]
        self.weights = {name: supernet.get_parameter(name) for name in names}

    def gradient(
        self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor], state: Tensor, of_valid: Tensor, rate: float
    ) -> Tensor:
        """From inputs and targets of both parts, and the states before them; running averages move as there."""
        loss = self._loss(train, state)
        gradients = dict(zip(self.weights, torch.autograd.grad(loss, list(self.weights.values())), strict=True))
        self.coefficient = self.clip / (global_norm(gradients) + 1e-6)
        shrunk = self.coefficient.clamp(max=1.0)
        self.after = {}
        for name, weight in self.weights.items():
            direction = shrunk * gradients[name] + self.decay * weight.detach()
            self.after[name] = weight.detach().sub(direction, alpha=rate)
        if not self.embedding:
            self.after[EMBEDDING] = self.weights[EMBEDDING].detach().clone()
        for tensor in self.after.values():
            tensor.requires_grad_()
        found = recall_at(self.recalled, self.after, valid[0], of_valid)
        self.state_after = found.state.detach()
        direct, *slopes = torch.autograd.grad(token_loss(found, valid[1]), [self.alpha, *self.after.values()])
        along = dict(zip(self.weights, slopes, strict=True))
        of_slopes = (self.clip / (global_norm(along) + 1e-6)).clamp(max=1.0)
        along = {name: of_slopes * slope for name, slope in along.items()}
        return direct.sub(self._product(train, state, along), alpha=float(rate * self.coefficient))

    def _product(self, train: tuple[Tensor, Tensor], state: Tensor, along: Weights) -> Tensor:
        """``d^2 L_train / (d alpha d w) . along`` by a central difference."""
        width = self.scale / global_norm(along)
        ends = []
        for shift in (1, -2):
            self._move(along, shift * width)
            ends.append(torch.autograd.grad(self._loss(train, state), self.alpha)[0])
        self._move(along, width)  # back, but for rounding
        return (ends[0] - ends[1]) / (2 * width)

    @torch.no_grad()
    def _move(self, along: Weights, length: Tensor) -> None:
        for name, weight in self.weights.items():
            weight.add_(along[name], alpha=float(length))

    def _loss(self, batch: tuple[Tensor, Tensor], state: Tensor) -> Tensor:
        return token_loss(self.recalled(batch[0], state), batch[1])
