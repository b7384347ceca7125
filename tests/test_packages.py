"""That no package of requirements.lock has a weakness that is known."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.nas.programs import ROOT


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_package_has_a_weakness_that_is_known() -> None:
    """pip-audit asks the registry; where it cannot be, or knows nothing of weaknesses, the reason is printed."""
    if importlib.util.find_spec("pip_audit") is None:
        pytest.skip("pip-audit is not installed")
    command = [sys.executable, "-m", "pip_audit", "--requirement", "requirements.lock", "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=800)
    if not done.stdout.strip():
        pytest.skip(f"the registry cannot be asked: {done.stderr.strip().splitlines()[-1:]}")
    packages = json.loads(done.stdout)["dependencies"]
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        pytest.skip(f"the registry knows of no weaknesses: {packages[0]['skip_reason']}")
    weak = [f"{package['name']} {weakness['id']}" for package in audited for weakness in package["vulns"]]
    assert not weak
