"""Where things lie and what could lie where; and what to do about what the Hub does not give."""

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


def hub_reason(error: BaseException, page: str) -> str:
    """Why something cannot be had from the Hub, in one line, from what its client raised. page: the name of a
    model's repository; of a data set, datasets/NAME.

    One that is gated is said to be, with what to do.
    """
    chain, causes = error, []
    while chain and chain not in causes:
        causes.append(chain)
        chain = chain.__cause__ or chain.__context__
    gated = any("gated" in type(cause).__name__.lower() or "is a gated" in str(cause) for cause in causes)
    if gated:
        return f"gated: accept its terms at https://huggingface.co/{page}, then log in with `hf auth login`"
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
