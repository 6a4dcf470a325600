"""quark0/darts, the recurrent search: passes, gradients, the published second order with its errors, whole steps."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from nas.errors import UnusableInput
from nas.operations.locked_dropout import Masks
from nas.relaxations.relaxation import Temperature
from nas.relaxations.softmax import Softmax
from nas.signature import Signature
from nas.spaces.recurrent.genotype import OPERATIONS, RecurrentGenotype
from nas.spaces.recurrent.space import Recurrent
from nas.spaces.recurrent.supernet import RecurrentSupernet, SearchCell
from nas.spaces.supernet import Implementation
from nas.training.sgd import global_norm
from replays.recurrent_original import (
    EMBEDDING,
    NORM,
    OriginalOrder,
    PublishedSecondOrder,
    Recalled,
    masks_of,
    original_names,
    recall_at,
    rows,
    terms,
    time_first,
    token_loss,
    tokens_of,
)
from replays.reference import (
    FORWARD,
    LARGEST_CLASSES,
    LARGEST_DEPTH,
    LARGEST_STEPS,
    LARGEST_WIDTH,
    ArrayFile,
    Comparison,
    Configuration,
    compared,
    compared_equal,
)

Order = Literal["original", "plain", "fast"]
STEPS = ("steps_first", "steps_second")
ROUNDING = 2.0**-52  # relative
ALLOWANCE = 10  # times what one rounding error of the first weights makes in the last


class RecurrentReplay:
    """A search, step by step as the original does it, with one implementation of the supernet."""

    def __init__(self, file: ArrayFile, order: Order) -> None:
        self.file, self.configuration, self.order = file, Configuration(file.json("config")), order
        whole, number = self.configuration.whole, self.configuration.number
        self.vocabulary, self.width = whole("ntoken", LARGEST_CLASSES), whole("nhid", LARGEST_WIDTH)
        self.bptt, self.nodes = whole("bptt", LARGEST_STEPS), whole("steps", LARGEST_DEPTH)
        if self.configuration.values.get("primitives") != list(OPERATIONS):
            raise UnusableInput(f"its primitives are not {', '.join(OPERATIONS)}.")
        if whole("emsize", LARGEST_WIDTH) != self.width:
            raise UnusableInput("its embedding has another width than its states.")
        self.rate, self.clip, self.decay = number("lr"), number("clip"), number("wdecay")
        self.tokens = {part: tokens_of(file, f"{part}_tokens", self.vocabulary) for part in ("train", "valid")}
        self.initial = file.tensor("hidden_random", 3)[0]
        signature = Signature((self.bptt,), self.vocabulary, "sequence", (self.vocabulary,))
        implementation: Implementation = "fast" if order == "fast" else "plain"
        self.space = Recurrent(self.width, nodes=self.nodes, implementation=implementation, signature=signature)
        self.names = {f"network.{ours}": theirs for ours, theirs in original_names(self.nodes).items()}

    def supernet(self) -> RecurrentSupernet:
        """The search network at its start."""
        supernet = self.space.supernet(Softmax(Temperature())).double()
        if self.order == "original":
            supernet.network.cell = OriginalOrder(self.width, self.nodes, self.space.concat).double()
        state = {ours: self.file.tensor(f"init/{theirs}") for ours, theirs in self.names.items()}
        state |= {f"network.cell.norm.{ours}": self.file.tensor(f"init/{theirs}") for ours, theirs in NORM.items()}
        supernet.load_state_dict({**state, "alpha.recurrent": self.file.tensor("init/alphas", 2)})
        return supernet

    def compared(self, entry: str, ours: Tensor) -> Comparison:
        return compared(f"{self.order}: {entry}", ours, self.file.tensor(entry), FORWARD)

    def compare(self) -> Iterator[Comparison]:
        """Every quantity in the file, the cheap ones first."""
        yield from self._passes()
        yield from self._with_dropout()
        yield from self._first_order()
        yield from self._second_orders()
        yield from self._genotypes()
        yield from self.compare_whole_steps()

    # Single passes, all from the state ``hidden_random``.

    def _passes(self) -> Iterator[Comparison]:
        supernet = self.supernet()
        inputs, targets = rows(self.tokens["train"], 0, self.bptt)
        cell = supernet.network.cell
        assert isinstance(cell, SearchCell)
        with torch.no_grad():
            first = supernet.network.embedding[inputs[:, 0]]
            before = {name: buffer.clone() for name, buffer in cell.norm.named_buffers()}
            states = cell.states(first, self.initial, Masks(), supernet.operation_weights()["recurrent"])
            cell.norm.load_state_dict(before)
        yield self.compared("cell/states", torch.stack(states))
        found = supernet.recall(inputs, self.initial)
        loss, (ar, tar) = token_loss(found, targets), terms(found)
        yield self.compared("cell/output", found.hidden[:, 0])
        yield self.compared("train/log_probabilities", time_first(found.logits.log_softmax(-1)))
        yield self.compared("train/hiddens", time_first(found.hidden))
        yield self.compared("train/hidden_after", found.state[None])
        yield self.compared("train/loss", loss)
        yield self.compared("train/ar_mean_square", ar)
        yield self.compared("train/tar_mean_square", tar)
        yield from self._gradients("train/grad/", supernet, loss)
        yield from self._gradients("train/grad_with_ar2_tar1e-3/", supernet, loss + 2 * ar + 1e-3 * tar)
        prefix = "eval_after_one_train_forward/"
        for name, buffer in cell.norm.named_buffers():
            yield self.compared(f"{prefix}{name}", buffer)
        with torch.no_grad():
            found = supernet.eval().recall(inputs, self.initial)
        yield self.compared(f"{prefix}log_probabilities", time_first(found.logits.log_softmax(-1)))
        yield self.compared(f"{prefix}hidden_after", found.state[None])

    def _gradients(self, prefix: str, supernet: RecurrentSupernet, loss: Tensor) -> Iterator[Comparison]:
        parameters = {theirs: supernet.get_parameter(ours) for ours, theirs in self.names.items()}
        parameters["alphas"] = supernet.alpha["recurrent"]
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            yield self.compared(f"{prefix}{name}", gradient)

    def _with_dropout(self) -> Iterator[Comparison]:
        supernet = self.supernet()
        supernet.network.noise.given = masks_of(self.file, "dropout/mask/")
        inputs, targets = rows(self.tokens["train"], 0, self.bptt)
        found = supernet.recall(inputs, self.initial)
        loss = token_loss(found, targets)
        yield self.compared("dropout/log_probabilities", time_first(found.logits.log_softmax(-1)))
        yield self.compared("dropout/loss", loss)
        yield self.compared("dropout/hiddens", time_first(found.hidden))
        yield self.compared("dropout/dropped_hiddens", time_first(found.dropped))
        yield from self._gradients("dropout/grad/", supernet, loss)

    # Architecture gradients.

    def _first_order(self) -> Iterator[Comparison]:
        supernet = self.supernet()
        inputs, targets = rows(self.tokens["valid"], 0, self.bptt)
        loss = token_loss(supernet.recall(inputs, self.initial), targets)
        yield self.compared("first/grad_alphas", torch.autograd.grad(loss, supernet.alpha["recurrent"])[0])

    def _second_orders(self) -> Iterator[Comparison]:
        kinds = sorted({name.split("/")[0] for name in self.file.arrays if name.endswith("/grad_alphas")} - {"first"})
        for kind in kinds:
            clip = float(kind.rpartition("clip")[2]) if kind.rpartition("_clip")[2].isdigit() else self.clip
            for rate in sorted({name.split("/")[1] for name in self.file.arrays if name.startswith(f"{kind}/lr")}):
                entries, value = f"{kind}/{rate}/", float(rate.removeprefix("lr"))
                family = kind.removesuffix(f"_clip{clip:g}")
                if family.startswith("second_"):
                    yield from self._published(entries, value, clip, family == "second_embedding_stepped")
                else:
                    yield from self._exact(entries, value, clip, family)

    def _published(self, entries: str, rate: float, clip: float, embedding: bool) -> Iterator[Comparison]:
        train, valid = rows(self.tokens["train"], 0, self.bptt), rows(self.tokens["valid"], 0, self.bptt)
        scales = {"grad_alphas": self.configuration.number("finite_difference"), "grad_alphas_r1e-5": 1e-5}
        for entry, scale in scales.items():
            if not self.file.has(f"{entries}{entry}"):
                continue
            published = PublishedSecondOrder(self.supernet(), clip, self.decay, scale, embedding)
            gradient = published.gradient(train, valid, self.initial, self.initial, rate)
            yield self.compared(f"{entries}{entry}", gradient)
            if entry == "grad_alphas":
                yield self.compared(f"{entries}clip_coefficient", published.coefficient)
                for ours, theirs in self.names.items():
                    if self.file.has(f"{entries}unrolled/{theirs}"):
                        yield self.compared(f"{entries}unrolled/{theirs}", published.after[ours])

    def _exact(self, entries: str, rate: float, clip: float, family: str) -> Iterator[Comparison]:
        """By double backward; the original has no such thing."""
        supernet = self.supernet()
        alpha, recalled = supernet.alpha["recurrent"], Recalled(supernet)
        weights = supernet.named_weight_parameters()
        inputs, targets = rows(self.tokens["train"], 0, self.bptt)
        loss = token_loss(supernet.recall(inputs, self.initial), targets)
        found = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        gradients = dict(zip(weights, found, strict=True))
        coefficient = (clip / (global_norm(gradients) + 1e-6)).clamp(max=1.0)
        if family != "exact_through_clip":
            coefficient = coefficient.detach()
        after = {
            name: weight.detach() - rate * (coefficient * gradients[name] + self.decay * weight.detach())
            for name, weight in weights.items()
        }
        inputs, targets = rows(self.tokens["valid"], 0, self.bptt)
        validation = token_loss(recall_at(recalled, after, inputs, self.initial), targets)
        total, *found = torch.autograd.grad(validation, [alpha, *after.values()], retain_graph=True)
        slopes = dict(zip(weights, found, strict=True))
        (mixed,) = torch.autograd.grad(list(gradients.values()), alpha, list(slopes.values()), retain_graph=True)
        of_slopes = (clip / (global_norm(slopes) + 1e-6)).clamp(max=1.0)
        direct = total + rate * coefficient * mixed
        if family == "exact_clipped_v":
            total = direct - rate * coefficient * of_slopes * mixed
        ours = {
            "grad_alphas": total,
            "val_loss_after": validation,
            "direct": direct,
            "mixed_second_derivative_times_v": mixed,
            "clip_of_v": of_slopes,
            "clip_coefficient": coefficient,
        }
        for name, tensor in ours.items():
            if self.file.has(f"{entries}{name}"):
                yield self.compared(f"{entries}{name}", tensor)

    # Whole steps.

    def compare_whole_steps(self) -> Iterator[Comparison]:
        """Whole steps magnify rounding errors, so that another order of summation gets an allowance for that."""
        original = RecurrentReplay(self.file, "original")
        for entries in (*STEPS, "steps_dropout"):
            steps, ours = self._after(entries)
            nudged = {} if self.order == "original" else original._after(entries, ROUNDING)[1]
            for name, tensor in ours.items():
                reference, tolerance = self.file.tensor(f"{entries}/{name}"), FORWARD
                if name in nudged:
                    spread = compared("", nudged[name], reference, FORWARD).error
                    tolerance = max(FORWARD, ALLOWANCE * spread)
                yield compared(f"{self.order}: {entries}/{name}", tensor, reference, tolerance)
            if entries in STEPS:
                reference_steps = self._steps(self.file.json(f"{entries}/genotype_after"))
                found = self._found(steps.supernet)
                yield compared_equal(f"{self.order}: {entries}/genotype_after", found, reference_steps)

    def _after(self, entries: str, nudge: float = 0.0) -> tuple["WholeSteps", dict[str, Tensor]]:
        """The steps of ``entries``, and every quantity after them.

        Args:
            nudge: The relative size of a random change of the first weights.
        """
        steps = WholeSteps(self, self.configuration.number("finite_difference") if entries == STEPS[1] else None, nudge)
        if entries in STEPS:
            found = {}
            for number, length in enumerate(self._lengths(), start=1):
                steps.take(length)
                found[f"alphas_after_{number}"] = steps.alpha.detach().clone()
            found |= {name: torch.stack(values) for name, values in steps.record.items()}
            found |= {"hidden_after": steps.hidden[None], "hidden_valid_after": steps.hidden_valid[None]}
        else:
            numbers = {name.split("/")[1] for name in self.file.arrays if name.startswith(f"{entries}/mask_")}
            for number in range(len(numbers)):
                prefix = f"{entries}/mask_{number}/"
                steps.take(self.bptt, masks_of(self.file, f"{prefix}valid/"), masks_of(self.file, f"{prefix}train/"))
            found = {"raw_losses": torch.stack(steps.record["raw_losses"]), "alphas_after": steps.alpha}
        state = steps.supernet.state_dict()
        found |= {f"state_after/{theirs}": state[ours] for ours, theirs in self.names.items()}
        found |= {f"state_after/{theirs}": state[f"network.cell.norm.{ours}"] for ours, theirs in NORM.items()}
        known = {**found, "state_after/decoder.weight": state[EMBEDDING]}
        return steps, {name: tensor for name, tensor in known.items() if self.file.has(f"{entries}/{name}")}

    def _lengths(self) -> list[int]:
        lengths = self.configuration.values.get("seq_lens")
        if not isinstance(lengths, list) or not all(type(one) is int and 0 < one <= self.bptt for one in lengths):
            raise UnusableInput(f"its configuration has seq_lens={lengths!r}, no lengths of at most {self.bptt}.")
        return lengths

    # Discretisation.

    def _genotypes(self) -> Iterator[Comparison]:
        alphas, references = self.file.tensor("genotype/alphas", 3), self.file.json("genotype/recurrent")
        supernet = self.supernet()
        if not isinstance(references, list) or len(references) != len(alphas):
            raise UnusableInput("its genotypes are not as many as its alphas.")
        for number, (alpha, reference) in enumerate(zip(alphas, references, strict=True)):
            with torch.no_grad():
                supernet.alpha["recurrent"].copy_(alpha)
            name = f"{self.order}: genotype/recurrent {number}"
            yield compared_equal(name, self._found(supernet), self._steps(reference))

    def _found(self, supernet: RecurrentSupernet) -> RecurrentGenotype | None:
        try:
            return self.space.genotype(supernet.discretise())
        except FloatingPointError:  # an alpha that is not finite, already told as past its tolerance
            return None

    def _steps(self, steps: object) -> RecurrentGenotype:
        return RecurrentGenotype(steps, self.space.concat)  # type: ignore[arg-type] - it checks what it is given


class WholeSteps:
    """Steps of either level, the architecture's first; both states begin empty, and are carried on.

    The original's validation passes move the running averages, and have dropout, as training passes do.

    Args:
        scale: That of the finite difference; None takes the first-order gradient.
        nudge: The relative size of a random change of the first weights.
    """

    def __init__(self, replay: RecurrentReplay, scale: float | None, nudge: float) -> None:
        self.replay, self.scale, self.beta = replay, scale, replay.configuration.number("beta")
        self.supernet = replay.supernet()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in self.supernet.weight_parameters() if nudge else ():
                weight.mul_(1 + nudge * torch.randint(-1, 2, weight.shape, generator=generator).double())
        self.alpha, self.place = self.supernet.alpha["recurrent"], 0
        self.hidden = self.hidden_valid = torch.zeros_like(replay.initial)
        first, second = replay.configuration.shares("arch_betas", 2)
        number = replay.configuration.number
        self.architecture = torch.optim.Adam(
            [self.alpha], lr=number("arch_lr"), betas=(first, second), weight_decay=number("arch_wdecay")
        )
        weights = [self.supernet.get_parameter(name) for name in replay.names]
        self.optimiser = torch.optim.SGD(weights, lr=replay.rate, weight_decay=replay.decay)
        self.record: dict[str, list[Tensor]] = {"raw_losses": [], "losses": [], "gradient_norms": []}

    def take(self, length: int, of_valid: Masks | None = None, of_train: Masks | None = None) -> None:
        replay, noise = self.replay, self.supernet.network.noise
        train, rate = rows(replay.tokens["train"], self.place, length), replay.rate * length / replay.bptt
        place = self.place % (len(replay.tokens["valid"]) - 1)
        valid = rows(replay.tokens["valid"], place, replay.bptt)
        noise.given = of_valid
        if self.scale is None:
            found = self.supernet.recall(valid[0], self.hidden_valid)
            (self.alpha.grad,) = torch.autograd.grad(token_loss(found, valid[1]), self.alpha)
            self.hidden_valid = found.state.detach()
        else:
            published = PublishedSecondOrder(self.supernet, replay.clip, replay.decay, self.scale)
            self.alpha.grad = published.gradient(train, valid, self.hidden, self.hidden_valid, rate)
            self.hidden_valid = published.state_after
        self.architecture.step()
        noise.given = of_train
        found = self.supernet.recall(train[0], self.hidden)
        raw, (_, tar) = token_loss(found, train[1]), terms(found)
        loss = raw + self.beta * tar
        weights = self.optimiser.param_groups[0]["params"]
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        norm = nn.utils.clip_grad_norm_(weights, replay.clip)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        self.hidden, self.place = found.state.detach(), self.place + length
        for name, value in {"raw_losses": raw, "losses": loss, "gradient_norms": norm}.items():
            self.record[name].append(value.detach())


def replay_recurrent_search(file: ArrayFile) -> Iterator[Comparison]:
    """Everything in a file of the search with the plain and with the fast supernet; whole steps in its order, too."""
    yield from RecurrentReplay(file, "original").compare_whole_steps()
    yield from RecurrentReplay(file, "plain").compare()
    yield from RecurrentReplay(file, "fast").compare()
