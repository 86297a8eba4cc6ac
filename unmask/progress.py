"""How a long command shows where it is."""

import os

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_bar(disable: bool = False) -> Progress:
    """A bar with ETA on stderr, so that stdout stays for results. Of torchrun's processes the first shows
    one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    columns += (TextColumn("ETA"), TimeRemainingColumn())
    return Progress(
        *columns, console=Console(stderr=True), disable=disable or os.environ.get("RANK", "0") != "0"
    )
