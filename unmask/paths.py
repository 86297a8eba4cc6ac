"""Where this project lies on disk, and what could lie where."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # the checkout: configurations, checkpoints and results are looked up in it


def may_be_folder(path: Path) -> bool:
    """Whether a folder is there, or could be made: no file on the way, no name that is too long."""
    try:
        return next(each for each in (path, *path.parents) if each.exists()).is_dir()
    except (OSError, ValueError):  # too long, or a zero byte in it
        return False


def may_be_file(path: Path) -> bool:
    """Whether a file is there, or could be written."""
    try:
        return not path.is_dir() and may_be_folder(path.parent)
    except (OSError, ValueError):
        return False
