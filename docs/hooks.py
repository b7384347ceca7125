"""What mkdocs does for this site beside its plugins: pages from other folders, their links, the command reference.

A page links as on a code host, by paths inside the repository. Here a link to a page of the site leads there, one to
another file of the repository becomes its path, and one to nothing is a warning, which `--strict` makes an error.
"""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
_DOCS = _ROOT / "docs"
_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "studies/**/*.md", "benchmarks/results/*.md")
_PICTURES = "studies/*.png"
_PROGRAMS = ("search", "prepare", "finish", "status", "report", "export", "compare", "explain", "dashboard", "train")
_PROGRAMS += ("evaluate", "transfer", "table", "results.exports.check")
_COMMANDS = [
    *([f"nas.{program}"] for program in _PROGRAMS),
    ["metaformer"],
    *(["metaformer", command] for command in ("list", "show", "cost", "compare", "validate")),
]
_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_FETCHED = re.compile(r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*rel=["']?stylesheet[^>]*//""")
_log = logging.getLogger("mkdocs.hooks.docs")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that lie outside `docs/`, and the page of all programs' help."""
    for pattern in (*_PAGES, _PICTURES):
        for path in sorted(_ROOT.glob(pattern)):
            name = path.relative_to(_ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, "commands.md", content=_commands()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site, outside of code."""
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _linked(part, page.file, files) for part in parts)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Check that a page fetches nothing.

    Raises:
        PluginError: It does.
    """
    if found := _FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri}: would fetch {found[0]}")
    return output


def _linked(text: str, file: File, files: Files) -> str:
    folder = (_DOCS if str(file.abs_src_path or "").startswith(str(_DOCS)) else _ROOT) / Path(file.src_uri).parent

    def link(found: re.Match[str]) -> str:
        image, label, target = found.groups()
        url = urlsplit(target)
        if url.scheme or not url.path:
            return found[0]
        path = Path(os.path.normpath(folder / url.path))
        uri = path.relative_to(_DOCS if path.is_relative_to(_DOCS) else _ROOT).as_posix()
        if uri == "README.md":
            uri = "index.md"
        if files.get_file_from_path(uri) is not None:
            fragment = f"#{url.fragment}" if url.fragment else ""
            return f"{image}[{label}]({os.path.relpath(uri, Path(file.src_uri).parent)}{fragment})"
        if files.get_file_from_path(f"{uri}/README.md") is not None:
            return f"[{label}]({os.path.relpath(f'{uri}/README.md', Path(file.src_uri).parent)})"
        if not path.exists():
            _log.warning("%s links to %s, which does not exist", file.src_uri, target)
        return label if label.strip("`") == uri else f"{label} (`{uri}`)"

    return _LINK.sub(link, text)


def _commands() -> str:
    parts = ["# Command reference", "What each program says of itself with `--help`."]
    environment = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb", "PYTHONPATH": str(_ROOT)}
    for command in _COMMANDS:
        arguments = [sys.executable, "-m", *command, "--help"]
        done = subprocess.run(arguments, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # programs named above
        if done.returncode:
            raise PluginError(f"{' '.join(command)} --help: {done.stderr}")
        parts += [f"## `{' '.join(command)}`", f"```text\n{done.stdout.strip()}\n```"]
    return "\n\n".join(parts) + "\n"
