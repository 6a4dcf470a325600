"""The versions that the two commands install: exact ones for everything, and lower bounds that can be tested."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
INTERPRETER = """#!/usr/bin/env bash
echo "$*" >> "$(dirname "$0")/calls"
"""
PREPARE = 'source "{}/scripts/environment.sh" && prepare_environment {}'


def requirements() -> list[Requirement]:
    """What both commands install by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = [*project["dependencies"], *extras["dev"], *extras["hpo"], *extras["export"], *extras["table"]]
    return [one for one in map(Requirement, names) if one.name != project["name"]]


def versions(name: str) -> dict[str, str]:
    lines = (ROOT / "scripts" / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in pairs}


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    assert versions("lowest.txt") == {one.name: str(one.specifier).removeprefix(">=") for one in requirements()}


def test_every_requirement_has_a_tested_version_that_it_allows() -> None:
    tested = versions("constraints.txt")
    for one in requirements():
        assert one.specifier.contains(tested[one.name]), one


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose interpreter only notes how it was called."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/environment.sh", "scripts/constraints.txt", "scripts/lowest.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(INTERPRETER)
    python.chmod(0o755)
    return tmp_path


def installed(clone: Path, extra: str = '""', constraints: str | None = None) -> list[str]:
    """How pip was called to prepare the environment."""
    calls = clone / ".venv" / "bin" / "calls"
    calls.write_text("")
    environment = {key: value for key, value in os.environ.items() if key != "NAS_CONSTRAINTS"}
    if constraints is not None:
        environment["NAS_CONSTRAINTS"] = constraints
    command = ["bash", "-c", PREPARE.format(clone, extra)]
    subprocess.run(command, cwd=clone, env=environment, check=True)
    return calls.read_text().splitlines()


def test_the_tested_versions_are_installed_once(clone: Path) -> None:
    (call,) = installed(clone, "dev")
    assert call.endswith(f"--constraint {clone}/scripts/constraints.txt --editable {clone}[dev]")
    assert installed(clone, "dev") == []
    assert len(installed(clone)) == 1
    assert installed(clone, "dev") == []
    with (clone / "scripts" / "constraints.txt").open("a") as file:
        file.write("another==1.0\n")
    assert len(installed(clone, "dev")) == 1


def test_others_are_installed_where_they_are_asked_for_and_void_what_was_there(clone: Path) -> None:
    installed(clone)
    (newest,) = installed(clone, "dev", "")
    assert newest.endswith(f"--upgrade --upgrade-strategy eager --editable {clone}[dev]")
    assert len(installed(clone)) == 1
    (lowest,) = installed(clone, constraints="scripts/lowest.txt")
    assert f"--constraint scripts/lowest.txt --editable {clone}" in lowest


def test_an_installation_is_told_before_it_begins(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    installed(clone)
    told = capfd.readouterr()
    assert (told.out, f"Installing into {clone}/.venv, once" in told.err) == ("", True)
    installed(clone)
    assert capfd.readouterr().err == ""


def test_a_file_that_is_not_there_is_named(clone: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        installed(clone, constraints="scripts/none.txt")
    assert error.value.returncode == 2
