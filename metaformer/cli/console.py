"""The consoles of all programs: what comes from files and people is printed as it is, and acts on no terminal."""

from rich.console import Console, HighlighterType, JustifyMethod, OverflowMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.style import Style
from rich.text import Text

from metaformer.errors import printable

_PLAIN_WIDTH = 132  # characters of a line where there is no terminal


class PlainConsole(Console):
    """A console that takes every text as plain: no markup such as `[/b]`, no `:emoji:`, no control characters.

    Style what is printed with `style=`, or print a `Text`.
    """

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        emoji: bool | None = None,
        markup: bool | None = None,
        highlight: bool | None = None,
        highlighter: HighlighterType | None = None,
    ) -> Text:
        """The text as rich prints it, everything in it escaped: each string, of a table's cell too, comes by here."""
        del emoji, markup
        return super().render_str(
            printable(text),
            style=style,
            justify=justify,
            overflow=overflow,
            emoji=False,
            markup=False,
            highlight=highlight,
            highlighter=highlighter,
        )


def make_console(*, stderr: bool = False, width: int = _PLAIN_WIDTH) -> PlainConsole:
    """A console on stdout or stderr; tables in a file are as wide as they need.

    Args:
        width: Characters of a line where there is no terminal.
    """
    console = PlainConsole(stderr=stderr, soft_wrap=True)
    return console if console.is_terminal else PlainConsole(stderr=stderr, soft_wrap=True, width=width)


def progress_bar() -> Progress:
    """A bar on stderr with what is done, of how much, and the time that is left; none where there is no terminal."""
    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
