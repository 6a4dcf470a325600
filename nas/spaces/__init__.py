"""Search spaces: their choices, their supernets and their stand-alone networks."""

from nas.spaces.darts.space import Darts
from nas.spaces.fitting import fitting_space
from nas.spaces.macro.space import Macro
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.recorded import space_from_description
from nas.spaces.recurrent.space import Recurrent
from nas.spaces.space import SearchSpace
from nas.spaces.supernet import Supernet
from nas.spaces.transformer.space import Transformer

__all__ = [
    "Darts",
    "Macro",
    "NasBench201",
    "Recurrent",
    "SearchSpace",
    "Supernet",
    "Transformer",
    "fitting_space",
    "space_from_description",
]
