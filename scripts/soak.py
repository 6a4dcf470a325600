"""Searches and retrains over and over in one process: its memory must not grow, and no file may stay open.

    python scripts/soak.py --minutes 30

One round is a search, the same search resumed at its end, a black-box search and a retraining. The slope of the memory
is fitted over the rounds after the first fifth, which fills caches. Exit code 0 where it is below the limit and as many
files are open at the end as after the warm-up, 1 where not.
"""

import argparse
import contextlib
import gc
import io
import os
import runpy
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from configurations import configuration

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 0.25  # MiB per round
SMALL = ("experiment=debug", "search.epochs=2", "final.epochs=2", "data.split={train: 640, validation: 200, test: 397}")
BLACK_BOX = ("method=evolution", "budget.evaluations=6", "method.strategy.population=3", "evaluation.epochs=1")


def one_round(search: Callable[[Any, Path], None], final: Callable[[Any, Path], None], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for _ in range(2):
        search(configuration("train_search", SMALL), folder / "search")
    search(configuration("train_search", [*SMALL, *BLACK_BOX]), folder / "evolution")
    final(configuration("train_final", [*SMALL, f"candidate={folder / 'search'}"]), folder / "final")


def memory() -> float:
    """What this process holds in MiB, garbage not counted."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> list[str]:
    """Where this process's file handles lead, sorted."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that reads this folder is gone by now
            found.append(os.readlink(handle))
    return sorted(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"), help="emptied in every round")
    arguments = parser.parse_args()
    if not 0 < arguments.minutes < float("inf"):
        parser.error(f"--minutes={arguments.minutes} is not allowed: it must be a number above 0")
    torch.set_num_threads(1)
    search, final = (
        runpy.run_path(str(ROOT / name), run_name="imported")["run"] for name in ("train_search.py", "train_final.py")
    )
    folder = arguments.folder.resolve()
    began, told = time.monotonic(), 0.0
    used: list[float] = []
    opened: list[list[str]] = []
    while time.monotonic() - began < 60 * arguments.minutes or len(used) < 5:
        with contextlib.redirect_stdout(io.StringIO()):
            one_round(search, final, folder)
        used.append(memory())
        opened.append(open_files())
        minutes = (time.monotonic() - began) / 60
        if minutes - told >= 1:
            told = minutes
            print(f"{minutes:5.1f} min  round {len(used):>4}  {used[-1]:7.1f} MiB  {len(opened[-1])} files", flush=True)
    warm = max(1, len(used) // 5)
    slope = statistics.linear_regression(range(len(used) - warm), used[warm:]).slope
    left = [name for name in opened[-1] if opened[-1].count(name) > opened[warm].count(name)]
    for name in left:
        print(f"left open: {name}", file=sys.stderr)
    good = slope <= LIMIT and not left
    print(
        f"soak: {(time.monotonic() - began) / 60:.1f} minutes, {len(used)} rounds, memory {slope:+.3f} MiB per round "
        f"(limit {LIMIT}), now {used[-1]:.0f} MiB, {len(left)} more files open: {'passed' if good else 'FAILED'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
