"""NAS-Bench-201: stand-alone networks and the parameter counts of cells."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from nas.errors import UnusableInput
from nas.interop.original_state import load_original
from nas.signature import Signature
from nas.spaces.nasbench201.choices import parse_architecture
from nas.spaces.nasbench201.space import NasBench201
from replays.reference import (
    FORWARD,
    LARGEST_CLASSES,
    LARGEST_DEPTH,
    LARGEST_WIDTH,
    ArrayFile,
    Comparison,
    Configuration,
    compared,
    counted,
    parameters_of,
)


def replay_nasbench201_evaluation(file: ArrayFile) -> Iterator[Comparison]:
    """The logits of a NAS-Bench-201 network in evaluation mode."""
    configuration = Configuration(file.json("config"))
    images = file.tensor("x", dimensions=4)
    space = NasBench201(
        channels=configuration.whole("C", LARGEST_WIDTH),
        cells_per_stage=configuration.whole("N", LARGEST_DEPTH),
        signature=Signature(images.shape[1:], configuration.whole("classes", LARGEST_CLASSES)),
    )
    network = space.network(parse_architecture(file.text("arch"))).double()
    load_original(network, file.state("state/"))
    with torch.no_grad():
        logits = network.eval()(images.double())
    yield compared("eval_logits", logits, file.tensor("eval_logits"), FORWARD)


def replay_nasbench201_parameters(entries: list[Any]) -> Iterator[Comparison]:
    """The parameter counts of NAS-Bench-201 cells."""
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise UnusableInput("one of its entries is no object.")
        values = Configuration(entry)
        architecture = parse_architecture(entry.get("arch"))
        space = NasBench201(
            channels=values.whole("channels", LARGEST_WIDTH),
            cells_per_stage=values.whole("cells_per_stage", LARGEST_DEPTH),
            signature=Signature((3, 32, 32), values.whole("classes", LARGEST_CLASSES)),
        )
        found = parameters_of(lambda s=space, a=architecture: s.network(a))  # type: ignore[misc]
        yield counted(f"{entry['arch']}/parameters", found, entry.get("parameters"))
