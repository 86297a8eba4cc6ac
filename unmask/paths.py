"""Where things lie and what could lie where; and what to do about what the Hub does not give."""

from pathlib import Path

PACKAGE = Path(__file__).parent
INSTALLED = (
    PACKAGE / "eval_config"
).is_dir()  # from a wheel, which holds what lies beside a checkout's package
SHIPPED = PACKAGE if INSTALLED else PACKAGE.parent  # where configurations and checkpoints lie
ROOT = Path.cwd() if INSTALLED else PACKAGE.parent  # what settings name is relative to it: results, models
CONFIGURATIONS = SHIPPED / "eval_config"


def lookups(path: str | Path) -> tuple[Path, ...]:
    """Where a model's folder or a file may lie: as it is written, in the project, among what is shipped."""
    return tuple(dict.fromkeys((Path(path), ROOT / path, SHIPPED / path)))


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
