"""NAS-Bench-201's official files, read by their own packages: ``nas_201_api``, and ``nats_bench`` (Dong et al., 2021,
"NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size").

The files are pickles, which can run any code while they are read. Only plain values and NumPy numbers are read here; a
file that names anything else is refused.
"""

import _codecs
import bz2
import importlib
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.errors import UnusableInput, require

DATASETS = {  # our name: their names of the data with a validation split and with a test split
    "cifar10": ("cifar10-valid", "cifar10"),
    "cifar100": ("cifar100", "cifar100"),
    "imagenet16": ("ImageNet16-120", "ImageNet16-120"),
}
EPOCHS = (12, 200)


def official_records(path: Path, dataset: str, epochs: int) -> Callable[[str], Mapping[str, float]]:
    """The records of an official file, averaged over its training seeds: from an architecture's text to its accuracies.

    ``nas_201_api`` reads ``.pth``; ``nats_bench`` reads ``.pickle.pbz2`` and folders of these. CIFAR-10's validation
    accuracy is that of a training on half of the images, its test accuracy that of a training on all images.

    Raises:
        InvalidValue: The data set or the training is unknown.
        UnusableInput: The package is not installed, or it cannot read the file or find an architecture in it.
    """
    require(dataset in DATASETS, "dataset", dataset, f"it must be one of {', '.join(DATASETS)}")
    require(epochs in EPOCHS, "epochs", epochs, "it must be 12 or 200")
    open_file, package, project = OPENED_BY[path.suffix if path.is_file() else ""]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UnusableInput(
            f"{path} is read by its own package: pip install {project}, or give a CSV table ({error})."
        ) from error
    try:
        api = open_file(module, path)
    except Exception as error:  # the packages raise errors of any kind, AssertionError among others
        raise UnusableInput(f"{package} cannot read {path}: {error}") from error
    for_validation, for_test = DATASETS[dataset]

    def found(text: str) -> Mapping[str, float]:
        index = api.query_index_by_arch(text)
        if index < 0:
            raise UnusableInput(f"{path} does not hold the architecture {text}.")
        about = {"hp": str(epochs), "is_random": False}
        try:
            valid = api.get_more_info(index, for_validation, **about)["valid-accuracy"]
            test = api.get_more_info(index, for_test, **about)["test-accuracy"]
        except Exception as error:
            raise UnusableInput(
                f"{path} has no {epochs} epochs of {text} on {dataset} ({type(error).__name__}: {error})."
            ) from error
        return {"accuracy": float(valid) / 100, "test_accuracy": float(test) / 100}

    return found


def number(kind: "np.dtype[Any]", content: bytes) -> np.generic:
    """Make a pickled NumPy scalar, for numbers only: NumPy's own function would unpickle an object's content, too."""
    if kind.kind not in "biuf":
        raise pickle.UnpicklingError(f"it holds a NumPy {kind}, and only numbers are read")
    scalar = np.frombuffer(content, kind)[0]
    assert isinstance(scalar, np.generic)
    return scalar


ADMITTED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray.scalar": number,  # NumPy 1
    "numpy._core.multiarray.scalar": number,  # NumPy 2
    "_codecs.encode": _codecs.encode,  # how bytes are written in the older protocols
}


class ValuesUnpickler(pickle.Unpickler):
    """Reads what :data:`ADMITTED` names and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only plain values are read")
        return ADMITTED[f"{module}.{name}"]


def read_values(path: str) -> Any:
    """The content of a ``.pickle.pbz2`` file; it replaces the package's own reader."""
    with bz2.open(path) as file:
        return ValuesUnpickler(file).load()


def _nas_201_api(module: Any, path: Path) -> Any:
    # Its torch.load reads weights only, which is PyTorch's default and admits no NumPy numbers by itself.
    known: list[Any] = [(admitted, name) for name, admitted in ADMITTED.items()]
    known += [type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"]]
    with torch.serialization.safe_globals(known):
        return module.NASBench201API(str(path), verbose=False)


def _nats_bench(module: Any, path: Path) -> Any:
    for part in ("api_topology", "api_utils"):
        importlib.import_module(f"nats_bench.{part}").pickle_load = read_values  # type: ignore[attr-defined]
    return module.create(str(path), "tss", fast_mode=path.is_dir(), verbose=False)


OPENED_BY: dict[str, tuple[Callable[[Any, Path], Any], str, str]] = {
    ".pth": (_nas_201_api, "nas_201_api", "nas-bench-201"),
    ".pbz2": (_nats_bench, "nats_bench", "nats-bench"),
    "": (_nats_bench, "nats_bench", "nats-bench"),  # a folder
}
