"""What goes along with a command line: settings that its data, its scale and its space imply."""

import logging
from collections.abc import Sequence
from pathlib import Path

from nas.errors import InvalidValue
from nas.run.overrides import value_of

log = logging.getLogger(__name__)
GROUPS_OF_A_SPACE = ("hyperparameters", "training")
OWN_SAMPLES = ("arrays", "images", "table", "time_series")
NEVER_SCALED = (*OWN_SAMPLES, "digits", "text")
OF_THE_SCALE = "scale/data"
IMPLIED_GROUPS = ("method", OF_THE_SCALE, *GROUPS_OF_A_SPACE)


def implied_arguments(arguments: Sequence[str], conf: Path) -> list[str]:
    """Further arguments, implied by the groups that ``arguments`` choose."""
    of_data = _implied_by_the_data(arguments)
    return [*of_data, *_implied_by_the_scale(arguments), *_implied_by_the_space(arguments, conf)]


def _implied_by_the_data(arguments: Sequence[str]) -> list[str]:
    """``method=coarse_to_fine`` for a user's own samples: short trainings of what was found.

    They may be few. A supernet that has seen few samples often asks for ever lower learning rates, with which a fresh
    network learns nothing; short trainings see that. A table has ``method=cross_validated`` behind them and
    ``hyperparameters=table``: its rows are few and noisy, and weight decay is what it needs. An experiment says
    everything itself. What goes along is typed once for all jobs of a sweep, so one over several sources tells whose
    method they have.
    """
    if any(value_of(arguments, group) for group in ("method", "experiment")) or any(map(_names_all, arguments)):
        return []
    of_table = [] if value_of(arguments, "hyperparameters") else ["hyperparameters=table"]
    ways = {data: ["method=coarse_to_fine"] for data in OWN_SAMPLES} | {"table": ["method=cross_validated", *of_table]}
    alone = {data: ways.get(data, []) for data in (value_of(arguments, "data") or "").split(",")}
    if len(alone) == 1:
        return next(iter(alone.values()))
    common = ["method=coarse_to_fine"] if all(alone.values()) else []
    if others := [f"data={data} alone has {' '.join(way)}" for data, way in alone.items() if way not in ([], common)]:
        log.info(f"all jobs of this sweep have {' '.join(common) or 'the usual method'}; {'; '.join(others)}")
    return common


def _names_all(argument: str) -> bool:
    """Whether ``argument`` names a whole configuration of the user's own."""
    return argument.partition("=")[0] in ("-cn", "--config-name")


def _implied_by_the_scale(arguments: Sequence[str]) -> list[str]:
    """``scale/data=whole`` for a user's own data: a scale has numbers of images, and augments them as digits."""
    scaled = value_of(arguments, "scale") is not None and value_of(arguments, OF_THE_SCALE) is None
    return [f"{OF_THE_SCALE}=whole"] if scaled and value_of(arguments, "data") in NEVER_SCALED else []


def _implied_by_the_space(arguments: Sequence[str], conf: Path) -> list[str]:
    """``training=recurrent`` for ``space=recurrent``: the files of its name in groups of which none was asked for.

    Those of ``recurrent`` are for running text; other texts and series have ``recurrent_reader``. An experiment says
    everything itself.
    """
    folder, file = value_of(arguments, "data.folder"), value_of(arguments, "data.file")
    running = value_of(arguments, "data") == "text" and not _has_classes(folder, file)
    of_text = "recurrent" if running else "transformer"
    space = value_of(arguments, "space") or (of_text if value_of(arguments, "data") == "text" else None)
    if space is None or value_of(arguments, "experiment") is not None:
        return []
    space = "recurrent_reader" if space == "recurrent" and not running else space
    open_groups = [group for group in GROUPS_OF_A_SPACE if value_of(arguments, group) is None]
    return [f"{group}={space}" for group in open_groups if (conf / group / f"{space}.yaml").is_file()]


def _has_classes(folder: str | None, file: str | None) -> bool:
    # Not above: PyTorch comes with it, and not every command needs that.
    from nas.data.texts.text_classes import has_classes, is_table

    try:
        return (folder is not None and has_classes(folder)) or (file is not None and is_table(file))
    except (OSError, InvalidValue):
        return False  # told where the data are read
