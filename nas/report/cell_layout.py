"""Where the parts of a cell lie on paper: a graph in layers from left to right (Sugiyama, 1981)."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nas.report.cell_graph import CellEdge, CellGraph

RESTARTS, SWEEPS = 12, 8
GAP = 0.09  # inches between two things of one layer
STATE_WIDTH, STATE_HEIGHT = 0.62, 0.34
LABEL_HEIGHT, BEND_HEIGHT = 0.22, 0.07
LAYER_GAP = 0.2


@dataclass(frozen=True)
class Placed:
    """A box: its centre, measured from the lower left corner, and its size, in inches."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class CellLayout:
    """The places of all parts of a cell.

    Attributes:
        states: The box of each state.
        labels: The box of the operation's name by the edge's number; an edge without operation has none.
        paths: The points of each edge by its number, from the source's box to the target's.
        width, height: The size of the whole in inches.
    """

    states: Mapping[str, Placed]
    labels: Mapping[int, Placed]
    paths: Mapping[int, tuple[tuple[float, float], ...]]
    width: float
    height: float


def lay_out(graph: CellGraph, label_widths: Mapping[str, float]) -> CellLayout:
    """Lay out ``graph``; the same graph always gives the same layout.

    Args:
        graph: The cell.
        label_widths: The width in inches of each operation's name.
    """
    chains = _chains(graph)
    layers = _ordered_layers(chains)
    heights = {item: _height(item) for layer in layers for item in layer}
    ys = _vertical_places(layers, chains, heights)
    widths = [max(_width(item, graph, label_widths) for item in layer) for layer in layers]
    lefts = [sum(widths[:index]) + index * LAYER_GAP for index in range(len(layers))]
    xs = {item: lefts[index] + widths[index] / 2 for index, layer in enumerate(layers) for item in layer}
    spans = {item: widths[index] for index, layer in enumerate(layers) for item in layer}
    lowest = min(ys[item] - heights[item] / 2 for item in ys)
    ys = {item: y - lowest for item, y in ys.items()}

    states = {item[1]: Placed(xs[item], ys[item], STATE_WIDTH, STATE_HEIGHT) for item in ys if item[0] == "state"}
    labels, paths = {}, {}
    for number, chain in enumerate(chains):
        for item in chain:
            if item[0] == "label":
                width = label_widths[graph.edges[number].operation]
                labels[number] = Placed(xs[item], ys[item], width, LABEL_HEIGHT)
        inner = [point for item in chain[1:-1] for point in _through(item, xs, ys, spans, labels.get(number))]
        start = (states[chain[0][1]].x + STATE_WIDTH / 2, _port(chain, chains, ys, end=False))
        stop = (states[chain[-1][1]].x - STATE_WIDTH / 2, _port(chain, chains, ys, end=True))
        paths[number] = (start, *inner, stop)
    height = max(ys[item] + heights[item] / 2 for item in ys)
    return CellLayout(states, labels, paths, lefts[-1] + widths[-1], height)


Item = tuple[str, str, int]  # (state, its name, 0), (label, edge number, layer) or (bend, edge number, layer)
Chain = list[Item]  # an edge's way through the layers, with one item per layer


def _chains(graph: CellGraph) -> list[Chain]:
    """Each edge's chain; states lie in the even layers, an operation's name in the emptiest odd layer on its way."""
    rank = dict.fromkeys(graph.states, 0)
    for state in graph.states:
        before = [rank[edge.source] for edge in graph.edges if edge.target == state]
        rank[state] = max(before) + 1 if before else 0
    last = graph.states[-1]
    rank[last] = max(rank.values()) if rank[last] else max(rank.values()) + 1
    labels_in: dict[int, int] = {}
    chains: dict[int, Chain] = {}
    by_span = sorted(range(len(graph.edges)), key=lambda number: _span(graph.edges[number], rank))
    for number in by_span:
        edge = graph.edges[number]
        first, stop = 2 * rank[edge.source], 2 * rank[edge.target]
        odd = list(range(first + 1, stop, 2))
        chosen = min(odd, key=lambda layer: (labels_in.get(layer, 0), layer)) if edge.operation else -1
        labels_in[chosen] = labels_in.get(chosen, 0) + 1
        between = [("label" if layer == chosen else "bend", str(number), layer) for layer in range(first + 1, stop)]
        chains[number] = [("state", edge.source, first), *between, ("state", edge.target, stop)]
    return [chains[number] for number in range(len(graph.edges))]


def _span(edge: CellEdge, rank: Mapping[str, int]) -> int:
    return rank[edge.target] - rank[edge.source]


def _ordered_layers(chains: Sequence[Chain]) -> list[list[Item]]:
    """The items of each layer in the order that has the fewest crossings among several tries from random orders."""
    members: dict[int, dict[Item, None]] = {}
    for chain in chains:
        for item in chain:
            members.setdefault(item[2], {})[item] = None
    links = [link for chain in chains for link in pairwise(chain)]
    before: dict[Item, list[Item]] = {}
    after: dict[Item, list[Item]] = {}
    for left, right in links:
        after.setdefault(left, []).append(right)
        before.setdefault(right, []).append(left)
    shuffle = random.Random(0)
    best: list[list[Item]] = []
    fewest = -1
    for restart in range(RESTARTS):
        layers = [list(members[layer]) for layer in sorted(members)]
        if restart:
            for layer in layers:
                shuffle.shuffle(layer)
        for sweep in range(SWEEPS):
            if sweep % 2 == 0:
                _sort_by_means(layers, before)
            else:
                _sort_by_means(layers[::-1], after)
            crossings = _crossings(layers, links)
            if fewest < 0 or crossings < fewest:
                fewest, best = crossings, [list(layer) for layer in layers]
    return best


def _sort_by_means(layers: Sequence[list[Item]], neighbours: Mapping[Item, Sequence[Item]]) -> None:
    """Sort every layer but the first, one after the other, by the mean place of its items' neighbours in that before
    it (the barycentre heuristic of Sugiyama et al., 1981)."""
    for fixed, layer in pairwise(layers):
        place = {item: number for number, item in enumerate(fixed)}
        means = {item: _mean([place[one] for one in neighbours.get(item, [])]) for item in layer}
        layer.sort(key=means.__getitem__)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _crossings(layers: Sequence[Sequence[Item]], links: Sequence[tuple[Item, Item]]) -> int:
    place = {item: number for layer in layers for number, item in enumerate(layer)}
    by_layer: dict[int, list[tuple[int, int]]] = {}
    for left, right in links:
        by_layer.setdefault(left[2], []).append((place[left], place[right]))
    count = 0
    for pairs in by_layer.values():
        for index, (a, b) in enumerate(pairs):
            count += sum(1 for c, d in pairs[:index] if (a - c) * (b - d) < 0)
    return count


def _vertical_places(
    layers: Sequence[Sequence[Item]], chains: Sequence[Chain], heights: Mapping[Item, float]
) -> dict[Item, float]:
    """The height of every item, as near to the mean of its neighbours as the order and sizes in its layer allow."""
    neighbours: dict[Item, list[Item]] = {}
    for chain in chains:
        for left, right in pairwise(chain):
            neighbours.setdefault(left, []).append(right)
            neighbours.setdefault(right, []).append(left)
    ys: dict[Item, float] = {}
    for layer in layers:
        total = sum(heights[item] + GAP for item in layer)
        y = -total / 2
        for item in layer:
            ys[item] = y + (heights[item] + GAP) / 2
            y += heights[item] + GAP
    for sweep in range(40):
        order = layers if sweep % 2 == 0 else layers[::-1]
        for layer in order:
            wanted = [_mean([ys[one] for one in neighbours.get(item, [item])]) for item in layer]
            ys |= dict(zip(layer, _spread(wanted, [heights[item] for item in layer]), strict=True))
    return ys


def _spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """The places closest to ``wanted`` (least squares, by pooling adjacent violators) at which nothing overlaps."""
    offsets, total = [], 0.0
    for index, height in enumerate(heights):
        total += (heights[index - 1] + height) / 2 + GAP if index else 0.0
        offsets.append(total)
    pools: list[list[float]] = []  # [sum, count] of neighbours that touch
    for value, offset in zip(wanted, offsets, strict=True):
        pools.append([value - offset, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    bases = [pool[0] / pool[1] for pool in pools for _ in range(int(pool[1]))]
    return [base + offset for base, offset in zip(bases, offsets, strict=True)]


def _height(item: Item) -> float:
    return {"state": STATE_HEIGHT, "label": LABEL_HEIGHT, "bend": BEND_HEIGHT}[item[0]]


def _width(item: Item, graph: CellGraph, label_widths: Mapping[str, float]) -> float:
    if item[0] == "label":
        return label_widths[graph.edges[int(item[1])].operation]
    return STATE_WIDTH if item[0] == "state" else 0.0


def _through(
    item: Item,
    xs: Mapping[Item, float],
    ys: Mapping[Item, float],
    spans: Mapping[Item, float],
    label: Placed | None,
) -> list[tuple[float, float]]:
    """The points at which an edge enters and leaves the layer of ``item``."""
    half = label.width / 2 if item[0] == "label" and label is not None else spans[item] / 2
    return [(xs[item] - half, ys[item]), (xs[item] + half, ys[item])]


def _port(chain: Chain, chains: Sequence[Chain], ys: Mapping[Item, float], end: bool) -> float:
    """The height at which an edge leaves its source or, with ``end``, reaches its target; edges keep their order."""
    side, neighbour = (-1, -2) if end else (0, 1)
    others = [one for one in chains if one[side] == chain[side]]
    others.sort(key=lambda one: ys[one[neighbour]])
    place = (others.index(chain) + 1) / (len(others) + 1)
    return ys[chain[side]] + (place - 0.5) * 0.8 * STATE_HEIGHT
