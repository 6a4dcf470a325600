"""The DARTS supernet whose packed weights, alphas and sizes are in a file of a one-shot method."""

from collections.abc import Callable, Sequence
from typing import Any

from nas.errors import UnusableInput
from nas.interop.original_state import load_original, to_original
from nas.relaxations.relaxation import Relaxation
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.darts.supernet import DartsSupernet
from replays.reference import LARGEST_CLASSES, LARGEST_DEPTH, LARGEST_WIDTH, ArrayFile, Configuration


def searched_darts(
    file: ArrayFile,
    shape: Sequence[int],
    relaxation: Relaxation,
    prefix: str = "",
    renamed: Callable[[str], str] = str,
    **settings: Any,
) -> DartsSupernet:
    """The supernet of ``file`` in float64, for images of ``shape``.

    Args:
        prefix: That of the entries with the alphas.
        renamed: Gives a weight the name that it has in quark0/darts.
        settings: Further ones of the space.
    """
    values = file.json("config")
    configuration = Configuration(values)
    operations = values.get("operations")
    if not isinstance(operations, list | dict):  # one list for all edges, or one per edge of each cell
        raise UnusableInput("its configuration has no operations.")
    space = Darts(
        channels=configuration.whole("channels", LARGEST_WIDTH),
        cells=configuration.whole("cells", LARGEST_DEPTH),
        steps=configuration.whole("steps", LARGEST_DEPTH),
        multiplier=configuration.whole("multiplier", LARGEST_DEPTH),
        stem_multiplier=configuration.whole("stem_multiplier", LARGEST_DEPTH),
        operations=operations,
        signature=Signature(shape, configuration.whole("classes", LARGEST_CLASSES)),
        **settings,
    )
    supernet = space.supernet(relaxation).double()
    alphas = {name: file.tensor(prefix + name, 2) for name in ("alphas_normal", "alphas_reduce")}
    averages = to_original(supernet, dict(supernet.named_buffers()))  # the files leave those of a fresh network out
    weights = {renamed(name): weight for name, weight in file.packed_state().items()}
    load_original(supernet, averages | weights | alphas)
    return supernet.train()
