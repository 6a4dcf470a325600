"""The chaos script in short: a search killed three times."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_search_survives_three_kills(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "chaos.py"), "--kills", "3", "--subjects", "gradient"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [*command, "--folder", str(tmp_path / "chaos")], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "0 of 1 subjects lost something" in found.stdout.splitlines()[-1]
