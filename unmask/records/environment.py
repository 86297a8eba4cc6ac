"""The circumstances of a run, as far as this process can see them without loading a model or a framework."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unmask.records.sample import SCHEMA

PACKAGES = ("torch", "transformers", "lm-eval", "reasoning-gym", "datasets", "hydra-core")


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict:
    """What run.json says about where a result comes from.

    `git_commit` and `git_dirty` are None outside git, the commit also before the first one. Untracked files
    make a checkout dirty (a new decoder changes results), what runs write to results/ and figures/ does
    not. A package that is not installed has version None. The caller adds seeds, device, dtype, threads,
    model revision and the hash of the document set.
    """
    status = _git("status", "--porcelain", "--", ":/", ":(top,exclude)results", ":(top,exclude)figures")
    return {
        "schema": SCHEMA,
        "time": now(),
        "git_commit": _git("rev-parse", "--verify", "--quiet", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "packages": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _git(*arguments: str) -> str | None:
    """Output of a git command about this checkout, None where there is no git or no answer."""
    try:
        here = Path(__file__).parent
        done = subprocess.run(
            ("git", *arguments), cwd=here, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
