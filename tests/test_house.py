"""The map in ``nas/README.md`` is true: imports point downwards, and files and names keep to the rules of the house."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the ground up. The packages of a floor do not know each other.
FLOORS = (
    {"errors", "stopping", "surroundings", "typed_settings"},
    {"candidate", "configuration", "distributed", "relaxations", "signature"},
    {"data", "device", "operations"},
    {"hyperparameters", "spaces", "tasks"},
    {"run"},
    {"training"},
    {"bilevel", "evaluation"},
    {"interop", "search"},
    {"report"},
    {"baselines"},
    {"train_search", "train_final"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
UNNAMED = {"utils", "util", "helpers", "helper", "common", "misc"}  # names that tell no subject
MOST_LINES = 500
TOP = {
    *(
        ".ci",
        ".gitattributes",
        ".github",
        ".gitignore",
        ".pre-commit-config.yaml",
        "LICENSE",
        "README.md",
        "conf",
        "nas",
    ),
    *("pyproject.toml", "scripts", "tests", "train_final.py", "train_search.py"),
}


def sources() -> list[Path]:
    """The modules of the package, and the entry points."""
    return [*sorted((ROOT / "nas").rglob("*.py")), ROOT / "train_search.py", ROOT / "train_final.py"]


def package_of(path: Path) -> str:
    """``bilevel`` for any file in ``nas/bilevel``, ``errors`` for ``nas/errors.py``; an entry point's own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "nas" else parts[0]


def imported_packages(source: str) -> Iterator[str]:
    """The packages of ``nas`` that ``source`` imports anywhere, in a function or for a type, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            own = node.module == "nas"
            names = [f"nas.{alias.name}" for alias in node.names] if own else [node.module]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("nas."))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    package = package_of(path)
    if package == "__init__":  # of nas itself, which is below everything
        assert set(imported_packages(path.read_text(encoding="utf-8"))) == set()
        return
    others = set(imported_packages(path.read_text(encoding="utf-8"))) - {package}
    assert {other for other in others if FLOOR[other] >= FLOOR[package]} == set()


def test_every_package_has_a_floor() -> None:
    assert {package_of(path) for path in sources()} - {"__init__"} == FLOOR.keys()


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import nas.run.loop\nfrom nas import errors\ndef f():\n    from nas.report.page import write_page\n"
    assert list(imported_packages(source)) == ["run", "errors", "report"]


def tracked_files() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).exists()]


def test_the_top_level_holds_what_the_map_shows() -> None:
    assert {path.parts[0] for path in tracked_files()} == TOP


def test_files_are_named_after_their_subject() -> None:
    assert [path for path in tracked_files() if path.stem.lower().strip("_") in UNNAMED] == []


def test_no_file_of_the_package_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}
