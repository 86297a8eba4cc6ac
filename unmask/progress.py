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

BAR_ELSEWHERE = "UNMASK_BAR_ELSEWHERE"  # set for processes whose parent shows the progress of all


def progress_bar(disable: bool = False) -> Progress:
    """A bar with ETA on stderr, so that stdout stays for results. Of torchrun's processes the first shows
    one; of those on several cards, who started them."""
    others = os.environ.get("RANK", "0") != "0" or BAR_ELSEWHERE in os.environ
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    columns += (TextColumn("ETA"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=disable or others)
