"""The canvas: prompts of different lengths in one left-padded batch, or one prompt with a windowed cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from decoding.generation import Decoder, Role, Row
from decoding.sampling import Sampling, at_least_one, ban


def ids_of(row: Row, mask_id: int, end: int, device: torch.device) -> Tensor:
    """Prompt and the first `end` canvas positions of a row, masks where nothing is committed: (p + end,)."""
    canvas = [mask_id if token is None else token for token in row.canvas[:end]]
    return torch.cat((row.prompt, torch.tensor(canvas, dtype=torch.long, device=device)))


def left_padded(sequences: Sequence[Tensor], pad: int) -> tuple[Tensor, dict]:
    """One batch (b, n) and what a forward needs to know of its padding: nothing where all lengths agree, so that the
    attention kernels get no mask; otherwise `attention_mask` (b, n) and `fed`, the real tokens of each row."""
    fed = [len(s) for s in sequences]
    width = max(fed)
    ids = torch.stack([torch.nn.functional.pad(s, (width - len(s), 0), value=pad) for s in sequences])
    if min(fed) == width:
        return ids, {}
    lengths = torch.tensor(fed, device=ids.device)
    mask = (torch.arange(width, device=ids.device) >= width - lengths[:, None]).long()
    return ids, {"attention_mask": mask, "fed": fed}


def crop(cache: DynamicCache, length: int) -> None:
    """Keep the first `length` positions (transformers counts the positions to remove, as a negative number)."""
    cache.crop(min(0, length - cache.get_seq_length()))


def denoise(
    denoiser: Role, rows: Sequence[Row], mask_id: int, end: int, wanted: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Logits of each row's `wanted` canvas positions when only those left of `end` exist: (k, V) a row, mask id banned.

    One uncached forward over the left-padded prompts and canvases: canvas positions share columns.
    """
    device = rows[0].prompt.device
    ids, padding = left_padded([ids_of(row, mask_id, end, device) for row in rows], mask_id)
    most = max(map(len, wanted))
    # Rows that want fewer repeat their last position; what comes of it is cut off.
    columns = torch.tensor([[*w, *[w[-1]] * (most - len(w))] for w in wanted], device=device) + ids.size(1) - end
    logits = ban(denoiser(rows, ids, logits_to_keep=columns, **padding).logits, mask_id)
    return [scores[: len(w)] for scores, w in zip(logits, wanted, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Windowed(Sampling, Decoder):
    """What the decoders that go left to right have in common, besides Sampling:

    kv_window: W, positions whose keys and values are recomputed before the last step's tokens; None = all, exact.
    max_lookahead: M, masks that a forward sees; None = all up to the budget.
    """

    kv_window: int | None = None
    max_lookahead: int | None = None

    def __post_init__(self):
        super().__post_init__()
        at_least_one(max_lookahead=self.max_lookahead)
        window = self.kv_window
        if window is not None and (not isinstance(window, int) or window < 0):
            raise ValueError(f"kv_window={window!r} must be a whole number, 0 or more (null recomputes every position)")

    def canvas(self, denoiser: Role, row: Row, mask_id: int) -> WindowedDenoiser:
        return WindowedDenoiser(denoiser, row, mask_id, self.kv_window, self.max_lookahead)


class WindowedDenoiser:
    """One row decoded left to right with a recompute window (paper: W) and a lookahead (paper: M).

    With window W, the keys and values of positions left of t' - W are kept from earlier steps, t' being the first
    position that was masked when they were last computed: what the last step committed is always recomputed, since it
    was fed as masks. What was cached for masks is dropped. window=None recomputes everything and needs no cache.
    """

    def __init__(self, denoiser: Role, row: Row, mask_id: int, window: int | None, lookahead: int | None):
        self.denoiser, self.row, self.mask_id = denoiser, row, mask_id
        self.window, self.lookahead = window, lookahead
        self.cache = None if window is None else DynamicCache(config=denoiser.model.config)
        self.committed = None  # the row's prefix when the last forward ran

    def __call__(self, most: int | None = None) -> Tensor:
        """Logits of the first masks, as far as they exist, at most `most` of them: (k, V), mask id banned.

        `most` limits the rows that go through the head, not the masks that the forward sees.
        """
        row, device = self.row, self.row.prompt.device
        t, budget = row.prefix, len(row.canvas)
        end = budget if self.lookahead is None else min(budget, t + self.lookahead)
        ids = ids_of(row, self.mask_id, end, device)
        start = 0
        if self.cache is not None:
            if self.committed is not None:
                first = len(row.prompt) + t
                known = len(row.prompt) + self.committed
                # A denoiser that predicts token i from position i-1 must be fed i-1, window 0 included.
                start = max(0, min(known - self.window, first - self.denoiser.model.lookback))
            crop(self.cache, start)
        self.committed = t
        count = end - t if most is None else min(most, end - t)
        wanted = len(row.prompt) - start + t + torch.arange(count, device=device)
        output = self.denoiser([row], ids[None, start:], cache=self.cache, logits_to_keep=wanted)
        return ban(output.logits[0], self.mask_id)
