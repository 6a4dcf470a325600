"""Named arrays of NumPy and PyTorch in files; nothing is unpickled, and ``.npy`` files stay on the disk until rows are
taken."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nas.data.mistaken_files import NOT_FETCHED, first_bytes, is_pointer
from nas.errors import UnusableInput, listed

Array = np.ndarray
TORCH = (".pt", ".pth")
KINDS = "an .npz file, a folder of .npy files, or a .pt file with a dictionary of tensors"


def read_arrays(file: Path) -> dict[str, Array]:
    """The arrays of ``file`` by name: an ``.npz`` file, a folder of ``.npy`` files, or a ``.pt`` file.

    Raises:
        UnusableInput: It is not there, of another kind, or has an array of Python objects.
    """
    if file.is_dir():
        arrays = {one.stem: read_array(one) for one in sorted(file.glob("*.npy"))}
        if not arrays:
            raise UnusableInput(f"The folder {file} has no .npy file: data.file must be {KINDS}.")
        return arrays
    suffix = file.suffix.lower()
    if suffix == ".npy":
        raise UnusableInput(f"{file} is one array: data.x=x.npy data.y=y.npy take inputs and targets from two files.")
    if not file.is_file():
        raise UnusableInput(f"{file} is not there: data.file must be {KINDS}.")
    if suffix not in (".npz", *TORCH):
        raise UnusableInput(f"{file} cannot be read: data.file must be {KINDS}.")
    try:
        return _of_torch(file) if suffix in TORCH else _of_numpy(file)
    # A damaged file can raise nearly anything.
    except Exception as error:
        raise UnusableInput(_complaint(file, error)) from None


def read_array(file: Path) -> Array:
    """The array of an ``.npy`` file, which stays on the disk until some of it is used.

    Raises:
        UnusableInput: It is not there, cannot be read, or has Python objects.
    """
    if not file.is_file():
        raise UnusableInput(
            f"{file} is not there: data.x and data.y must be .npy files, or names of arrays in data.file."
        )
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # as above
        raise UnusableInput(_complaint(file, error)) from None


def _of_numpy(file: Path) -> dict[str, Array]:
    with np.load(file, allow_pickle=False) as stored:
        return {name: _stored_array(stored, name) for name in stored.files}


def _stored_array(stored: Mapping[str, Array], name: str) -> Array:
    try:
        return stored[name]
    except ValueError as error:
        raise ValueError(f"{error} in {name}") from None


def _of_torch(file: Path) -> dict[str, Array]:
    stored = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(stored, Mapping):
        raise ValueError(f"it has a {type(stored).__name__}: save a dictionary, {{'x': x, 'y': y}}")
    others = [f"{name} a {type(one).__name__}" for name, one in stored.items() if not isinstance(one, Tensor)]
    if others:
        raise ValueError(f"it has more than tensors, {listed(others)}: leave these out")
    return {str(name): _of_tensor(one) for name, one in stored.items()}


def _of_tensor(values: Tensor) -> Array:
    values = values.detach().to_dense().resolve_conj()
    return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()


def _complaint(file: Path, error: Exception) -> str:
    reason = " ".join(str(error).split()).removesuffix(".")
    if not file.stat().st_size:
        reason = "it is empty"
    elif is_pointer(first_bytes(file)):
        reason = f"it {NOT_FETCHED}"
    elif "not a zip file" in reason:
        reason = "it is damaged or was cut off"
    elif "pickled" in reason:  # what NumPy takes any file for that is none of its own
        reason = "it is no file of NumPy's"
    elif "allow_pickle" in reason or "Python objects in dtype" in reason:
        kinds = "arrays of one type, numbers or texts, such as y.astype(str), and series of unequal length in .ts files"
        where = reason.rpartition("=False in ")[2] if "=False in " in reason else ""
        named, away = (f" in {where}", f", or leave {where} out") if where else ("", "")
        return f"{file} has Python objects{named}, which are never unpickled: save {kinds}{away}."
    elif "weights_only" in reason or "Weights only" in reason:
        kinds = "a dictionary of tensors, or arrays by np.savez"
        return f"{file} has Python objects, which are never unpickled: save {kinds}."
    return f"{file} cannot be read ({reason[:200] or type(error).__name__})."
