"""The recurrent cell that a search finds, in the form in which the literature publishes it."""

from collections.abc import Mapping
from dataclasses import dataclass

from nas.errors import InvalidValue, require

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
OPERATIONS = ("none", *ACTIVATIONS)  # the columns of alpha, in the order of the original
LARGEST_NODES = 16
Step = tuple[str, int]  # (activation, the state it reads)


@dataclass(frozen=True)
class RecurrentGenotype:
    """A recurrent cell (Liu et al., 2019, section 3.1).

    State 0 is made of input and hidden state; node ``n``, from 1, reads one state before it through one activation:
    ``recurrent[n - 1]``. The cell's output is the mean of the states in ``concat``.

    Raises:
        InvalidValue: An activation is unknown, a node reads a state that is not there yet, or ``concat`` names none.
    """

    recurrent: tuple[Step, ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "recurrent", _checked_steps(self.recurrent))
        object.__setattr__(self, "concat", checked_concat(self.concat, len(self.recurrent)))

    @classmethod
    def from_mapping(cls, values: object) -> "RecurrentGenotype":
        """The genotype in ``values``, the untrusted entries of a text or of JSON.

        Raises:
            InvalidValue: They are not exactly the two fields, or one of them is wrong.
        """
        if not isinstance(values, Mapping):
            raise InvalidValue("genotype", values, "it must be an object")
        good = set(values) == {"recurrent", "concat"}
        require(good, "genotype", sorted(map(str, values)), "it must hold recurrent and concat")
        return cls(**values)


def _checked_steps(steps: object) -> tuple[Step, ...]:
    allowed = f"it must be a list of (activation, input) pairs, one per node, at most {LARGEST_NODES}"
    if not isinstance(steps, list | tuple) or not 0 < len(steps) <= LARGEST_NODES:
        raise InvalidValue("recurrent", steps, allowed)
    checked = []
    for index, step in enumerate(steps):
        key = f"recurrent[{index}]"
        if not isinstance(step, list | tuple) or len(step) != 2:
            raise InvalidValue(key, step, "it must be a pair (activation, input)")
        activation, source = step
        known = isinstance(activation, str) and activation in ACTIVATIONS
        require(known, key, activation, f"the activation must be one of {', '.join(ACTIVATIONS)}")
        there = type(source) is int and 0 <= source <= index
        require(there, key, source, f"the input must be a whole number from 0 to {index}")
        checked.append((str(activation), int(source)))
    return tuple(checked)


def checked_concat(concat: object, nodes: int) -> tuple[int, ...]:
    """The states of which the output is the mean.

    Raises:
        InvalidValue: They are not different nodes of a cell with so many.
    """
    allowed = f"it must be a list of different nodes, each a whole number from 1 to {nodes}"
    if not isinstance(concat, list | tuple) or not 0 < len(concat) <= nodes:
        raise InvalidValue("concat", concat, allowed)
    good = all(type(node) is int and 1 <= node <= nodes for node in concat) and len(set(concat)) == len(concat)
    require(good, "concat", list(concat), allowed)
    return tuple(concat)
