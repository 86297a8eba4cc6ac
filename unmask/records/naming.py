"""What a run is called in tables and figures: from its identity, in the paper's symbols."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from unmask.records.identity import canonical, flatten

SYMBOLS = {
    "mixture_weight": "R",
    "tokens_per_step": "K",
    "kv_window": "W",
    "max_lookahead": "M",
    "steps": "T",
    "block_length": "B",
    "threshold": "tau",
    "factor": "f",
    "bound": "gamma",
    "skip_threshold": "c",
    "entropy_max": "H",
    "block_add_threshold": "add",
    "decoded_token_threshold": "act",
}
# Settings that a decoder's name implies, or that belong to its model.
IMPLIED = {
    *("name", "rank", "rank_tempered", "temperature", "top_p", "top_k", "chunk", "coupling"),
    "frequencies",
}
# Values that go without saying. A quota is its model's own, or is told by its limit (tau, f, gamma).
ORDINARY = {
    "quota": {
        *("even", "dream", "threshold", "factor", "entropy_bound"),
        *("near_ties", "hierarchy", "stable"),
    },
    "unmask_strategy": {"all"},
    "empty_steps": {False},
    "whole_exploration": {False},
    "fallback": {"default"},
    "cache": {"exact"},
    "store": {"fused"},
    "visible": {"block_causal"},
    "alpha": {0.0},
    "branch_topp": {1.0},
    "least": {1},
    "max_post_edit_steps": {16},
    "penalty_lambda": {0.0},
    "published_shift": {False},
    "verify": {"exact"},
}


def check_name(key: str, value: object) -> None:
    """ValueError naming the key, unless the value can name a folder and stand in a table: letters, digits and
    _ . -, not starting with a dot, at most 80 characters."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}", value):
        raise ValueError(
            f"{key}={str(value)[:90]!r}: results are filed by it, so it must be 1 to 80 letters, digits and "
            "_ . -, and not start with a dot"
        )


def label(config: Mapping, without: str | None = None) -> str:
    """A decoder and its settings in a few words, as in "apd R=0.5 W=16".

    config: an identity. without: the key of a setting to leave out (decoder.mixture_weight).
    """
    decoder = config["decoder"]
    shown = {
        SYMBOLS.get(key, key): decoder[key]
        for key in [*SYMBOLS, *sorted(decoder.keys() - SYMBOLS)]  # a stored identity has lost its order
        if decoder.get(key) is not None and key not in IMPLIED and f"decoder.{key}" != without
    }
    shown = {key: value for key, value in shown.items() if value not in ORDINARY.get(key, ())}
    return " ".join([decoder["name"], *(f"{key}={value}" for key, value in shown.items())])


def labels(configs: Sequence[Mapping], without: str | None = None) -> list[str]:
    """A label for each; where several would be the same, what else they differ in is added.

    As in "leftright K=1, task=gsm_symbolic" beside "leftright K=1, task=chain_sum".
    """
    names = [label(config, without) for config in configs]
    counts = Counter(names)
    flat = [flatten(config) for config in configs]
    found = []
    for name, mine in zip(names, flat, strict=True):
        if counts[name] > 1:
            twins = [other for other, theirs in zip(flat, names, strict=True) if theirs == name]
            name = ", ".join([name, *_additions(mine, twins, without)])
        found.append(name)
    return found


def telling(differing: Sequence[str]) -> list[str]:
    """Of the dotted keys in which identities differ, those that tell it: of another model, task or
    decoder the name is enough."""
    named = tuple(key.removesuffix("name") for key in differing if key.endswith(".name"))
    return [key for key in differing if key.endswith(".name") or not key.startswith(named)]


def main_model(config: Mapping) -> Mapping:
    """The model of the first role, whose forwards are the steps."""
    return config["models"][config["roles"][0]]


def symbols(config: Mapping) -> dict[str, object]:
    """The value of each symbol (R, K, W, ...); None where the decoder has no such setting."""
    return {symbol: config["decoder"].get(key) for key, symbol in SYMBOLS.items()}


def _additions(mine: Mapping, twins: Sequence[Mapping], without: str | None) -> list[str]:
    """The settings in which `mine` differs from any of its twins; of another model or task the name is
    enough."""
    differing = [
        key for key in mine if key != without and len({canonical(twin.get(key)) for twin in twins}) > 1
    ]
    kept = telling(differing)
    return [f"{_short(key)}={'null' if mine[key] is None else mine[key]}" for key in kept]


def _short(key: str) -> str:
    parts = key.split(".")
    return parts[-2] if parts[-1] == "name" else parts[-1]
