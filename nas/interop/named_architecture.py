"""What ``candidate=`` may name: a run folder, a ``candidate.json``, a published genotype, another code base's text."""

import codecs
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from nas.candidate import Architecture, Candidate, Hyperparameters
from nas.data.data_splits import DataSplits
from nas.errors import InvalidValue, UnusableInput
from nas.interop.genotype_text import BEGINNING, AnyGenotype, find_genotypes, genotype_text, parse_genotype
from nas.run.candidate_file import CandidateFile, read_candidate_file
from nas.run.recorded import meant_instead
from nas.spaces.darts.genotype import Genotype
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.choices import architecture_text as cell_text
from nas.spaces.nasbench201.choices import parse_architecture
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.recurrent.genotype import RecurrentGenotype
from nas.spaces.recurrent.space import Recurrent
from nas.spaces.space import SearchSpace
from nas.tasks import Task
from nas.training.settings import TrainingSettings

Found = TypeVar("Found")
Kind = TypeVar("Kind", Genotype, RecurrentGenotype)
LARGEST_TEXT = 100_000  # bytes
CELL = re.compile(r"\|[\w~|+]*~[\w~|+]*\|", re.ASCII)  # of NAS-Bench-201
ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_TEXTS = {  # as quark0/darts and PC-DARTS publish them
    # first order, Liu et al., 2019
    "darts_v1": """Genotype(
        normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),
            ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)],
        normal_concat=range(2, 6),
        reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0),
            ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)],
        reduce_concat=range(2, 6))""",
    # second order, Liu et al., 2019
    "darts_v2": """Genotype(
        normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
            ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)],
        normal_concat=range(2, 6),
        reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),
            ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],
        reduce_concat=range(2, 6))""",
    # NASNet-A, Zoph et al., 2018
    "nasnet": """Genotype(
        normal=[('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), ('sep_conv_3x3', 0),
            ('avg_pool_3x3', 1), ('skip_connect', 0), ('avg_pool_3x3', 0), ('avg_pool_3x3', 0),
            ('sep_conv_3x3', 1), ('skip_connect', 1)],
        normal_concat=range(2, 7),
        reduce=[('sep_conv_5x5', 1), ('sep_conv_7x7', 0), ('max_pool_3x3', 1), ('sep_conv_7x7', 0),
            ('avg_pool_3x3', 1), ('sep_conv_5x5', 0), ('skip_connect', 3), ('avg_pool_3x3', 2),
            ('sep_conv_3x3', 2), ('max_pool_3x3', 1)],
        reduce_concat=range(4, 7))""",
    # AmoebaNet-A, Real et al., 2019
    "amoebanet": """Genotype(
        normal=[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 2),
            ('sep_conv_3x3', 0), ('avg_pool_3x3', 3), ('sep_conv_3x3', 1), ('skip_connect', 1),
            ('skip_connect', 0), ('avg_pool_3x3', 1)],
        normal_concat=range(4, 7),
        reduce=[('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('max_pool_3x3', 0), ('sep_conv_7x7', 2),
            ('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 0), ('max_pool_3x3', 1),
            ('conv_7x1_1x7', 0), ('sep_conv_3x3', 5)],
        reduce_concat=[3, 4, 6])""",
    # Xu et al., 2020, searched on CIFAR-10
    "pc_darts_cifar": """Genotype(
        normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1),
            ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)],
        normal_concat=range(2, 6),
        reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2),
            ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)],
        reduce_concat=range(2, 6))""",
    # Xu et al., 2020, searched on ImageNet
    "pc_darts_imagenet": """Genotype(
        normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1),
            ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)],
        normal_concat=range(2, 6),
        reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), ('max_pool_3x3', 1),
            ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)],
        reduce_concat=range(2, 6))""",
}
_RECURRENT_TEXTS = {  # as the recurrent half of quark0/darts publishes them
    # first order, Liu et al., 2019
    "darts_v1_rnn": """Genotype(
        recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1), ('relu', 5),
            ('relu', 1)],
        concat=range(1, 9))""",
    # second order, Liu et al., 2019
    "darts_v2_rnn": """Genotype(
        recurrent=[('sigmoid', 0), ('relu', 1), ('relu', 1), ('identity', 1), ('tanh', 2), ('sigmoid', 5),
            ('tanh', 3), ('relu', 5)],
        concat=range(1, 9))""",
    # ENAS, Pham et al., 2018
    "enas_rnn": """Genotype(
        recurrent=[('tanh', 0), ('tanh', 1), ('relu', 1), ('tanh', 3), ('tanh', 3), ('relu', 3), ('relu', 4),
            ('relu', 7), ('relu', 8), ('relu', 8), ('relu', 8)],
        concat=[2, 5, 6, 9, 10, 11])""",
}


def _known(texts: Mapping[str, str], kind: type[Kind]) -> dict[str, Kind]:
    parsed = {name: parse_genotype(text) for name, text in texts.items()}
    return {name: genotype for name, genotype in parsed.items() if isinstance(genotype, kind)}


PUBLISHED = _known(_TEXTS, Genotype)
PUBLISHED_RECURRENT = _known(_RECURRENT_TEXTS, RecurrentGenotype)
NAMES = (*PUBLISHED, *PUBLISHED_RECURRENT)


def candidate_path(candidate: object) -> Path:
    """The ``candidate.json`` that ``candidate`` names: a run folder or the file itself.

    Raises:
        InvalidValue: It is neither.
    """
    path = Path("" if candidate is None else str(candidate))
    # Not path.is_dir(), which raises where a text is too long for a name.
    file = path / "candidate.json" if os.path.isdir(path) else path
    allowed = (
        "it must be a run folder of train_search.py that has finished, a candidate.json, the text of an architecture, "
        f"or one of {', '.join(NAMES)}"
    )
    if candidate in (None, "") or not os.path.isfile(file):
        raise InvalidValue("candidate", candidate, allowed + meant_instead("candidate", candidate, "candidate.json"))
    return file


def read_candidate(
    candidate: object,
    splits: DataSplits,
    task: Task,
    training: TrainingSettings,
    space_named: Callable[[str], SearchSpace],
) -> CandidateFile:
    """The candidate in the file that ``candidate`` names, or the named architecture for the data at hand.

    Args:
        candidate: See :func:`candidate_path` and :func:`architecture_text`.
        splits: The data of a named architecture.
        task: Its task.
        training: Its learning-rate schedule.
        space_named: See :func:`named_architecture`.

    Raises:
        InvalidValue: There is no such candidate.
        UnusableInput: Its file cannot be read.
    """
    text = architecture_text(str(candidate))
    if text is None:
        return read_candidate_file(candidate_path(candidate))
    space, architecture = named_architecture(text, space_named)
    named = Candidate(architecture, Hyperparameters())
    return CandidateFile(
        named,
        space,
        splits.name,
        training.schedule,
        schedule_end=training.schedule_end,
        class_names=splits.class_names,
        task=task.to_json(),
        preparation=splits.preparation,
        digest=splits.digest,
    )


def architecture_text(name: str) -> str | None:
    """The text that ``name`` stands for: itself, or the content of the file of that name; None for anything else.

    A text is a published name (``darts_v2``), or has a genotype (``Genotype(normal=[...], ...)``) or a NAS-Bench-201
    cell (``|nor_conv_3x3~0|+|...``) in it, whatever stands around that. A file that ends in ``.json`` is a candidate
    and no text.

    Raises:
        UnusableInput: The file is too large or not text.
        InvalidValue: The file's text is none of these.
    """
    if _tells(name):
        return name
    path = Path(name)
    if path.suffix == ".json" or not os.path.isfile(path):
        return None
    if path.stat().st_size > LARGEST_TEXT:
        raise UnusableInput(f"{path} is larger than the text of an architecture can be ({LARGEST_TEXT} bytes).")
    try:
        content = path.read_bytes()
        text, readable = _decoded(content)
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableInput(f"{path} cannot be read as text.") from error
    if not _tells(text):
        if not readable:
            raise UnusableInput(f"{path} cannot be read as text{meant_instead('candidate', path, 'candidate.json')}.")
        forms = "a genotype (Genotype(normal=[...], ...)) nor a NAS-Bench-201 cell (|nor_conv_3x3~0|+|...|)"
        raise InvalidValue("candidate", name, f"the file {'has neither ' + forms if text else 'is empty'}")
    return text


def _tells(text: str) -> bool:
    """Whether ``text`` is a published name, or an architecture can be looked for in it."""
    return text in NAMES or bool(BEGINNING.search(text) or CELL.search(text))


def _decoded(content: bytes) -> tuple[str, bool]:
    """The text that the bytes ``content`` are, and whether they are in an encoding that is known for sure."""
    for mark, encoding in ENCODINGS.items():
        if content.startswith(mark):
            return content.decode(encoding).strip(), True
    try:
        return content.decode("utf-8").strip(), True
    except UnicodeDecodeError:  # an architecture is ASCII, whatever language the words around it are in
        return content.decode("latin-1").strip(), False


def published_text(space: SearchSpace, architecture: Architecture) -> str | None:
    """``architecture`` as other code bases take it, and :func:`named_architecture`; None where it has no such text."""
    if isinstance(space, Darts | Recurrent):
        return genotype_text(space.genotype(architecture))
    return cell_text(architecture) if isinstance(space, NasBench201) else None


def named_architecture(text: str, space_named: Callable[[str], SearchSpace]) -> tuple[SearchSpace, Architecture]:
    """The architecture that ``text`` describes, and a space that has it.

    Args:
        text: See :func:`architecture_text`.
        space_named: Builds ``darts``, ``recurrent`` or ``nasbench201`` for the data at hand.

    Raises:
        InvalidValue: The text is none of the known forms, has several architectures, or none of its space.
    """
    published: dict[str, AnyGenotype] = {**PUBLISHED, **PUBLISHED_RECURRENT}
    genotypes = [published[text]] if text in published else find_genotypes(text)
    if genotypes:
        genotype = _only("genotypes", genotypes, text)
        if isinstance(genotype, RecurrentGenotype):
            recurrent = space_named("recurrent")
            assert isinstance(recurrent, Recurrent)
            recurrent = recurrent.for_genotype(genotype)
            return recurrent, recurrent.architecture(genotype)
        cells = space_named("darts")
        assert isinstance(cells, Darts)
        cells = cells.for_genotype(genotype)
        return cells, cells.architecture(genotype)
    found = [parse_architecture(cell) for cell in dict.fromkeys(CELL.findall(text))]
    if not found:
        allowed = f"it must be one of {', '.join(NAMES)}, a genotype, a NAS-Bench-201 cell, or a candidate.json"
        raise InvalidValue("candidate", text, allowed)
    space = space_named("nasbench201")
    assert isinstance(space, NasBench201)
    architecture = _only("NAS-Bench-201 cells", found, text)
    architecture.check(space.choices)
    return space, architecture


def _only(kind: str, found: Sequence[Found], text: str) -> Found:
    """The one entry of ``found``; several have equal claims."""
    if len(found) > 1:
        raise InvalidValue("candidate", text, f"it has {len(found)} different {kind}, and must have one")
    return found[0]
