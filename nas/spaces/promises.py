"""A space of a user's own, tried on a few inputs: what it lacks would otherwise end a run late, or spoil it unnoticed.

Every check is one of a promise in ``nas/spaces/README.md``. No random number of the run is drawn.
"""

import copy
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.candidate import Architecture, Candidate, Choice, Domain
from nas.configuration import Answer, asked
from nas.errors import InvalidValue, require
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import PADDING, Signature
from nas.spaces.recorded import space_from_description
from nas.spaces.space import LayerDescription, SearchSpace
from nas.spaces.supernet import Supernet

log = logging.getLogger(__name__)
TRIED = 3  # inputs in a batch
DRAWN, KEPT = 64, 8  # architectures: of those that are drawn, the first ones that have further options
CLOSE = 1e-3  # how far two ways to the same outputs may differ, as a share of the largest


def check_promises(space: SearchSpace, signature: Signature, ranges: Mapping[str, Domain]) -> None:
    """Ask ``space`` for whatever a run may ask of it.

    Args:
        signature, ranges: What it was made with.

    Raises:
        InvalidValue: It raises, or gives something else than it should; the sentence says what of it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        tried = _Tried(space)
        tried.values(signature, ranges)
        tried.record()
        candidates = tried.candidates()
        tried.vectors(candidates)
        architectures = [one.architecture for one in candidates]
        supernet = tried.supernet(architectures)
        tried.networks(architectures)
        tried.inheritance(supernet, architectures[-1])


class _Tried:
    """``space`` with the checks, in the order in which one needs the other."""

    def __init__(self, space: SearchSpace) -> None:
        self.space, self.name = space, type(space).__name__
        self.generator = torch.Generator().manual_seed(0)
        self.known: dict[str, float] = {}  # parameters of parts of networks

    def ask(self, what: str, compute: Any) -> Any:
        return asked("space", self.name, what, compute)

    def require(self, good: bool, sentence: str) -> None:
        require(good, "space", self.name, sentence)

    def values(self, signature: Signature, ranges: Mapping[str, Domain]) -> None:
        """What the constructor leaves, and the choices."""
        space = self.space
        handed = getattr(space, "signature", None) == signature and getattr(space, "ranges", None) == ranges
        self.require(
            handed, "its constructor must call super().__init__(signature, ranges) with those that it is given"
        )
        self.require(isinstance(space.name, str), f"its name is {space.name!r}, it must be a text")
        self.ask("hash, by which what is known of a space is kept,", partial(hash, space))
        choices = self.ask("choices", lambda: space.choices)
        good = isinstance(choices, Sequence) and all(isinstance(one, Choice) for one in choices)
        self.require(good, f"its choices are {choices!r}, they must be a tuple of Choice")
        names = [one.name for one in choices]
        twice = next((one for one in names if names.count(one) > 1), None)
        self.require(twice is None, f"two of its choices are called {twice}")
        slashed = next((one for one in names if "/" in one), None)
        self.require(slashed is None, f"its choice {slashed} has a / in its name, which parts names in metrics.csv")

    def record(self) -> None:
        """The way through ``candidate.json``."""
        space, settings = self.space, self.ask("settings()", self.space.settings)
        kind = type(space)
        found = getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind
        self.require(found, f"its class is no name at the top level of {kind.__module__}, by which it is found again")
        try:
            text = json.dumps(space.describe(), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidValue("space", self.name, f"its settings() have what JSON has not ({error})") from error
        try:
            again = space_from_description(json.loads(text))
        except InvalidValue as error:
            why = f"its settings() do not make it again: {error.allowed}"
            raise InvalidValue("space", self.name, why) from error
        same = type(again) is type(space) and json.dumps(again.settings()) == json.dumps(settings)
        self.require(same, f"it is made again from its settings() {settings}, and then they are {again.settings()}")
        why = "it is made again from its settings(), and then it has other choices: settings() must hold what sets them"
        self.require(tuple(again.choices) == tuple(space.choices), why)

    def candidates(self) -> list[Candidate]:
        """Some that have as many of the options as can be."""
        seen: set[tuple[str, str]] = set()
        found: list[Candidate] = []
        for _ in range(DRAWN):
            candidate = self.ask("sample(generator)", lambda: self.space.sample(self.generator))
            good, what = isinstance(candidate, Candidate), f"a {type(candidate).__name__}"
            self.require(good, f"its sample(generator) gives {what}, it must be a Candidate")
            self.in_space(candidate.architecture, "sample(generator)")
            if not found or (len(found) < KEPT and not seen.issuperset(candidate.architecture.items())):
                found.append(candidate)
                seen.update(candidate.architecture.items())
        return found

    def in_space(self, architecture: Any, what: str) -> None:
        good = isinstance(architecture, Architecture)
        self.require(good, f"its {what} gives a {type(architecture).__name__}, it must be an Architecture")
        try:
            architecture.check(self.space.choices)
        except InvalidValue as error:
            why = f"its {what} gives {error.key}={error.value}: {error.allowed}"
            raise InvalidValue("space", self.name, why) from error

    def vectors(self, candidates: Sequence[Candidate]) -> None:
        """``encode``, ``decode`` and ``repair``, which black-box methods take."""
        space, choices = self.space, len(self.space.choices)
        for candidate in candidates:
            vector = self.ask("encode(candidate)", partial(space.encode, candidate))
            want = choices + len(space.ranges)
            self.require(len(vector) == want, f"its encode(candidate) gives {len(vector)} numbers, and it has {want}")
            again = self.ask("decode(vector)", partial(space.decode, vector))
            same = again.architecture == candidate.architecture and _close(
                again.hyperparameters, candidate.hyperparameters
            )
            self.require(same, f"its decode(encode(candidate)) gives {_shown(again)}, and it was {_shown(candidate)}")
            repaired = self.ask("repair(...)", partial(space.repair, list(vector[:choices]), self.generator))
            good = len(repaired) == choices
            self.require(good, f"its repair(...) gives {len(repaired)} numbers, and it has {choices} choices")
            changed = self.ask("decode(vector)", partial(space.decode, [*repaired, *vector[choices:]]))
            self.in_space(changed.architecture, "repair(...)")

    def supernet(self, architectures: Sequence[Architecture]) -> Supernet:
        """The supernet, its alphas and how they are read."""
        space = self.space
        supernet: Supernet = self.ask("supernet(relaxation)", lambda: space.supernet(Softmax(Temperature())))
        good = isinstance(supernet, Supernet)
        self.require(good, f"its supernet(relaxation) gives a {type(supernet).__name__}, it must be a Supernet")
        self.require(getattr(supernet, "space", None) is space, "its supernet must set self.space to the space")
        rows = self.rows(supernet)
        if type(space).preferred is SearchSpace.preferred:
            lacking = ", ".join(one.name for one in space.choices if one.name not in rows)
            self.require(not lacking, f"its supernet has no row of alpha for {lacking}")
        self.in_space(self.ask("supernet's discretise()", supernet.discretise), "supernet's discretise()")
        self.related(rows)
        for architecture in architectures:
            self.weights(supernet, architecture)
        self.forward(supernet, rows)
        self.on_meta(supernet)
        return supernet

    def rows(self, supernet: Supernet) -> dict[str, tuple[str, int]]:
        """By name of a row, its alpha and its place there."""
        rows: dict[str, tuple[str, int]] = {}
        for name, alpha in supernet.alpha.items():
            named = self.ask(f"supernet's alpha_rows({name!r})", partial(supernet.alpha_rows, name))
            shape = tuple(alpha.shape)
            good = len(named) == math.prod(shape[:-1]) and all(len(options) == shape[-1] for _, options in named)
            listed = ", ".join(f"{row} with {len(options)} options" for row, options in named)
            self.require(
                good, f"its alpha {name!r} has shape {shape}, and alpha_rows({name!r}) names {listed or 'none'}"
            )
            for place, (row, _) in enumerate(named):
                self.require(row not in rows, f"two rows of its alphas are called {row}")
                rows[row] = name, place
        return rows

    def related(self, rows: Mapping[str, tuple[str, int]]) -> None:
        """What choices and rows of alpha have to do with each other."""
        options = {one.name: one.options for one in self.space.choices}
        for choice, (other, option) in self.ask("conditions()", self.space.conditions).items():
            good = choice in options and option in options.get(other, ())
            self.require(good, f"its conditions() have {choice}, where {other} is {option}, and it has no such choices")
        lacking = [row for one in self.ask("rivals()", self.space.rivals) for row in one.rows if row not in rows]
        self.require(not lacking, f"its rivals() have {', '.join(lacking)}, and its supernet has no such rows of alpha")

    def weights(self, supernet: Supernet, architecture: Architecture) -> None:
        """``architecture_weights``, which alpha's own way of being read must turn back into ``architecture``."""
        what = "architecture_weights(architecture)"
        weights = self.ask(what, partial(supernet.architecture_weights, architecture))
        for name, alpha in supernet.alpha.items():
            found = tuple(weights[name].shape) if name in weights else "nothing"
            why = f"its {what} has {found} for the alpha {name!r}, it must be weights of shape {tuple(alpha.shape)}"
            self.require(found == tuple(alpha.shape), why)
        weights = {name: weights[name] for name in supernet.alpha}
        read = self.ask("preferred(probabilities)", partial(self.space.preferred, supernet.by_row(weights)))
        again = self.ask(what, partial(supernet.architecture_weights, read))
        # The same architecture may be written in several ways, and leave rows out.
        same = self.chosen(supernet, weights) <= self.chosen(supernet, again)
        why = f"its {what} are those of {_differing(read, architecture)}, as alpha_rows and preferred read them"
        self.require(same, why)

    def chosen(self, supernet: Supernet, weights: Mapping[str, Tensor]) -> set[tuple[str, str]]:
        """The options that have weights, with their rows."""
        rows = supernet.by_row({name: weights[name] for name in supernet.alpha}).items()
        never = self.space.never_chosen
        return {
            (row, option) for row, values in rows for option, value in values.items() if value and option not in never
        }

    def forward(self, supernet: Supernet, rows: Mapping[str, tuple[str, int]]) -> None:
        """Outputs of the right shape, which every row of the weights has a part in."""
        inputs = _inputs(self.space.signature, self.generator)
        before, options = inputs.clone(), dict(_labels(supernet))
        weights = {
            name: torch.randn(alpha.shape, generator=self.generator).softmax(-1).requires_grad_()
            for name, alpha in supernet.alpha.items()
        }
        supernet.train()
        outputs = self.outputs("supernet(x, weights)", lambda: supernet(inputs, weights))
        self.require(torch.equal(before, inputs), "its supernet changes its inputs in place")
        supernet.eval()
        self.outputs("supernet(x)", lambda: supernet(inputs))
        self.require(outputs.requires_grad, "the outputs of its supernet have no gradient")
        direction = torch.randn(outputs.shape, generator=self.generator)
        slopes = torch.autograd.grad((outputs * direction).sum(), list(weights.values()), allow_unused=True)
        of_alpha = dict(zip(weights, slopes, strict=True))
        for row, (name, place) in rows.items():
            slope = of_alpha[name]
            self.require(slope is not None, f"its supernet(x, weights) does not use weights[{name!r}]")
            assert slope is not None
            acts = len(options[row]) == 1 or bool(slope.reshape(-1, slope.shape[-1])[place].any())
            self.require(acts, f"no layer of its supernet uses the weights of {row}, row {place} of weights[{name!r}]")

    def outputs(self, what: str, compute: Any) -> Tensor:
        found: Tensor = self.ask(what, compute)
        want = _output_shape(self.space.signature)
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        one = self.space.signature
        why = f"its {what} gives {shape} for {TRIED} inputs, it must be {want}: {one.outputs} numbers per prediction"
        self.require(shape == want, why)
        self.require(bool(found.isfinite().all()) if not found.is_meta else True, f"its {what} is not finite")
        return found

    def on_meta(self, supernet: Supernet) -> None:
        """The supernet without numbers, whose multiply-adds are counted: so does what is on another device."""
        plain = copy.copy(self.space)
        if hasattr(plain, "implementation"):  # fast kernels have no shapes alone
            plain.implementation = "plain"
        inputs = _inputs(self.space.signature, self.generator).to("meta")

        def counted() -> Any:
            with torch.device("meta"):
                again = plain.supernet(Softmax(Temperature()))
            alphas = {name: alpha.detach() for name, alpha in again.alpha.items()}
            return again.eval()(inputs, alphas)

        self.outputs("supernet, made and called on another device (meta, where shapes are enough to count),", counted)

    def networks(self, architectures: Sequence[Architecture]) -> None:
        """The stand-alone networks, and the architecture in words."""
        space, inputs = self.space, _inputs(self.space.signature, self.generator)
        for architecture in architectures:
            place = f"network(architecture) of {_options(architecture)}"
            with torch.device("meta"):
                network = self.ask(place, partial(space.network, architecture))
            good = isinstance(network, nn.Module)
            self.require(good, f"its {place} is a {type(network).__name__}, it must be a module")
            self.outputs(place, lambda network=network: network.eval()(inputs.to("meta")))
            self.cost(architecture, network)
            words = self.ask("layer_descriptions(architecture)", partial(space.layer_descriptions, architecture))
            good = all(len(one) == len(LayerDescription._fields) for one in words)
            good = good and all(isinstance(text, str) for one in words for text in one)
            self.require(good, "its layer_descriptions(architecture) must be LayerDescriptions, of three texts each")
            self.ask("doubts(architecture)", partial(space.doubts, architecture))
        first, second = self.drawn(architectures[0]), self.drawn(architectures[0])
        shared = {id(one) for one in first.parameters()} & {id(one) for one in second.parameters()}
        self.require(not shared, "its network(architecture) gives the same weights twice, they must be fresh ones")
        pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        same = all(torch.equal(one, other) for one, other in pairs)
        why = "its network(architecture) has other weights at the same seed: torch's own generator must draw them"
        self.require(same, why)

    def drawn(self, architecture: Architecture) -> nn.Module:
        torch.default_generator.manual_seed(1)
        network: nn.Module = self.ask("network(architecture)", partial(self.space.network, architecture))
        return network

    def cost(self, architecture: Architecture, network: nn.Module) -> None:
        """``expected_cost``, which at an architecture's own weights is the cost of its network."""

        def parameters(key: str, make: Callable[[], nn.Module], shape: object) -> float:
            if key not in self.known:
                with torch.device("meta"):
                    self.known[key] = _parameters(make())
            return self.known[key]

        compute = partial(self.space.expected_cost, self.space.architecture_weights(architecture), parameters)
        expected = self.ask("expected_cost(weights, cost)", _unless_lacking(compute))
        own = _parameters(network)
        good = expected is None or math.isclose(float(expected), own, rel_tol=CLOSE)  # None: a cost asks for it again
        counted = f"{float(expected or 0):,.0f} parameters, and its network has {own:,.0f}"
        self.require(good, f"its expected_cost at architecture_weights of {_options(architecture)} counts {counted}")

    def inheritance(self, supernet: Supernet, architecture: Architecture) -> None:
        """Tell where supernet and network compute different outputs with the same weights."""
        what = "supernet's inherited_state(architecture)"
        state = self.ask(what, _unless_lacking(lambda: supernet.inherited_state(architecture)))
        if state is None:  # the network is larger than the supernet, say
            return
        network, inputs = self.drawn(architecture).eval(), _inputs(self.space.signature, self.generator)
        self.ask(f"network, which is given the {what},", partial(network.load_state_dict, state))
        with torch.no_grad():
            one, again = network(inputs), network(inputs)
            mixed = supernet.eval()(inputs, supernet.architecture_weights(architecture))
        apart = float((mixed - one).abs().max() / one.abs().max().clamp_min(1e-12))
        if apart > CLOSE and torch.equal(one, again):  # it may be meant, as where only the supernet has batch norms
            log.info(
                f"space={self.name}: its supernet at architecture_weights of {_options(architecture)} and its network "
                f"with equal weights give outputs {apart:.2g} of the largest apart: a mistake unless it is meant"
            )


def _unless_lacking(compute: Callable[[], Answer]) -> Callable[[], Answer | None]:
    """``compute``, None where the space says that it has no such thing."""

    def computed() -> Answer | None:
        try:
            return compute()
        except (NotImplementedError, InvalidValue):
            return None

    return computed


def _parameters(network: nn.Module) -> float:
    """How many it has, without those of an auxiliary head."""
    head = getattr(network, "auxiliary_head", None)
    whole = sum(one.numel() for one in network.parameters())
    return float(whole - sum(one.numel() for one in head.parameters()) if isinstance(head, nn.Module) else whole)


def _labels(supernet: Supernet) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in supernet.alpha:
        yield from supernet.alpha_rows(name)


def _inputs(signature: Signature, generator: torch.Generator) -> Tensor:
    """Random ones, (batch, *input_shape): numbers, codes of categories, tokens."""
    example = signature.example(TRIED)
    sizes = signature.categories
    if signature.is_tokens:
        return torch.randint(min(PADDING + 1, sizes[0] - 1), sizes[0], example.shape, generator=generator)
    inputs = torch.randn(example.shape, generator=generator)
    for column, size in enumerate(sizes, start=signature.input_shape[0] - len(sizes)):
        inputs[:, column] = torch.randint(size, (TRIED,), generator=generator).to(inputs.dtype)
    return inputs


def _output_shape(signature: Signature) -> tuple[int, ...]:
    places = signature.input_shape[1:] if signature.head == "dense" else ()
    length = signature.input_shape if signature.head == "sequence" else ()
    return (TRIED, *length, signature.outputs, *places)


def _close(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return set(one) == set(other) and all(math.isclose(one[name], other[name], rel_tol=1e-6) for name in one)


def _shown(candidate: Candidate) -> str:
    return f"{_options(candidate.architecture)}, {dict(candidate.hyperparameters)}"


def _options(architecture: Architecture) -> str:
    return ", ".join(f"{choice} {option}" for choice, option in list(architecture.items())[:4])


def _differing(read: Any, architecture: Architecture) -> str:
    """The first option of ``read`` that ``architecture`` has not, in words."""
    for choice, option in architecture.items():
        if read.get(choice) != option:
            return f"{choice} {read.get(choice)} where it is {option}"
    return "another space"
