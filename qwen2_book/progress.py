"""A progress bar for whatever takes longer than two seconds."""

from collections.abc import Iterable

from rich.console import Console
from rich.progress import track

SHOW_FROM = 1 << 27  # bytes to convert from which on a bar is shown


def shown(parts: Iterable, count: int, what: str, size: int) -> Iterable:
    """The same parts, with a progress bar where they take a while and somebody watches."""
    console = Console(stderr=True)
    watched = console.is_terminal or console.is_jupyter
    if size < SHOW_FROM or not watched:
        return parts
    return track(parts, what, count, console=console, transient=True)
