"""Which weights a folder holds: a hash of its files, remembered by path, time and size."""

import hashlib
import json
import os
from pathlib import Path

KINDS = ("*.safetensors", "*.bin", "*.gguf", "config.json", "adapter_config.json")


def fingerprint(folder: Path) -> str:
    """12 hex digits of the names and contents of a model folder's weights and configuration."""
    files = sorted(file for kind in KINDS for file in Path(folder).glob(kind))
    digests = [f"{file.name} {file_digest(file)}" for file in files]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:12]


def file_digest(file: Path) -> str:
    """SHA-256 of a whole file. Gigabytes take seconds: the answer is kept until the file changes."""
    stat = file.stat()
    key = f"{file.resolve()} {stat.st_mtime_ns} {stat.st_size}"
    known = _read()
    if key not in known:
        with file.open("rb") as stream:
            known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        _write(known)
    return known[key]


def _store() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "unmask" / "fingerprints.json"


def _read() -> dict[str, str]:
    try:
        return dict(json.loads(_store().read_text()))
    except (OSError, ValueError):  # none yet, or damaged: hash again
        return {}


def _write(known: dict[str, str]) -> None:
    try:
        _store().parent.mkdir(parents=True, exist_ok=True)
        partial = _store().with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(known, indent=0))
        partial.replace(_store())
    except OSError:
        pass  # a read-only home: hashing again is only slower
