"""The documentation as a site in a real browser: every page, its links, its two looks."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

from tests.nas.programs import ROOT
from tests.services.browser import Watched, open_page

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("browser")]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class calls it so
        """Nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    outcome = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_page_opens_without_errors_and_every_link_within_the_site_resolves(
    browser: Any, site: Path, address: str
) -> None:
    pages = sorted(f"{address}/{path.relative_to(site).as_posix()}" for path in site.rglob("*.html"))
    pages.remove(f"{address}/404.html")
    anchors: dict[str, set[str]] = {}
    links: dict[str, set[str]] = {}
    with open_page(browser) as watched:
        for url in pages:
            watched.page.goto(url)
            ids = watched.page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
            hrefs = watched.page.evaluate("[...document.querySelectorAll('a[href]')].map(one => one.href)")
            sources = watched.page.evaluate("[...document.images].map(one => one.src)")
            assert watched.page.evaluate("[...document.images].every(one => one.naturalWidth > 0)"), url
            anchors[url] = set(ids)
            links[url] = {href for href in (*hrefs, *sources) if href.startswith(address)}
        watched.check()
    broken = [
        (page, link)
        for page, found in links.items()
        for link in found
        if not resolves(link, address=address, site=site, anchors=anchors)
    ]
    assert broken == []


def resolves(link: str, *, address: str, site: Path, anchors: dict[str, set[str]]) -> bool:
    """Whether a link within the site leads to a file of it and, where it names one, to an anchor there."""
    url, fragment = urldefrag(link)
    path = site / unquote(url.removeprefix(f"{address}/"))
    if path.is_dir():
        path, url = path / "index.html", f"{url.rstrip('/')}/index.html"
    return path.is_file() and (not fragment or unquote(fragment) in anchors.get(url, set()))


def test_a_reader_switches_between_light_and_dark_and_searches(browser: Any, address: str, tmp_path: Path) -> None:
    with open_page(browser) as watched:
        watched.page.goto(f"{address}/index.html")
        light = background(watched)
        watched.page.screenshot(path=tmp_path / "light.png")
        watched.page.get_by_title("Switch to dark").click()
        dark = background(watched)
        assert light != dark
        watched.page.screenshot(path=tmp_path / "dark.png")
        watched.page.goto(f"{address}/options.html")
        assert background(watched) == dark  # it is remembered
        watched.page.screenshot(path=tmp_path / "options.png", full_page=True)
        watched.page.get_by_title("Switch to light").click()
        assert background(watched) == light
        watched.page.locator("input[name=query]").click()
        watched.page.keyboard.type("hypervolume")
        watched.page.locator(".md-search-result__item").first.wait_for()
        watched.check()
    with open_page(browser, colours="dark") as watched:
        watched.page.goto(f"{address}/index.html")
        assert background(watched) == dark
        watched.check()


def background(watched: Watched) -> str:
    colour = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert isinstance(colour, str)
    return colour
