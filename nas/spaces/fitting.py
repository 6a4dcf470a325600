"""Which space to take for given data where none was asked for."""

from nas.signature import Signature

OF_RANK = {0: "macro_table", 1: "macro_series", 2: "macro"}
LARGE = 64  # pixels of a side, above which one weight per place of a map makes millions


def fitting_space(signature: Signature) -> str:
    """The name of the file in ``conf/space`` that suits data of ``signature``."""
    if signature.head == "sequence":
        return "recurrent"
    if signature.head == "dense":
        return "macro_dense"
    large = signature.rank == 2 and max(signature.input_shape[1:]) > LARGE
    return "macro_large" if large else OF_RANK[signature.rank]
