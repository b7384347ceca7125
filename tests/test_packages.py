"""The packages of requirements.lock: each allows the oldest Python that README names, none has a known weakness."""

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.nas.programs import ROOT

OLDEST = "3.11.0"


def test_what_is_installed_on_the_oldest_python_allows_it() -> None:
    """Debian 12 has Python 3.11.2, on which one package that asked for 3.11.5 stopped the whole installation."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines]
    python = {"python_version": "3.11", "python_full_version": OLDEST}
    checked = [
        package
        for package in pinned
        if (package.marker is None or (package.marker.evaluate(python) and package.marker.evaluate()))
        and package.specifier.contains(distribution(package.name).version)
    ]
    assert len(checked) > len(pinned) / 2
    refusing = [
        str(package)
        for package in checked
        if OLDEST not in SpecifierSet(distribution(package.name).metadata.get("Requires-Python", ""))
    ]
    assert refusing == []


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
