"""``python -m nas.report``: pages, comparisons, drawings and animations of runs."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from nas.candidate import Architecture
from nas.errors import InvalidValue, UnusableInput
from nas.interop.named_architecture import architecture_text, named_architecture, published_text
from nas.report.animation import write_animation
from nas.report.comparison import comparison_place, found_runs, outcome_columns, outcome_rows, write_comparison
from nas.report.drawing import save_drawing
from nas.report.explanation import change_in_words, decisions
from nas.report.outcome import space_figure
from nas.report.page import write_page
from nas.report.recorded_run import RecordedRun, recorded_candidate, retrainings
from nas.report.sample_files import drawn_samples
from nas.report.tables import comparison_table, print_table
from nas.run.candidate_file import read_candidate_file
from nas.run.entry_point import guarded
from nas.run.ownership import claimed
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from nas.spaces.nasbench201.space import NasBench201
from nas.spaces.recurrent.space import Recurrent
from nas.spaces.space import SearchSpace
from nas.surroundings import adapt_to_surroundings, typed_python

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WAIT = 2.0  # seconds, for another command that writes a page
EXAMPLES = """
  python -m nas.report runs/mine                        write runs/mine/report.html anew
  python -m nas.report compare runs/one runs/two        one page for several runs, or for a multirun's folder
  python -m nas.report why runs/mine --retrain          measure what each choice is worth
  python -m nas.report predict runs/mine new.csv        what the retrained network says of new rows
  python -m nas.report draw runs/mine                   the architecture as PNG, SVG and PDF
  python -m nas.report draw darts_v2 --output figures   a published one, a genotype's text or a candidate.json
  python -m nas.report genotype runs/mine               Genotype(...) of a cell, or the text of NAS-Bench-201
  python -m nas.report animate runs/mine                the search as a GIF
"""


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] not in COMMANDS and not given[0].startswith("-"):
        given.insert(0, "page")
    options = _parser().parse_args(given)
    guarded(lambda: COMMANDS[options.command](options), "nas.report")


def _parser() -> argparse.ArgumentParser:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=f"{typed_python()} -m nas.report",
        description=__doc__,
        epilog=EXAMPLES.replace("python", typed_python()),
        formatter_class=kind,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    page = commands.add_parser("page", help="write report.html anew; the word page may be left out")
    page.add_argument("folder", type=Path, nargs="+", help="run folders")

    compare = commands.add_parser("compare", help="one page for several runs")
    compare.add_argument("folder", type=Path, nargs="+", help="run folders, or a multirun's folder")
    compare.add_argument(
        "--output", type=Path, help="where the page goes; comparison.html beside the runs if not given"
    )

    why = commands.add_parser("why", help="measure what each choice of a finished search is worth")
    why.add_argument("folder", type=Path, help="the run folder")
    why.add_argument("--images", type=int, default=2000, help="most validation images per measurement (2000)")
    why.add_argument("--retrain", action="store_true", help="also retrain every swap from scratch, for a short time")
    why.add_argument("--epochs", type=int, default=3, help="epochs of each retraining (3)")
    why.add_argument("--seeds", type=int, default=1, help="number of seeds over which each retraining is averaged (1)")

    predict = commands.add_parser(
        "predict",
        help="what the retrained network says of new samples, as a CSV file",
        description="Write what the network that train_final.py has trained says of new samples, one row each, "
        "prepared as in the training. Targets may be there or not: those that are there stand beside the predictions "
        "and are measured on. Masks become pictures, fields one .npz file.",
    )
    predict.add_argument("folder", type=Path, help="the run folder, or that of a retraining")
    predict.add_argument(
        "data",
        help="what the run's own data are: a table; a picture, or a folder of them; .npz or .npy; .ts or .tsv; a table "
        "of texts, a .txt file, or a folder of them",
    )
    predict.add_argument(
        "settings",
        nargs="*",
        help="how the new data are read, if otherwise than the run's: \"data.csv.separator=';'\", data.x=signals, ...",
    )
    predict.add_argument(
        "--output", type=Path, help="what is written; <data>_predictions.csv in the working directory if not given"
    )
    predict.add_argument("--overwrite", action="store_true", help="also where it is there already")

    draw = commands.add_parser("draw", help="the architecture, and samples of masks or fields, as PNG, SVG and PDF")
    draw.add_argument("architecture", help="a run folder, a candidate.json, a published name or an architecture's text")
    draw.add_argument("--output", type=Path, help="the folder for the files; figures/ of the run if not given")
    draw.add_argument("--title", default="", help="above the drawing")

    genotype = commands.add_parser("genotype", help="the architecture as other code bases take it")
    genotype.add_argument("architecture", help="a run folder, a candidate.json, a published name or a text")

    animate = commands.add_parser("animate", help="the search as a GIF")
    animate.add_argument("folder", type=Path, help="the run folder")
    animate.add_argument("--output", type=Path, help="the file; figures/search.gif of the run if not given")
    return parser


def _page(options: argparse.Namespace) -> None:
    for folder in options.folder:
        with _writing_into(folder):
            page = write_page(folder)
        print(f"page: {page}")


def _compare(options: argparse.Namespace) -> None:
    runs = found_runs(options.folder)
    place = comparison_place(options.folder, options.output)
    with _writing_into(place.parent):
        path = write_comparison(options.folder, place)
    print_table(comparison_table(f"{len(runs)} runs", outcome_columns(runs), outcome_rows(runs)))
    print(f"page: {path}")


def _why(options: argparse.Namespace) -> None:
    from nas.report.measured_swaps import SwapSettings, measure_swaps  # the training loop takes a while to import

    settings = SwapSettings(options.images, options.retrain, options.epochs, options.seeds)
    with _writing_into(options.folder):
        path = measure_swaps(options.folder, settings)
        page = write_page(options.folder)
    columns = ["choice", "chosen", "runner-up", "margin", "swapped in the supernet", "swapped and retrained"]
    rows = []
    run = RecordedRun.read(options.folder)
    main = run.task.main
    for one in decisions(run):
        changes = (one.effect, one.retrained_effect)
        effects = ["" if change is None else change_in_words(main, change) for change in changes]
        rows.append([one.choice, one.option, one.runner_up or "-", _share(one.margin), *effects])
    title = (
        f"What each choice is worth, {'in points' if main.unit == '%' else 'as a change'} of validation {main.words}"
    )
    print_table(comparison_table(title, columns, rows))
    print(f"page: {page}")
    print(f"measured: {path}")


def _predict(options: argparse.Namespace) -> None:
    from nas.report.new_predictions import write_new_predictions  # reading data takes a while to import

    given = options.output, options.overwrite, options.settings
    print(write_new_predictions(options.folder, options.data, *given))


def _share(margin: float | None) -> str:
    return "" if margin is None else f"{margin:.3f}"


def _draw(options: argparse.Namespace) -> None:
    space, architecture, task_name = _architecture(options.architecture)
    path = Path(options.architecture)
    default = path / "figures" if os.path.isdir(path) else Path()
    name = options.architecture if not os.path.exists(path) and options.architecture.isidentifier() else "architecture"
    with _writing_into(path) if os.path.isdir(path) and options.output is None else nullcontext():
        figure = space_figure(space, architecture, options.title, task_name=task_name)
        drawings = save_drawing(figure, (options.output or default) / name)
        for folder in [path, *retrainings(path)] if os.path.isdir(path) else []:
            place = folder / "figures" if options.output is None else options.output / folder.relative_to(path)
            for name, figure in _of_samples(folder):
                drawings += save_drawing(figure, place / name)
    for written in drawings:
        print(f"drawing: {written}")


def _of_samples(folder: Path) -> Iterator[tuple[str, "Figure"]]:
    try:
        yield from drawn_samples(folder)
    except ValueError as error:
        raise UnusableInput(f"In {folder}, {error}.") from None


def _genotype(options: argparse.Namespace) -> None:
    space, architecture, _ = _architecture(options.architecture)
    text = published_text(space, architecture)
    if text is None:
        allowed = f"space={space.name} has no text of other code bases; final/network.py is plain PyTorch"
        raise InvalidValue("architecture", options.architecture, allowed)
    print(text)


def _architecture(named: str) -> tuple[SearchSpace, Architecture, str]:
    """What a run folder, a file, a published name or a text names: its space, and the name of its task.

    Raises:
        InvalidValue: ``named`` is none of these.
    """
    path = Path(named)
    text = None if os.path.isdir(path) else architecture_text(named)
    if text is not None:
        return *named_architecture(text, _space_named), "classification"
    found = recorded_candidate(path) if os.path.isdir(path) else None
    if found is None and not os.path.isfile(path):
        allowed = "it must be a run folder, a candidate.json, a published name or the text of an architecture"
        raise InvalidValue("architecture", named, allowed)
    found = found or read_candidate_file(path)
    return found.space, found.candidate.architecture, found.task["name"]


def _space_named(name: str) -> SearchSpace:
    """The space of a published architecture; the data's shape and classes do not matter to the drawing of a cell."""
    if name == "recurrent":
        return Recurrent(signature=Signature((35,), 10_000, "sequence", (10_000,)))
    space = {"darts": Darts, "nasbench201": NasBench201}[name]
    return space(signature=Signature((3, 32, 32), 10))


def _animate(options: argparse.Namespace) -> None:
    output = options.output or options.folder / "figures" / "search.gif"
    run = RecordedRun.read(options.folder)
    with _writing_into(options.folder) if options.output is None else nullcontext():
        path = write_animation(run, output)
    print(f"animation: {path}")


def _writing_into(folder: Path) -> AbstractContextManager[None]:
    """Own a run folder, or the folder of several, while something is written into it.

    Raises:
        InvalidValue: A run is writing into it.
    """
    if not folder.is_dir():  # which the command itself refuses
        return nullcontext()
    return claimed(folder, "folder", "wait until it has ended, or name another place with --output", wait=WAIT)


COMMANDS = {
    "page": _page,
    "compare": _compare,
    "why": _why,
    "predict": _predict,
    "draw": _draw,
    "genotype": _genotype,
    "animate": _animate,
}


if __name__ == "__main__":
    adapt_to_surroundings()
    main()
