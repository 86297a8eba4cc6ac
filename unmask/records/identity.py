"""A resolved config as an identity: its hash, and what differs between two of them."""

import hashlib
import json
from collections.abc import Mapping, Sequence


def config_hash(config: Mapping) -> str:
    """12 hex digits that identify a config, whatever the order of its keys.

    The caller leaves out what cannot change a sample (limit, results) and puts in what can (dtype, seed). The
    config must be plain JSON; 1 and 1.0 are different values.
    """
    return hashlib.sha256(canonical(config).encode()).hexdigest()[:12]


def prompt_hash(ids: Sequence[int]) -> str:
    """12 hex digits of a prompt's ids, by which a sample names its prompt."""
    return hashlib.sha256(repr(list(ids)).encode()).hexdigest()[:12]


ABSENT = "(absent)"


def differences(theirs: Mapping, ours: Mapping) -> dict[str, tuple[object, object]]:
    """Dotted keys whose values differ between two nested configs, each with (theirs, ours) or "(absent)"."""
    left, right = flatten(theirs), flatten(ours)
    keys = sorted(left.keys() | right.keys())
    pairs = {key: (left.get(key, ABSENT), right.get(key, ABSENT)) for key in keys}
    return {key: pair for key, pair in pairs.items() if not _same(*pair)}


def _same(left: object, right: object) -> bool:
    """Whether two settings are one JSON text; 1, 1.0 and true are three."""
    if type(left) is type(right) and isinstance(left, str | int | None):  # most are, and need no writing
        return left == right
    return canonical(left) == canonical(right)


def flatten(config: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested settings by dotted key."""
    flat = {}
    for key, value in config.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def canonical(value: object) -> str:
    """The one JSON text of a value: keys sorted, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
