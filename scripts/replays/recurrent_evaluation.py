"""quark0/darts, recurrent stand-alone networks: passes, averaged SGD, when it begins, parameter counts."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import UnusableInput
from nas.spaces.recurrent.genotype import RecurrentGenotype
from nas.spaces.recurrent.network import Cell, RecurrentCell, RecurrentNetwork
from nas.spaces.recurrent.supernet import SearchCell
from nas.training.averaging import AveragedWeights, NonMonotone
from nas.training.sgd import set_step, take_step
from replays.recurrent_original import (
    masks_of,
    original_names,
    rows,
    terms,
    time_first,
    token_loss,
    tokens_of,
)
from replays.reference import (
    FORWARD,
    LARGEST_CLASSES,
    LARGEST_STEPS,
    LARGEST_WIDTH,
    ArrayFile,
    Comparison,
    Configuration,
    compared,
    compared_equal,
    counted,
    parameters_of,
)

# The full sizes of the original: tokens and width of the stand-alone networks, width of the search network.
CORPORA = {"penn_treebank": (10_000, 850, 300), "wikitext2": (33_278, 700, 300)}
SEARCH_NODES = 8
COUNTED = re.compile(rf"(\w+)/({'|'.join(CORPORA)})")


@contextmanager
def numbers_in_double() -> Iterator[None]:
    """A context in which torch's averaged SGD keeps its learning rate in float64, as all else here is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class EvaluationReplay:
    """Stand-alone networks of several genotypes."""

    def __init__(self, file: ArrayFile) -> None:
        self.file, self.configuration = file, Configuration(file.json("config"))
        self.vocabulary = self.configuration.whole("ntoken", LARGEST_CLASSES)
        self.width = self.configuration.whole("nhid", LARGEST_WIDTH)
        self.length = self.configuration.whole("sequence", LARGEST_STEPS)
        self.tokens = tokens_of(file, "tokens", self.vocabulary)
        self.hidden = file.tensor("hidden", 3)[0]
        genotypes = self._group("genotypes")
        self.genotypes = {str(name): RecurrentGenotype.from_mapping(one) for name, one in genotypes.items()}

    def _group(self, name: str) -> Mapping[str, Any]:
        found = self.configuration.values.get(name)
        if not isinstance(found, Mapping):
            raise UnusableInput(f"its configuration has {name}={found!r} instead of an object.")
        return found

    def network(self, name: str) -> tuple[RecurrentNetwork, dict[str, str]]:
        """The network of the genotype ``name`` with its weights, and their names here and there."""
        genotype = self.genotypes[name]
        network = RecurrentNetwork(self.vocabulary, self.width, Cell(genotype, self.width)).double()
        names = original_names(len(genotype.recurrent))
        state = {ours: self.file.tensor(f"{name}/state/{theirs}") for ours, theirs in names.items()}
        network.load_state_dict(state)
        return network, names

    def compare(self) -> Iterator[Comparison]:
        for name in self.genotypes:
            if self.file.has(f"{name}/state/encoder.weight"):
                yield from self._passes(name)
        yield from self._training()
        yield from self._switches()
        yield from self._counts()

    def compared(self, entry: str, ours: Tensor) -> Comparison:
        return compared(entry, ours, self.file.tensor(entry), FORWARD)

    def _passes(self, name: str) -> Iterator[Comparison]:
        network, names = self.network(name)
        inputs, targets = rows(self.tokens, 0, self.length)
        found = network.eval().recall(inputs, self.hidden)
        loss = token_loss(found, targets)
        yield self.compared(f"{name}/eval_log_probabilities", time_first(found.logits.log_softmax(-1)))
        yield self.compared(f"{name}/eval_hidden_after", found.state[None])
        yield self.compared(f"{name}/eval_loss", loss)
        yield from self._gradients(f"{name}/grad/", network, names, loss)
        network.train().noise.given = masks_of(self.file, f"{name}/dropout/mask/")
        found = network.recall(inputs, self.hidden)
        loss, (ar, tar) = token_loss(found, targets), terms(found)
        whole = loss + 2 * ar + 1 * tar
        ours = {"raw_loss": loss, "ar_mean_square": ar, "tar_mean_square": tar, "loss_ar2_tar1": whole}
        ours["log_probabilities"] = time_first(found.logits.log_softmax(-1))
        for entry, tensor in ours.items():
            yield self.compared(f"{name}/dropout/{entry}", tensor)
        yield from self._gradients(f"{name}/dropout/grad/", network, names, whole)

    def _gradients(
        self, prefix: str, network: nn.Module, names: Mapping[str, str], loss: Tensor
    ) -> Iterator[Comparison]:
        gradients = torch.autograd.grad(loss, [network.get_parameter(ours) for ours in names])
        for theirs, gradient in zip(names.values(), gradients, strict=True):
            yield self.compared(f"{prefix}{theirs}", gradient)

    def _training(self) -> Iterator[Comparison]:
        """SGD, then averaged SGD; the learning rate follows the length of each batch."""
        settings = Configuration(self._group("training"))
        lengths, starts = settings.values.get("lengths"), settings.values.get("starts")
        good = isinstance(lengths, list) and isinstance(starts, list) and len(lengths) == len(starts)
        if not good or not all(type(one) is int and one >= 0 for one in (*lengths, *starts)):
            raise UnusableInput("its training has no lengths and starts of its batches.")
        network, names = self.network(str(settings.values.get("genotype")))
        weights = [network.get_parameter(name) for name in names]
        trained = AveragedWeights(torch.optim.SGD(weights, lr=0.0))
        state, losses = network.initial_state(self.tokens.shape[1]), []
        first = settings.values.get("asgd_from_step")
        for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            if number == first:
                trained.begin()
            inputs, targets = rows(self.tokens, start, length)
            found = network.train().recall(inputs, state)
            raw, (_, tar) = token_loss(found, targets), terms(found)
            gradients = torch.autograd.grad(raw + settings.number("beta") * tar, weights)
            rate = settings.number("lr") * length / settings.whole("bptt", LARGEST_STEPS)
            set_step(trained.optimiser, {"learning_rate": rate, "weight_decay": settings.number("wdecay")})
            with numbers_in_double():
                take_step(trained.optimiser, weights, list(gradients), settings.number("clip"))
            state = found.state.detach()
            losses.append(raw.detach())
        yield self.compared("training/raw_losses", torch.stack(losses))
        for ours, theirs in names.items():
            yield self.compared(f"training/state_after/{theirs}", network.get_parameter(ours))
        yield self.compared("training/state_after/decoder.weight", network.embedding)
        with trained.in_place():
            for ours, theirs in names.items():
                yield self.compared(f"training/average_after/{theirs}", network.get_parameter(ours))

    def _switches(self) -> Iterator[Comparison]:
        """After which epoch averaging begins."""
        losses, references = (
            self.file.tensor("asgd/validation_losses", 2),
            self.file.tensor("asgd/switch_after_epoch", 1),
        )
        patience = self.configuration.whole("nonmono", LARGEST_STEPS)
        for number, (row, reference) in enumerate(zip(losses.tolist(), references.tolist(), strict=True)):
            watch = NonMonotone(patience)
            said = [epoch for epoch, loss in enumerate(row) if watch.has_stopped_falling(loss)]
            yield compared_equal(f"asgd/switch_after_epoch {number}", said[0] if said else -1, reference)

    def _counts(self) -> Iterator[Comparison]:
        for entry, count in self._group("parameters").items():
            match = COUNTED.fullmatch(str(entry))
            if match is None or match[1] not in (*self.genotypes, "search"):
                raise UnusableInput(f"its entry parameters.{entry} names no known network.")
            vocabulary, width, of_search = CORPORA[match[2]]
            genotype = self.genotypes.get(match[1])
            width = of_search if genotype is None else width

            def made(genotype: RecurrentGenotype | None = genotype, v: int = vocabulary, w: int = width) -> nn.Module:
                searched = SearchCell(w, SEARCH_NODES, tuple(range(1, SEARCH_NODES + 1)))
                cell: RecurrentCell = searched if genotype is None else Cell(genotype, w)
                return RecurrentNetwork(v, w, cell)

            yield counted(f"parameters/{entry}", parameters_of(made), count)


def replay_recurrent_evaluation(file: ArrayFile) -> Iterator[Comparison]:
    """Networks of genotypes in both modes, training with averaged SGD, and what is counted and decided beside."""
    yield from EvaluationReplay(file).compare()
