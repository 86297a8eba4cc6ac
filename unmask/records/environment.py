"""The circumstances of a run, as far as this process can see them without loading a model or a framework."""

import hashlib
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unmask.records.sample import SCHEMA

CHECKOUT = ("--", ":/", ":(top,exclude)results", ":(top,exclude)figures")  # what git is asked about
# What computes: folders and files of the checkout. Only their .py and .yaml files count.
COMPUTES = (
    *("unmask", "dream", "llada", "eval.py", "bench.py", "harness.py", "demo.py"),
    *(f"eval_config/{group}" for group in ("decoder", "model", "schema", "task", "tasks")),
)
IN_WHEELS = ("unmask/eval_config/", "unmask/doors/")
PACKAGES = ("torch", "transformers", "lm-eval", "reasoning-gym", "datasets", "hydra-core")


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment(device: object = None) -> dict:
    """What run.json says about where a result comes from.

    device: what `machine` is asked with. `git_commit` and `git_dirty` are None outside git, the commit also
    before the first one. A package that is not installed has version None. The caller adds what it alone
    knows: documents, metric, shapes.
    """
    git_commit, git_dirty = _checkout()
    return {
        "schema": SCHEMA,
        "time": now(),
        "git_commit": git_commit,
        "git_dirty": git_dirty,
        "packages": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": _cores(),
        "machine": machine(device),
    }


def machine(device: object = None) -> str:
    """Where samples are made: "<processor>, N cores, <6 hex digits of the SHA-256 of the host's name>".

    device: a torch.device; the processor is the accelerator that it names, if this machine has it, or else
        the CPU.
    """
    processor = accelerator(device) or _cpu()
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
    return f"{processor}, {_cores()} cores, {host}"


def accelerator(device: object = None) -> str | None:
    """The name of the accelerator that a torch.device names; None for a CPU, and where it is not here."""
    kind = getattr(device, "type", "cpu")
    if kind == "cpu":
        return None
    import torch  # whoever has such a device has loaded it

    module = torch.get_device_module(kind)
    if not module.is_available():
        return None
    return module.get_device_name(device) if hasattr(module, "get_device_name") else kind.upper()


@cache
def commit() -> str:
    """The code that this process runs: 12 hex digits of the SHA-256 of the files that compute (`COMPUTES`),
    their names and bytes.

    The same code has the same digits on every machine, in git or not; documentation, tests and results
    change nothing. Computed once a process: what changes on disk later is not what was loaded.
    """
    package = Path(__file__).parents[1]
    files: dict[str, Path] = {}  # by their names in a checkout
    for name in COMPUTES:
        lookups = (package.parent / name, package / name, package / "doors" / name)
        path = next((each for each in lookups if each.exists()), lookups[0])
        inner = {(Path(name) / file.relative_to(path)).as_posix(): file for file in path.rglob("*")}
        files |= {name: path} if path.is_file() else inner
    # A wheel holds configurations and doors inside the package.
    files = {name: path for name, path in files.items() if not name.startswith(IN_WHEELS)}
    content = hashlib.sha256()
    for name, path in sorted(files.items()):
        if path.suffix in (".py", ".yaml") and path.is_file():
            data = path.read_bytes()
            content.update(f"{name}\0{len(data)}\0".encode())
            content.update(data)
    return content.hexdigest()[:12]


def _checkout() -> tuple[str | None, bool | None]:
    """(commit, whether the checkout differs from it).

    For people to look up; samples are told apart by `commit`. What runs write to results/ and figures/ does
    not count.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None  # installed somewhere inside another project's checkout
    status = _git("status", "--porcelain", *CHECKOUT)
    return _git("rev-parse", "--verify", "--quiet", "HEAD"), None if status is None else bool(status)


def _git(*arguments: str) -> str | None:
    """Output of a git command about this checkout, None where there is no git or no answer."""
    try:
        here = Path(__file__).parent
        done = subprocess.run(
            ("git", *arguments),
            cwd=here,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
