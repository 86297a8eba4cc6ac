"""What the commit order of a record says about each step: tokens, drafts, states of blocks.

Everything follows from `commits` and the decoder's settings, so that no decoder has to be run.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from unmask.records.sample import committed, step_role

WAITING, BEGUN, FULL, DECODED = "wbfd"  # states of a block


def drafts(sample: Mapping, config: Mapping, longest: int | None = None) -> list[tuple[int, int]] | None:
    """(drafted, accepted) of each step, where the decoder drafts and a second model or rule judges; else
    None.

    longest: B of a decoder with a drafter, where its settings leave that to the drafter.

    APD drafts and judges a chunk of the masks that it sees, and the next one while all is accepted. A decoder
    with a drafter drafts B - 1 tokens, none in its first step, and the last token of a step is the target's
    own: it is not among the accepted ones.
    """
    decoder, max_new_tokens, counts = config["decoder"], sample["max_new_tokens"], committed(sample)
    before = np.cumsum([0, *counts[:-1]]).tolist()
    if "mixture_weight" in decoder:
        sees, chunk = decoder["max_lookahead"] or max_new_tokens, decoder["chunk"] or max_new_tokens
        masks = [min(sees, max_new_tokens - known) for known in before]
        return [(min(n, chunk * (k // chunk + 1)), k) for n, k in zip(masks, counts, strict=True)]
    if "drafter" in config["roles"] and not decoder["name"].startswith("transformers"):
        block = decoder.get("block_length") or longest or max(counts)
        sizes = [min(block, max_new_tokens - known) if known else 1 for known in before]
        return [(size - 1, count - 1) for size, count in zip(sizes, counts, strict=True)]
    return None


def blocks(sample: Mapping, config: Mapping) -> list[str] | None:
    """The states of a pipeline's blocks after each step, a letter a block; None for other decoders.

    w: waiting, or given up. b: begun. f: full, it commits a token every step. d: decoded. The rules are those
    of `decoding.pipeline`. Where MultiBlock writes over what stood right of an end, a record has the last
    step alone: blocks from there on may count as decoded later than they were.
    """
    decoder = config["decoder"]
    if "block_add_threshold" not in decoder:
        return None
    length, wanted = decoder["block_length"], sample["max_new_tokens"]
    count = -(-wanted // length)
    commits = np.full(wanted, np.inf)
    known = np.array(sample["commits"], float)
    commits[: len(known)] = np.where(known < 0, np.inf, known)
    spans = [slice(k * length, (k + 1) * length) for k in range(count)]
    ends = _ends(sample) if decoder["name"] == "d2f" else []
    full, states = [], []
    for step in range(sample["forwards"][step_role(sample)]):
        share = [float((commits[span] < step).mean()) for span in spans]
        if len(full) * length < wanted and (
            not full or share[len(full) - 1] >= decoder["block_add_threshold"]
        ):
            full.append(False)
        for block in range(len(full)):
            full[block] = full[block] or not block or share[block - 1] >= decoder["decoded_token_threshold"]
        given = [position for position in ends if commits[position] <= step]
        if given:  # D2F appends no more blocks, and gives up those right of the end
            if decoder.get("after_end") != "fill":  # an identity leaves out what is "none"
                del full[min(given) // length + 1 :]
            wanted = min(wanted, len(full) * length)
        done = [bool((commits[span] <= step).all()) for span in spans]
        letters = [
            DECODED if done[k] else WAITING if k >= len(full) else FULL if full[k] else BEGUN
            for k in range(count)
        ]
        states.append("".join(letters))
    return states


def _ends(sample: Mapping) -> Sequence[int]:
    """Canvas positions that hold the token that ended the answer."""
    if sample["finish"] != "stop":
        return []
    positions = [position for position, step in enumerate(sample["commits"]) if step >= 0]
    end = sample["ids"][sample["useful"]]
    return [position for position, token in zip(positions, sample["ids"], strict=True) if token == end]
