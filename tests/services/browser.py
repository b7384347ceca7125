"""Debian's chromium, driven by Playwright, and what happens on its pages."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.nas.programs import PATIENCE

OURS = {"127.0.0.1", None}  # hosts that a page may ask; None: no host, as of file: and data:


@dataclass
class Watched:
    """A page, the errors that its console showed, and the addresses that it asked for."""

    page: Any  # playwright is not there on every machine
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def asked_elsewhere(self) -> list[str]:
        """Addresses of other hosts than this machine."""
        return [url for url in self.asked if urlsplit(url).hostname not in OURS]

    def check(self) -> None:
        """Check that no console has shown an error, and that no other host was asked."""
        assert (self.errors, self.asked_elsewhere) == ([], [])


@contextmanager
def running_browser() -> Iterator[Any]:
    """A browser without a window; the test is skipped where there cannot be one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or _install()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        )
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Any, *, width: int = 1280, height: int = 900, colours: str = "light") -> Iterator[Watched]:
    """An empty page that is watched from its beginning.

    Args:
        colours: What the reader's machine prefers, light or dark.
    """
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=colours)
    page.set_default_timeout(1000 * PATIENCE)
    watched = Watched(page)
    page.on(
        "console", lambda said: watched.errors.append(f"{said.text} ({page.url})") if said.type == "error" else None
    )
    page.on("pageerror", lambda error: watched.errors.append(f"{error} ({page.url})"))
    page.on("request", lambda request: watched.asked.append(request.url))
    yield watched
    page.close()


def _install() -> str:
    """Debian's package, where this user may install it."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("no chromium here, and only root can install Debian's package (apt-get install chromium)")
    command = ["apt-get", "install", "-y", "-q", "-o", "DPkg::Lock::Timeout=600", "chromium"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    program = shutil.which("chromium")
    if program is None:
        said = (outcome.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"no chromium here, and apt-get install chromium failed: {said}")
    return program
