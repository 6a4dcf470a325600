"""``python -m nas.report``: a run's page and what else there is to see of it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.report.page import write_page
from nas.training.entry_point import guarded

COMMANDS = ("page",)


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] not in COMMANDS and not given[0].startswith("-"):
        given.insert(0, "page")
    options = _parser().parse_args(given)
    guarded(lambda: options.work(options), "python -m nas.report")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nas.report", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    page = commands.add_parser("page", help="write report.html anew; the word page may be left out")
    page.add_argument("folder", type=Path, nargs="+", help="run folders")
    page.set_defaults(work=_page)
    return parser


def _page(options: argparse.Namespace) -> None:
    for folder in options.folder:
        print(f"page: {write_page(folder)}")


if __name__ == "__main__":
    main()
