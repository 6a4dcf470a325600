"""The way of a recurrent search cell over time: each weight's gradient is one product for all time steps.

A time step is a chain of links. A link reads a state, multiplies it with the weights of all nodes that read it, side by
side, adds their gated mixtures to what these nodes have been given before, and normalises the sum of the first of them,
which is complete now: that is the state which the next link reads. The first link reads the state before the step, and
its product has the input's part added. The state after the step is the mean of some links' states.

With kernels, both backward passes are written out. What a weight was multiplied with and its product's gradient are
kept for every time step and multiplied at the end. The second pass is the gradient of ``<g, d>``, where ``g`` is the
output's gradient and ``d`` its tangent along the directions: it goes forward with the tangents, and back with the
gradients of the values. Those of the tangents are what the first backward pass has computed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from nas.operations.fast import library
from nas.operations.fast.derivatives import Derivatives, KernelGradient, wanted_inputs
from nas.operations.fast.gated_mixture import Edges, Given, gated_mixture, run_gated_mixture

# With the moments, and its gradient from them; PyTorch's type stubs lack their arguments.
batch_norm = torch.ops.aten.native_batch_norm.default
batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default


class RecurrentInputs(NamedTuple):
    """What a pass depends on, or what belongs to each of these tensors.

    Attributes:
        from_input: (length, batch, 2 width), the input's part of every first product.
        state: (batch, width), that before the first time step.
        mask: (batch, width), what every state is multiplied with in front of its product.
        weights: (width, edges * 2 width) per link.
        mixtures: (edges, 4) per link, the weights of tanh, ReLU, sigmoid and the identity. The first link has one edge,
            the second one as many as the cell has nodes, and every further one has one less.
    """

    from_input: Any
    state: Any
    mask: Any
    weights: Sequence[Any]
    mixtures: Sequence[Any]

    @classmethod
    def of(cls, tensors: Sequence[Any]) -> "RecurrentInputs":
        """The inverse of :meth:`flat`."""
        links = (len(tensors) - 3) // 2
        from_input, state, mask, *of_links = tensors
        return cls(from_input, state, mask, of_links[:links], of_links[links:])

    def flat(self) -> list[Any]:
        return [*self[:3], *self.weights, *self.mixtures]


def recurrent_pass(inputs: RecurrentInputs, concat: Sequence[int], norm: nn.Module) -> Tensor:
    """The states after every time step, (length, batch, width).

    Args:
        concat: The links, counted from 0, of whose states the state after a time step is the mean.
        norm: What normalises every state.
    """
    flat, dtype = inputs.flat(), inputs.state.dtype
    if (
        type(norm) is nn.BatchNorm1d
        and norm.momentum is not None
        and library.usable(inputs.state)
        and all(one.dtype == dtype for one in flat)
    ):
        if not torch.is_grad_enabled() or not any(one.requires_grad for one in flat):
            return torch.stack(_Values(inputs, concat, norm, kept=False).after)
        hidden: Tensor = _Passed.apply(concat, norm, *flat)
        return hidden
    return recurrent_pass_in_torch(inputs, concat, norm)


def recurrent_pass_in_torch(inputs: RecurrentInputs, concat: Sequence[int], norm: Callable[[Tensor], Tensor]) -> Tensor:
    """The same in PyTorch's operations."""
    state, outputs = inputs.state, []
    batch, width = state.shape
    none = state.new_zeros(batch, len(inputs.weights) - 1, width)
    for one in inputs.from_input:
        states, read, given = [], state, none[:, :1]
        for link, (weight, mixture) in enumerate(zip(inputs.weights, inputs.mixtures, strict=True)):
            product = (read * inputs.mask) @ weight
            if link == 0:
                product = product + one
            total, given = gated_mixture(read, product.view(batch, -1, 2 * width), mixture, given)
            if link == 0:
                given = none
            read = norm(total)
            states.append(read)
        state = torch.stack([states[link] for link in concat]).mean(0)
        outputs.append(state)
    return torch.stack(outputs)


class _Passed(Function):
    """The states from the fields of :class:`RecurrentInputs`."""

    @staticmethod
    def forward(ctx: Any, concat: Sequence[int], norm: nn.BatchNorm1d, *flat: Tensor) -> Tensor:
        ctx.values = _Values(RecurrentInputs.of(flat), concat, norm, kept=True)
        ctx.save_for_backward(*flat)
        return torch.stack(ctx.values.after)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, values = ctx.saved_tensors, ctx.values
        wanted, first = wanted_inputs(ctx, len(flat)), _Gradients(values)
        if torch.is_grad_enabled():
            derivatives = Derivatives(values.in_torch, first.gradient, first.second_gradient)
            return None, None, *KernelGradient.apply(derivatives, wanted, 1, *gradients, *flat)
        return None, None, *first.gradient(flat, gradients, wanted)


class _Link(NamedTuple):
    """A link at a time step: what it has read, multiplied and normalised, and the moments taken for that."""

    read: Tensor  # (batch, width)
    product: Tensor  # (batch, edges, 2 width)
    total: Tensor  # (batch, width)
    mean: Tensor  # (width,), and so is the next; empty where running averages serve
    inverse_deviation: Tensor

    def edges(self, mixture: Tensor) -> Edges:
        """For derivatives: none of them depends on what was carried."""
        return Edges(self.read, self.product, mixture)


class _Factors(NamedTuple):
    """What the products over all time steps are made of, per link; or the tangents or the gradients of it.

    Attributes:
        read: Per time step the state that is read, (batch, width).
        dropped: (length, batch, width), what is multiplied with the weights.
        products: (length, batch, edges, 2 width), what that gives.
    """

    read: list[list[Tensor]]
    dropped: list[Tensor]
    products: list[Tensor]

    @classmethod
    def room(cls, inputs: RecurrentInputs, kept: bool = True) -> "_Factors":
        """For all time steps, or for one after the other."""
        (length, batch, both), new = inputs.from_input.shape, inputs.state.new_empty
        length = length if kept else 1
        dropped = [new(length, batch, both // 2) for _ in inputs.weights]
        products = [new(length, batch, len(mixture), both) for mixture in inputs.mixtures]
        return cls([[] for _ in dropped], dropped, products)


class _Values:
    """What a pass has computed.

    Args:
        kept: Whether derivatives are wanted; otherwise there is nothing but the states after the time steps.

    Attributes:
        steps: Per time step its links.
        states: Per time step (links, batch, width), what the links have given.
        after: Per time step (batch, width), the state after it.
        share: (links, 1, 1), the part of every link's state in the state after the time step.
        averages: Mean and variance that every state is normalised with; None for those of the batch.
    """

    def __init__(self, inputs: RecurrentInputs, concat: Sequence[int], norm: nn.BatchNorm1d, kept: bool) -> None:
        self.factors, mixtures = _Factors.room(inputs, kept), _contiguous(inputs.mixtures)
        self.concat, self.epsilon = concat, norm.eps
        running = norm.running_mean, norm.running_var
        self.of_batch = norm.training or norm.running_mean is None
        self.share = inputs.state.new_zeros(len(mixtures), 1, 1)
        self.share[list(concat)] = 1 / len(concat)
        self.averages: list[Tensor | None] = [None, None]
        moved: Sequence[Tensor | None] = self.averages
        if not self.of_batch:  # constants, copied since a later pass may move them
            moved = self.averages = [None if one is None else one.clone() for one in running]
        elif norm.track_running_stats and norm.num_batches_tracked is not None:
            moved = running
            norm.num_batches_tracked.add_(len(inputs.from_input) * len(mixtures))
        self.steps: list[list[_Link]] = []
        self.states: list[Tensor] = []
        self.after: list[Tensor] = []
        state = inputs.state.contiguous()
        for t, from_input in enumerate(inputs.from_input):
            step, states, read, rest = [], [], state, None
            for link, (weight, mixture) in enumerate(zip(inputs.weights, mixtures, strict=True)):
                row = t if kept else 0
                dropped, product = self.factors.dropped[link][row], self.factors.products[link][row]
                torch.mul(read, inputs.mask, out=dropped)
                torch.mm(dropped, weight, out=product.flatten(1))
                if link == 0:
                    product += from_input[:, None]
                edges = Edges(read, product, mixture, rest if link > 1 else None)
                total, rest = given = _room_behind(product)
                run_gated_mixture("forward", edges, given)
                normalised, mean, inverse_deviation = batch_norm(
                    total, None, None, *moved, self.of_batch, norm.momentum, self.epsilon
                )
                step.append(_Link(read, product, total, mean, inverse_deviation))
                states.append(normalised)
                read = normalised
            together = torch.stack(states)
            state = self.mean_state(together)
            self.after.append(state)
            if kept:
                self.steps.append(step)
                self.states.append(together)
                for reads, one in zip(self.factors.read, step, strict=True):
                    reads.append(one.read)

    def mean_state(self, states: Tensor) -> Tensor:
        """The state after a time step, (batch, width), of its links' ``states`` (links, batch, width)."""
        return torch.mv(states.flatten(1).t(), self.share.flatten()).view(states.shape[1:])

    def through_norm(self, x: Tensor, link: _Link) -> Tensor:
        """A tangent (batch, width) to behind the norm, or a gradient to in front of it: the map is symmetric."""
        moments = link.mean, link.inverse_deviation
        return batch_norm_backward(
            x, link.total, None, *self.averages, *moments, self.of_batch, self.epsilon, (True, False, False)
        )[0]

    def bends(self, t: int, gradients: Tensor, along: Tensor, gradients_before: Tensor, behind: Tensor) -> Tensor:
        """The gradient of ``<gradients, through_norm(along)>`` with respect to what is normalised.

        With the result ``y``, ``through_norm(v) = (v - mean(v) - y mean(y v)) / deviation``.

        Args:
            t: The time step; the others are (links, batch, width).
            gradients_before, behind: ``through_norm`` of ``gradients`` and of ``along``.
        """
        if not self.of_batch:
            return torch.zeros_like(along)

        def mean(x: Tensor, y: Tensor) -> Tensor:
            return (x * y).mean(1, keepdim=True)

        y, inverse_deviation = self.states[t], torch.stack([link.inverse_deviation for link in self.steps[t]])
        bent = mean(y, gradients) * behind + mean(y, along) * gradients_before + mean(gradients, behind) * y
        return -inverse_deviation[:, None] * bent

    def in_torch(self, *flat: Tensor) -> tuple[Tensor]:
        def norm(x: Tensor) -> Tensor:
            mean, variance = self.averages
            return F.batch_norm(x, mean, variance, training=self.of_batch, eps=self.epsilon)

        return (recurrent_pass_in_torch(RecurrentInputs.of(flat), self.concat, norm),)


class _Gradients:
    """The first backward pass.

    Attributes:
        states: Per time step (links, batch, width), the gradients of what the links have given.
        given: Per time step and link those of what its nodes have been given.
        factors: Those of the values' factors, except for the states that are read.
    """

    def __init__(self, values: _Values) -> None:
        self.values = values
        self.states: dict[int, Tensor] = {}
        self.given: dict[tuple[int, int], Given] = {}

    def gradient(self, flat: Sequence[Tensor], gradients: Sequence[Tensor], wanted: Sequence[bool]) -> list[Any]:
        """Those of the inputs, where they are wanted, from that of the states after every time step."""
        values, inputs, asked = self.values, RecurrentInputs.of(flat), RecurrentInputs.of(wanted)
        self.factors, mixtures = _Factors.room(inputs), _contiguous(inputs.mixtures)
        sums = _Sums(inputs, asked.mixtures)
        (after,), later = _contiguous(gradients), torch.zeros_like(inputs.state)
        for t in reversed(range(len(values.steps))):
            states, rest = values.share * (after[t] + later), None
            for link, one in reversed(list(enumerate(values.steps[t]))):
                dropped, product = self.factors.dropped[link][t], self.factors.products[link][t]
                given = self.given[t, link] = Given(values.through_norm(states[link], one), rest)
                rest = _room_in_front(product) if link > 1 else None
                results = Edges(torch.empty_like(later), product, sums.at(t, link), rest)
                run_gated_mixture("backward", one.edges(mixtures[link]), None, given, results)
                torch.mm(product.flatten(1), inputs.weights[link].t(), out=dropped)
                read = results.state.addcmul_(dropped, inputs.mask)
                if link:
                    states[link - 1] += read
            self.states[t], later = states, read
        return _of_inputs(asked, later, self.factors.products[0], sums, (values.factors, self.factors))

    def second_gradient(
        self, flat: Sequence[Tensor], gradients: Sequence[Tensor], directions: Sequence[Tensor], wanted: Sequence[bool]
    ) -> list[Any]:
        """Those of ``<gradients, tangent along directions>``: of the gradients themselves, and of the inputs."""
        tangent = _Tangent(self, RecurrentInputs.of(flat), RecurrentInputs.of(directions))
        return [torch.stack(tangent.after), *tangent.gradient(RecurrentInputs.of(wanted[1:]))]


class _Tangent:
    """The tangent of a pass along directions of its inputs, and the gradient of ``<g, tangent>``.

    Attributes:
        after: Per time step the tangent of the state after it, (batch, width).
        factors: Those of the values' factors.
        edges: Per time step and link those of the gated mixture's inputs.
        bends: Per time step what :meth:`_Values.bends` gives.
    """

    def __init__(self, first: _Gradients, inputs: RecurrentInputs, along: RecurrentInputs) -> None:
        self.first, self.values, self.inputs, self.along = first, first.values, inputs, along
        self.mixtures, turned = _contiguous(inputs.mixtures), _contiguous(along.mixtures)
        values, pairs = first.values.factors, list(enumerate(along.weights))
        dropped = [torch.stack(values.read[link]) * along.mask for link, _ in pairs]
        products = [(values.dropped[link] @ weight).view_as(values.products[link]) for link, weight in pairs]
        products[0] += along.from_input[:, :, None]
        self.factors = _Factors([[] for _ in pairs], dropped, products)
        self.after: list[Tensor] = []
        self.bends: list[Tensor] = []
        self.edges: dict[tuple[int, int], Edges] = {}
        state = along.state.contiguous()
        for t, step in enumerate(self.values.steps):
            totals, states, read, rest = [], [], state, None
            for link, one in enumerate(step):
                product, of = products[link][t], first.given[t, link]
                product.flatten(1).addmm_(dropped[link][t].addcmul_(read, inputs.mask), inputs.weights[link])
                edges = self.edges[t, link] = Edges(read, product, turned[link], rest if link > 1 else None)
                total, rest = given = _room_behind(product)
                run_gated_mixture("second_backward", one.edges(self.mixtures[link]), given, of, directions=edges)
                self.factors.read[link].append(read)
                read = self.values.through_norm(total, one)
                totals.append(total)
                states.append(read)
            of_totals = torch.stack([first.given[t, link].first for link, _ in pairs])
            behind = torch.stack(states)
            self.bends.append(self.values.bends(t, first.states[t], torch.stack(totals), of_totals, behind))
            state = self.values.mean_state(behind)
            self.after.append(state)

    def gradient(self, asked: RecurrentInputs) -> list[Any]:
        """Those of the inputs, where they are asked for."""
        first, values, inputs, along = self.first, self.values, self.inputs, self.along
        own, sums = _Factors.room(inputs), _Sums(inputs, asked.mixtures)
        for dropped, products, weight in zip(own.dropped, first.factors.products, along.weights, strict=True):
            torch.matmul(products.flatten(2), weight.t(), out=dropped)
        later = torch.zeros_like(inputs.state)
        for t in reversed(range(len(values.steps))):
            states, rest = values.share * later, None
            for link, one in reversed(list(enumerate(values.steps[t]))):
                dropped, product = own.dropped[link][t], own.products[link][t]
                given = Given(values.through_norm(states[link], one) + self.bends[t][link], rest)
                rest = _room_in_front(product) if link > 1 else None
                results = Edges(torch.empty_like(later), product, sums.at(t, link), rest)
                edges, of, moved = one.edges(self.mixtures[link]), first.given[t, link], self.edges[t, link]
                run_gated_mixture("second_backward", edges, None, of, results, moved, given)
                dropped.addmm_(product.flatten(1), inputs.weights[link].t())
                read = results.state.addcmul_(dropped, inputs.mask)
                read.addcmul_(first.factors.dropped[link][t], along.mask)
                if link:
                    states[link - 1] += read
            later = read
        return _of_inputs(asked, later, own.products[0], sums, (values.factors, own), (self.factors, first.factors))


class _Sums:
    """Room for the gradients of the mixtures, (batch, edges, 4) per time step and link, where they are wanted."""

    def __init__(self, inputs: RecurrentInputs, wanted: Sequence[bool]) -> None:
        length, batch, _ = inputs.from_input.shape
        self.rows = [
            one.new_empty(length, batch, *one.shape) if asked else None
            for one, asked in zip(inputs.mixtures, wanted, strict=True)
        ]

    def at(self, t: int, link: int) -> Tensor | None:
        rows = self.rows[link]
        return None if rows is None else rows[t]

    def total(self, link: int) -> Tensor | None:
        rows = self.rows[link]
        return None if rows is None else rows.sum((0, 1))


def _of_inputs(
    asked: RecurrentInputs, state: Tensor, first_product: Tensor, sums: _Sums, *pairs: tuple[_Factors, _Factors]
) -> list[Any]:
    """The gradients of the inputs, where they are asked for, all time steps at once.

    Args:
        pairs: Factors, and the gradients of what they are multiplied to.
    """
    links = range(len(sums.rows))
    masks = ((torch.stack(one.read[link]) * other.dropped[link]).sum(0) for one, other in pairs for link in links)
    weights = [
        sum(_over_time(one.dropped[link], other.products[link]) for one, other in pairs)
        if asked.weights[link]
        else None
        for link in links
    ]
    mask = sum(masks) if asked.mask else None
    return RecurrentInputs(first_product[:, :, 0], state, mask, weights, [sums.total(link) for link in links]).flat()


def _over_time(x: Tensor, gradient: Tensor) -> Tensor:
    """A weight's gradient (width, edges * 2 width), of (length, batch, width) and (length, batch, edges, 2 width)."""
    return x.flatten(0, 1).t() @ gradient.flatten(0, 1).flatten(1)


def _room_behind(product: Tensor) -> Given:
    """For what the nodes of edges are given, whose ``product`` is (batch, edges, 2 width)."""
    batch, edges, both = product.shape
    return Given(product.new_empty(batch, both // 2), product.new_empty(batch, edges - 1, both // 2))


def _room_in_front(product: Tensor) -> Tensor:
    """For what the nodes of edges have been given before, (batch, edges, width)."""
    batch, edges, both = product.shape
    return product.new_empty(batch, edges, both // 2)


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [one.contiguous() for one in tensors]
