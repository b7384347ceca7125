"""Additions of each kind, in a process of their own: what they register would be known to all other tests."""

import subprocess
import sys

import pytest

from tests.nas.programs import ROOT


@pytest.mark.slow
def test_one_addition_of_each_kind_works_as_contributing_says() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts/additions_check.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
