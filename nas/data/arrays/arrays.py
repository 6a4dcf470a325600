"""Arrays of a user's own, NumPy's or PyTorch's: rows, series or images, and their targets."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas.data.arrays.array_file import Array, read_array, read_arrays
from nas.data.arrays.array_layout import (
    SERIES,
    Layout,
    arranged_targets,
    channels_first,
    chosen_layout,
    with_coordinates,
)
from nas.data.arrays.gaps import fill_gaps, gaps_in_words
from nas.data.data_splits import DataSplits
from nas.data.dataset import ArrayDataset
from nas.data.labelled import is_one_hot
from nas.data.new_samples import NewSamples
from nas.data.own_files import digest_of, name_of, path_of
from nas.data.row_split import PART_NAMES, Rows, RowSplit, drawn_parts, exchangeable
from nas.data.targets import Targets, named_classes, with_classes_of_training
from nas.errors import InvalidValue, UnusableInput, listed, require
from nas.signature import Head

log = logging.getLogger(__name__)
WAYS = {  # by the kind of an array what makes numbers of it
    "c": ", such as np.stack([{0}.real, {0}.imag], axis=1)",
    "M": ", such as ({0} - {0}.min()) / np.timedelta64(1, 's')",
    "m": ", such as {0} / np.timedelta64(1, 's')",
    "V": ", all of one type; np.lib.recfunctions.structured_to_unstructured makes them of fields",
}


@dataclass(frozen=True)
class Arrays:
    """A :class:`nas.data.data_splits.DataSource`: inputs ``x`` and targets ``y``, samples first.

    With ``x_train``, ``y_train`` instead, ``x_validation`` and ``x_test`` are parts of the data's own.

    Attributes:
        split: Sizes of the parts, and how their samples are chosen; ``by`` and ``order`` name arrays of the file.
        file: An ``.npz`` file, a folder of ``.npy`` files, or a ``.pt`` file, relative to the working directory.
        x: What the inputs are called in the file; without one, an ``.npy`` file.
        y: What the targets are called in the file; without one, an ``.npy`` file.
        layout: What the dimensions of ``x`` mean; null where two or four of them tell.
        coordinates: Whether every place's own coordinates are further channels.
        epoch_samples: Samples of an epoch, about: fewer are passed over several times.
    """

    split: RowSplit
    file: str | None = None
    x: str = "x"
    y: str = "y"
    layout: Layout | None = None
    coordinates: bool = False
    epoch_samples: int = 0

    name: ClassVar[str] = "arrays"
    augmentation: ClassVar[None] = None

    def __post_init__(self) -> None:
        alone = self.file is None
        allowed = "it must be the path of an .npz or .pt file; data.x=x.npy data.y=y.npy go without it"
        require(not alone or (self.x.endswith(".npy") and self.y.endswith(".npy")), "file", self.file, allowed)

    def load(self) -> DataSplits:
        stored = self._stored()
        layout = chosen_layout(self.layout, stored.inputs["train"].shape)
        require(not self.coordinates or layout != "NF", "coordinates", True, "rows of numbers have no places")
        of_all, head, doubt = _targets(stored, layout)
        rows = self._rows(stored, of_all)
        parts = drawn_parts(rows, self.split)
        targets = with_classes_of_training(of_all, parts, stored.owner)
        inputs = [self._inputs(stored, layout, part, chosen) for part, chosen in parts._asdict().items()]
        gaps = fill_gaps(inputs) if layout in SERIES else []
        train, validation, test = (
            ArrayDataset(with_coordinates(one) if self.coordinates else one, targets.values[chosen], head == "dense")
            for one, chosen in zip(inputs, parts, strict=True)
        )
        name = name_of(stored.location)
        shape = "x".join(map(str, train.input_shape))
        places = ", with a target for every place" if head == "dense" else ""
        samples = f"{len(of_all.values):,} samples of {shape} as {layout}"
        log.info(f"{name}: {samples}, {self.split.in_words(parts)}{places}")
        for remark in gaps_in_words(gaps):
            log.info(f"{name}: {remark}")
        if unused := stored.unused(beside={self.split.by, self.split.order, self.split.parts}):
            log.info(f"{name}: left out: {listed(unused)}")
        mean, std = train.channel_statistics()
        measured = {"white": int(train.largest_value), "mean": list(mean)}
        return DataSplits(
            name,
            train,
            validation,
            test,
            mean,
            std,
            class_names=targets.class_names,
            target_names=(stored.target,) if targets.values.dim() == 1 else (),
            head=head,
            preparation={"kind": "arrays", "layout": layout, "coordinates": self.coordinates, **measured},
            digest=digest_of(stored.files),
            test_samples=parts.tested(rows),
            epoch_samples=self.epoch_samples,
            exchangeable=exchangeable(rows, self.split),
            doubt=doubt,
        )

    def new_samples(self, path: Path, preparation: Mapping[str, Any]) -> NewSamples:
        """See :class:`nas.data.new_samples.TakesNewSamples`: an ``.npy`` file, or a file or folder with ``x``."""
        wanted, y = (Path(name).stem if self.file is None else name for name in (self.x, self.y))
        arrays = {wanted: read_array(path)} if path.suffix.lower() == ".npy" else read_arrays(path)
        known, owner = {name.lower(): name for name in arrays}, path.name
        x = next(iter(arrays)) if len(arrays) == 1 else known.get(wanted.lower(), "")
        if not x:
            raise UnusableInput(f"{owner} has the arrays {listed(sorted(arrays), most=10)}, and {wanted} is wanted.")
        inputs, layout = arrays[x], preparation["layout"]
        _refuse_no_numbers(x, inputs)
        if inputs.ndim != len(layout) or not len(inputs):
            way = f"; {x}[None] makes a sample of it" if inputs.ndim == len(layout) - 1 else ""
            raise UnusableInput(f"{x} of {owner} is {inputs.shape}, and samples as {layout} are wanted{way}.")
        white = 255 if inputs.dtype == np.uint8 else 1
        if white != preparation["white"]:
            training = "uint8, from 0 to 255" if white == 1 else "no uint8"
            raise UnusableInput(f"{x} of {owner} is {inputs.dtype}, and that of the training was {training}.")
        taken = channels_first(_taken([inputs], torch.arange(len(inputs)), owner, "it", layout in SERIES), layout)
        if layout in SERIES:
            mean = torch.tensor(preparation["mean"][: taken.shape[1]], dtype=torch.float32)
            for remark in gaps_in_words(fill_gaps([taken], mean)):
                log.info(f"{owner}: {remark}")
        taken = with_coordinates(taken) if preparation["coordinates"] else taken
        count, targets = len(taken), arrays.get(known.get(y.lower(), x))
        cells = None if targets is None or targets is inputs else _cells(y, targets, count)
        return NewSamples(ArrayDataset(taken, torch.zeros(count)), range(count), cells)

    def _stored(self) -> "_Stored":
        """What the files hold, after a look at whether inputs and targets fit each other."""
        if self.file is None:
            files = [path_of(self.x), path_of(self.y)]
            arrays = {"x": read_array(files[0]), "y": read_array(files[1])}
            stored = _Stored(files[0], files, arrays, {"train": ("x", "y")})
        else:
            file = path_of(self.file)
            arrays = read_arrays(file)
            names = _names_by_part(arrays, self.x, self.y, file.name)
            stored = _Stored(file, sorted(file.glob("*.npy")) if file.is_dir() else [file], arrays, names)
        _check_pairs(stored.arrays, stored.names)
        return stored

    def _rows(self, stored: "_Stored", targets: Targets) -> Rows:
        """What the parts are drawn by."""
        count = len(stored.inputs["train"])
        own = {part: len(inputs) for part, inputs in stored.inputs.items() if part != "train"}
        groups, named = (
            _values_of(stored.arrays, key, name, count, stored.owner)
            for key, name in (("split.by", self.split.by), ("split.parts", self.split.parts))
        )
        times = _times(stored.arrays, self.split.order, count, stored.owner)
        return Rows(count, own, targets.strata, groups, times, named)

    def _inputs(self, stored: "_Stored", layout: Layout, part: str, chosen: Tensor) -> Tensor:
        """The inputs of the samples ``chosen``, channels first."""
        taken = _taken(list(stored.inputs.values()), chosen, stored.owner, part, layout in SERIES)
        return channels_first(taken, layout)


class _Stored(NamedTuple):
    """What there is to read.

    Attributes:
        location: What was named: a file, or the folder of the files.
        files: All files.
        arrays: By name what they hold.
        names: The names of inputs and targets of the parts that there are, training first.
    """

    location: Path
    files: Sequence[Path]
    arrays: Mapping[str, Array]
    names: Mapping[str, tuple[str, str]]

    @property
    def owner(self) -> str:
        """What messages call it."""
        return self.location.name

    @property
    def target(self) -> str:
        """What the targets of the training part are called."""
        return self.names["train"][1]

    @property
    def inputs(self) -> dict[str, Array]:
        """By part its inputs, training first."""
        return {part: self.arrays[x] for part, (x, _) in self.names.items()}

    def unused(self, beside: Collection[str | None]) -> list[str]:
        """Name and shape of the arrays that are neither inputs nor targets, ``beside`` which are in use, too."""
        used = {*(name for pair in self.names.values() for name in pair), *beside}
        return [f"{name} {self.arrays[name].shape}" for name in sorted(self.arrays) if name not in used]


def _names_by_part(stored: Mapping[str, Array], x: str, y: str, owner: str) -> dict[str, tuple[str, str]]:
    """The names of inputs and targets of the parts that there are, training first."""
    known = {name.lower(): name for name in stored}
    pairs: dict[str, tuple[str, str]] = {}
    for part, endings in PART_NAMES.items():
        for ending in endings:
            for both in ([f"{name}_{ending}" for name in (x, y)], [f"{ending}_{name}" for name in (x, y)]):
                if all(name.lower() in known for name in both):
                    pairs[part] = known[both[0].lower()], known[both[1].lower()]
    if x.lower() in known and y.lower() in known:
        whole = known[x.lower()], known[y.lower()]
        # Beside a training part of its own the whole set is divided anew; its test part would be within it.
        pairs = {"train": whole} if "train" in pairs else {"train": whole, **pairs}
    if "train" not in pairs:
        there = f"the arrays {listed(sorted(stored), most=10)}" if stored else "no array"
        raise UnusableInput(
            f"{owner} has {there}: it needs {x} and {y}, or {x}_train and "
            f"{y}_train with or without those of validation and test; data.x= and data.y= give other names"
            f"{_usual_names(known)}."
        )
    return pairs


def _usual_names(known: Collection[str]) -> str:
    """``, here data.x=images data.y=labels`` where arrays are called so, with the name of a part or without it.

    Args:
        known: The names of the arrays, in lower case.
    """
    for x in ("images", "data", "inputs", "features"):
        for y in ("labels", "label", "target", "targets"):
            if any({form.format(x), form.format(y)} <= set(known) for form in ("{}", "train_{}", "{}_train")):
                return f", here data.x={x} data.y={y}"
    return ""


def _check_pairs(stored: Mapping[str, Array], names: Mapping[str, tuple[str, str]]) -> None:
    """Refuse inputs that are no numbers, differ between the parts, or are not as many as their targets."""
    first, _ = names["train"]
    for x, y in names.values():
        inputs, targets = stored[x], stored[y]
        _refuse_no_numbers(x, inputs)
        if targets.ndim == 0 or inputs.ndim == 0 or len(inputs) != len(targets):
            shapes = f"{x} is {inputs.shape} and {y} is {targets.shape}"
            last = targets.ndim and inputs.ndim and inputs.shape[-1] == len(targets)
            hint = f": samples come first, np.moveaxis({x}, -1, 0) puts them there" if last else ""
            raise UnusableInput(f"{shapes}: there must be one target per sample{hint}.")
        if inputs.shape[1:] != stored[first].shape[1:]:
            raise UnusableInput(
                f"{first} is {stored[first].shape} and {x} is {inputs.shape}: samples must be of one shape."
            )


def _refuse_no_numbers(x: str, inputs: Array) -> None:
    if inputs.dtype.kind not in "fiub":
        kind = "text" if inputs.dtype.kind in "US" else str(inputs.dtype)
        way = WAYS.get(inputs.dtype.kind, "").format(x)
        raise UnusableInput(f"{x} is {inputs.shape} of {kind}: inputs must be numbers{way}.")


def _cells(y: str, targets: Array, count: int) -> list[list[Any]] | None:
    """By target its values of ``count`` samples; None where there is no number or text for each."""
    if targets.dtype.kind not in "fiubUS" or targets.ndim not in (1, 2) or len(targets) != count:
        log.info(f"{y} is left out, as it is {targets.shape} and there are {count:,} samples")
        return None
    if targets.dtype.kind in "US":
        return [_texts([(y, column)]) for column in np.atleast_2d(targets.T)]
    return [["" if cell != cell else cell for cell in column] for column in np.atleast_2d(targets.T).tolist()]


def _targets(stored: _Stored, layout: Layout) -> tuple[Targets, Head, str]:
    """The targets of all parts, one after the other, what there is one of, and why classes may be something else."""
    read = _read_targets([(y, stored.arrays[y]) for _, y in stored.names.values()], stored.owner)
    example = channels_first(torch.empty(stored.inputs["train"].shape, device="meta"), layout)
    values, head = arranged_targets(read.values, tuple(example.shape[1:]), layout)
    _refuse_unknown(values, stored.owner)
    doubt = _doubt(stored.target, read.class_names or ())
    if head == "dense" and values.dim() == 2 and is_one_hot(values):
        doubt = (
            f"{stored.target} is {tuple(values.shape)}, with one 1 in each sample: {stored.target}.argmax(1) makes a "
            "class of it; task=dense_classification takes 0 and 1 as classes of places."
        )
    return Targets(values, read.class_names), head, doubt


def _read_targets(arrays: Sequence[tuple[str, Array]], owner: str) -> Targets:
    """The targets of all parts, one after the other."""
    kinds = {array.dtype.kind for _, array in arrays}
    shapes = {array.shape[1:] for _, array in arrays}
    if len(shapes) > 1 or ("U" in kinds or "S" in kinds) != bool(kinds <= {"U", "S"}):
        named = listed([f"{name} {array.shape} {array.dtype}" for name, array in arrays])
        raise UnusableInput(f"The targets of {owner} differ: {named}; they must be of one kind and shape.")
    name, first = arrays[0]
    if kinds <= {"U", "S"}:
        if first.ndim > 2 or first.shape[1:] not in ((), (1,)):
            raise UnusableInput(f"{name} is {first.shape} of text: the name of one class per sample is wanted.")
        texts = _texts(arrays)
        _refuse_empty(name, texts)
        return named_classes(texts)
    if not kinds <= set("fiub"):
        way = WAYS.get(first.dtype.kind, "").format(name)
        raise UnusableInput(
            f"{name} is {first.shape} {first.dtype}: targets must be numbers, truth values or texts{way}."
        )
    kind = torch.float64 if "f" in kinds else torch.bool if kinds == {"b"} else torch.int64
    return Targets(
        torch.cat([torch.from_numpy(np.array(array).astype(_readable(array))).to(kind) for _, array in arrays])
    )


def _texts(arrays: Sequence[tuple[str, Array]]) -> list[str]:
    texts = []
    for name, array in arrays:
        for one in array.flatten().tolist():
            try:
                texts.append(one.decode() if isinstance(one, bytes) else one)
            except UnicodeDecodeError:
                raise UnusableInput(
                    f"{name} has {one!r}, no text in UTF-8: save texts of np.str_, not bytes."
                ) from None
    return texts


def _refuse_empty(name: str, texts: Sequence[str]) -> None:
    empty = [str(sample) for sample, text in enumerate(texts) if not text.strip()]
    if empty:
        raise UnusableInput(
            f"{len(empty):,} of {len(texts):,} texts of {name} are empty: {listed(empty)}, counted from 0; name their "
            "classes, or remove these samples."
        )


def _doubt(name: str, classes: Sequence[str]) -> str:
    """What to say of classes such as ``0.5``, which may be amounts, or versions; empty where none has a fraction."""
    try:
        numbers = np.array(classes, dtype=float)
    except ValueError:
        return ""
    fractions = numbers != numbers.round()
    if not np.isfinite(numbers).all() or not fractions.any():
        return ""
    return (
        f"{name} has numbers as texts, such as {classes[int(fractions.argmax())]!r}: task=classification takes them "
        f"for classes; if they are amounts, save {name}.astype(float)."
    )


def _refuse_unknown(values: Tensor, owner: str) -> None:
    """Refuse infinite targets, and samples of which no target is known; NaN is a target that is not known."""
    if not values.is_floating_point():
        return
    flat = values.flatten(1) if values.dim() > 1 else values[:, None]
    for what, bad in (("an infinite target", flat.isinf().any(1)), ("no known target (NaN)", flat.isnan().all(1))):
        samples = bad.nonzero().flatten().tolist()
        if samples:
            named = listed([str(sample) for sample in samples])
            has = "has" if len(samples) == 1 else "have"
            raise UnusableInput(
                f"{len(samples):,} of {len(values):,} samples of {owner} {has} {what}: {named}, counted from 0; "
                f"correct or remove {'it' if len(samples) == 1 else 'them'}."
            )


def _taken(arrays: Sequence[Array], chosen: Tensor, owner: str, part: str, gaps: bool) -> Tensor:
    """The samples ``chosen``, counted through all ``arrays``: uint8 as they are, others float32."""
    begin, pieces = 0, []
    for array in arrays:
        own = chosen[(chosen >= begin) & (chosen < begin + len(array))] - begin
        if len(own):
            read = np.asarray(array[own.numpy()])
            with np.errstate(over="ignore"):
                taken = read.astype(np.uint8 if read.dtype == np.uint8 else np.float32)
            _refuse_not_finite(read, taken, own, owner, part, gaps)
            pieces.append(torch.from_numpy(taken))
        begin += len(array)
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _refuse_not_finite(read: np.ndarray, taken: np.ndarray, samples: Tensor, owner: str, part: str, gaps: bool) -> None:
    """Refuse values that are not finite as they were ``read``, or as they are ``taken``, in single precision.

    Args:
        gaps: Whether NaN is a value that is not known, in a sample of which another one is.
    """
    if taken.dtype == np.uint8 or np.isfinite(taken).all():
        return
    unknown = np.isnan(read) if gaps else np.zeros(read.shape, bool)
    unknown &= ~unknown.all(axis=tuple(range(1, read.ndim)), keepdims=True)
    bad = np.argwhere(~np.isfinite(taken) & ~unknown)
    if not len(bad):
        return
    first, *place = bad[0].tolist()
    value, there = read[tuple(bad[0])], len(np.unique(bad[:, 0]))
    many = f"{len(bad):,} value{'' if len(bad) == 1 else 's'} of x in {owner}"
    what, way = "not finite", "np.nan_to_num(x) fills them, or leave these samples out"
    if np.isfinite(value):
        what, way = "too large for single precision", "divide x by a number such as np.abs(x).max()"
    raise UnusableInput(
        f"{many} {'is' if len(bad) == 1 else 'are'} {what}, in {there:,} sample{'' if there == 1 else 's'} of {part}: "
        f"the first is {value:g} in sample {int(samples[first])} at {tuple(place)}, counted from 0; {way}."
    )


def _values_of(stored: Mapping[str, Array], key: str, name: str | None, count: int, owner: str) -> list[object] | None:
    """The array ``name``, one value per training sample."""
    if name is None:
        return None
    if name not in stored:
        raise InvalidValue(key, name, f"{owner} has the arrays {listed(sorted(stored), most=10)}")
    array = stored[name]
    array = np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array
    require(array.shape == (count,), key, name, f"it is {array.shape}, and must have one value for {count:,} samples")
    unknown = [sample for sample, value in enumerate(array.tolist()) if value != value]
    allowed = f"it is not known (NaN) of {len(unknown):,} samples: {listed(list(map(str, unknown)))}, counted from 0"
    require(not unknown, key, name, allowed)
    return list(array.tolist())


def _times(stored: Mapping[str, Array], order: str | None, count: int, owner: str) -> Tensor | None:
    if order is None or (order == "time" and order not in stored):
        return None
    values = stored.get(order)
    if values is not None and values.dtype.kind in "mM":  # moments, of which NaT is the one that is not known
        values = np.where(np.isnat(values), np.nan, values.astype("int64"))
    _values_of(stored if values is None else {**stored, order: values}, "split.order", order, count, owner)
    assert values is not None
    good = values.dtype.kind in "fiu" and bool(np.isfinite(values).all())
    require(good, "split.order", order, "it must have finite numbers, or times as np.datetime64")
    return torch.from_numpy(values.astype(np.float64))


def _readable(array: Array) -> np.dtype:
    """The type that PyTorch takes the numbers of ``array`` in: in this machine's order of bytes, and no longer ones."""
    return np.dtype(np.float64) if array.dtype == np.longdouble else array.dtype.newbyteorder("=")
