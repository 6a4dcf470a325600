"""Which space to take for given data where none was asked for."""

from nas.signature import Signature

OF_RANK = {0: "macro_table", 1: "macro_series", 2: "macro"}


def fitting_space(signature: Signature) -> str:
    """The name of the file in ``conf/space`` that suits data of ``signature``."""
    if signature.head == "sequence":
        return "recurrent"
    return "macro_dense" if signature.head == "dense" else OF_RANK[signature.rank]
