"""Replays files of reference numbers and says how far this package is off them.

    python scripts/check_reference.py FILE [FILE...]

A FILE is one of
- a search trajectory of quark0/darts (.npz with ``init/...``, batches and what the original computed from them),
- the evaluation logits of a stand-alone network, of quark0/darts or of NAS-Bench-201 (.npz with ``state/...``),
- numbers of the recurrent search of quark0/darts, or of networks of recurrent cells (.npz),
- numbers of a one-shot method (.npz or .json whose configuration names it; METHODS has the names),
- a list of parameter counts, of published genotypes or of NAS-Bench-201 cells (.json).

Everything is computed in float64. The error of a quantity is the largest absolute difference over the largest absolute
value of the reference; for one-shot methods it is that difference itself where no reference is above 1: their tolerance
is absolute there, and small numbers are compared in fewer digits.

Exit code: 0 if every error is within its tolerance, 1 if one is past it, 2 if a file cannot be read, is of no known
kind, or its replay stops.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from replays.beta_darts import replay_beta_darts
from replays.darts import replay_darts_evaluation, replay_genotype_parameters, replay_search
from replays.darts_minus import replay_darts_minus
from replays.darts_pt import replay_darts_pt
from replays.drnas import replay_drnas
from replays.fair_darts import replay_fair_darts
from replays.gaea import replay_gaea
from replays.gdas import replay_gdas
from replays.nasbench201 import replay_nasbench201_evaluation, replay_nasbench201_parameters
from replays.p_darts import is_p_darts, replay_p_darts
from replays.pc_darts import replay_pc_darts
from replays.recurrent import replay_recurrent_search
from replays.recurrent_evaluation import replay_recurrent_evaluation
from replays.reference import ArrayFile, Comparison
from replays.robust_darts import replay_robust_darts
from replays.sdarts import replay_sdarts_adversarial, replay_sdarts_random

from nas.errors import InvalidValue, UnusableInput
from nas.report.tables import comparison_table, print_table

ROOT = Path(__file__).resolve().parent.parent
LARGEST_JSON = 10_000_000  # bytes
# The one-shot methods, by the "method" of a file's configuration.
METHODS: dict[str, Callable[[ArrayFile], Iterator[Comparison]]] = {
    "DARTS-PT": replay_darts_pt,
    "RobustDARTS (DARTS-ES)": replay_robust_darts,
    "DARTS-": replay_darts_minus,
    "PC-DARTS": replay_pc_darts,
    "beta-DARTS": replay_beta_darts,
    "DrNAS": replay_drnas,
    "FairDARTS": replay_fair_darts,
    "GAEA": replay_gaea,
    "GDAS": replay_gdas,
    "SDARTS-ADV": replay_sdarts_adversarial,
    "SDARTS-RS": replay_sdarts_random,
}


def is_archive(path: Path) -> bool:
    """Whether ``path`` begins as a .npz file does; anything else can only be JSON."""
    with path.open("rb") as stream:
        return stream.read(2) == b"PK"


def read_arrays(path: Path) -> ArrayFile:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return ArrayFile({name: archive[name] for name in archive.files})
    except Exception as error:
        # numpy and zipfile raise many types for damaged archives: OSError, ValueError, BadZipFile, zlib.error, ...
        raise UnusableInput("it is not a readable .npz file without pickled objects.") from error


def read_json(path: Path) -> Any:
    if path.stat().st_size > LARGEST_JSON:
        raise UnusableInput(f"it is larger than {LARGEST_JSON} bytes.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnusableInput("it is neither a .npz file nor readable JSON.") from error


def named_method(file: ArrayFile) -> str | None:
    """The one-shot method that the file's configuration names."""
    configuration = file.json("config") if file.has("config") else None
    method = configuration.get("method") if isinstance(configuration, dict) else None
    return method if isinstance(method, str) else None


def replayed(path: Path) -> tuple[str, list[Comparison]]:
    """As :func:`replay`, with the errors of the operating system and of PyTorch as they come."""
    if not is_archive(path):
        content = read_json(path)
        if isinstance(content, dict) and is_p_darts(content):
            return "stages of P-DARTS", list(replay_p_darts(content))
        if isinstance(content, dict):
            return "parameter counts of DARTS genotypes", list(replay_genotype_parameters(content))
        if isinstance(content, list):
            return "parameter counts of NAS-Bench-201 cells", list(replay_nasbench201_parameters(content))
        raise UnusableInput("it holds no parameter counts.")
    file = read_arrays(path)
    method = named_method(file)
    if method in METHODS:
        return f"numbers of {method}", list(METHODS[method](file))
    if file.has("init/alphas_normal"):
        return "search of DARTS cells", list(replay_search(file))
    if file.has("init/alphas", "hidden_random"):
        return "search of recurrent cells", list(replay_recurrent_search(file))
    if file.has("asgd/validation_losses", "tokens"):
        return "networks of recurrent cells", list(replay_recurrent_evaluation(file))
    if file.has("eval_logits", "genotype"):
        return "network of DARTS cells", list(replay_darts_evaluation(file))
    if file.has("eval_logits", "arch"):
        return "NAS-Bench-201 network", list(replay_nasbench201_evaluation(file))
    if method is not None:
        raise UnusableInput(f"its method is {method!r}, and known here are {', '.join(METHODS)}.")
    raise UnusableInput("it is no kind of reference file known here.")


def replay(path: Path) -> tuple[str, list[Comparison]]:
    """What ``path`` is, and how everything in it compares.

    Raises:
        UnusableInput: It cannot be read, or is nothing that can be replayed.
        InvalidValue: It describes an impossible network.
    """
    try:
        kind, comparisons = replayed(path)
        if not comparisons:
            raise UnusableInput("it holds nothing to compare.")
        return kind, comparisons
    except OSError as error:
        raise UnusableInput(f"it cannot be read ({error.strerror}).") from error
    except (UnusableInput, InvalidValue):
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}{_place(error)}"
        why = "its entries do not fit each other, or the replay has a mistake"
        raise UnusableInput(f"its replay stops with {reason}; {why}.") from error
    except RuntimeError as error:
        # PyTorch's own complaint about shapes that do not fit each other, images that are too small for example.
        raise UnusableInput(f"its network cannot compute its images ({str(error).splitlines()[0]}).") from error


def _place(error: Exception) -> str:
    """The last line of this repository that ``error`` went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if Path(one.filename).is_relative_to(ROOT)]
    return f" ({Path(own[-1].filename).relative_to(ROOT)}, line {own[-1].lineno})" if own else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    files: list[Path] = parser.parse_args(arguments).files
    unusable = past = quantities = 0
    for path in files:
        try:
            kind, comparisons = replay(path)
        except (UnusableInput, InvalidValue) as error:
            unusable += 1
            print(f"{path} cannot be replayed: {error}", file=sys.stderr)
            continue
        rows = [
            (
                comparison.quantity,
                f"{comparison.error:.1e}",
                f"{comparison.tolerance:.0e}" if comparison.tolerance else "equal",
                "ok" if comparison.reached else "past",
            )
            for comparison in comparisons
        ]
        quantities += len(rows)
        past += sum(not comparison.reached for comparison in comparisons)
        print_table(comparison_table(f"{path}: {kind}", ("quantity", "largest error", "tolerance", ""), rows))
    unread = f", {unusable} of {len(files)} files unusable" if unusable else ""
    print(f"{quantities - past} of {quantities} quantities within tolerance{unread}")
    return 2 if unusable else 1 if past else 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # more of them sum in another order, and whole recurrent steps magnify what that changes
    sys.exit(main())
