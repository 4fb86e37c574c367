"""One progress bar for all long commands: on stderr, gone when the work is done, silent where nobody watches.

The beginning of each step goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger(__name__)

OnStep = Callable[[str, int, int], None]


@contextmanager
def progress() -> Iterator[OnStep]:
    """Yields what to call with the name of the step, and how many of its parts are done of how many."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        current = ""

        def on_step(name: str, done: int, total: int) -> None:
            nonlocal current
            if name != current:
                current = name
                _LOG.info(name, extra={"fields": {"done": done, "of": total}})
            bar.update(task, description=name, completed=done, total=total)

        yield on_step
