"""The canvas: a batch of rows at work, each at its own pace, and their keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from unmask.decoding.generation import Decoder, Models, Observer, Role, Row, Stop
from unmask.decoding.sampling import Sampling, at_least_one, ban


class SlotCache(Cache):
    """Keys and values of a batch whose rows have different lengths: slot j of a row holds its position j.

    Allocated once, at the first forward. What a forward feeds is written over what the slots held, and
    nothing right of a row's fed positions is attended: so going back needs no cropping, and no step copies
    what is kept.
    """

    def __init__(self, size: int, length: int):
        super().__init__(layers=[])
        self.size, self.length, self.kept = size, length, []  # rows and slots

    def allocate(self, model: torch.nn.Module) -> SlotCache:
        """Allocate all layers now, outside of compiled code, where they stay: a CUDA graph writes to
        addresses."""
        c, heads = model.config, model.config.num_key_value_heads or model.config.num_attention_heads
        shape = (2, self.size, heads, self.length + 1, c.hidden_size // c.num_attention_heads)
        self.kept = [
            list(torch.zeros(shape, dtype=model.dtype, device=model.device))
            for _ in range(c.num_hidden_layers)
        ]
        for keys, values in self.kept:
            torch._dynamo.mark_static_address(keys)
            torch._dynamo.mark_static_address(values)
        return self

    def place(self, rows: Tensor | None, slots: Tensor | range, end: int) -> None:
        """Where the next forward writes: `slots` as a range for all rows, or (len(rows), n); it reads the
        slots before `end`."""
        self.rows, self.slots, self.end = rows, slots, end

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        if layer_idx == len(self.kept):  # the one after the last slot takes padding
            self.kept.append(
                [
                    x.new_zeros(self.size, x.size(1), self.length + 1, x.size(3))
                    for x in (key_states, value_states)
                ]
            )
        found = []
        for kept, new in zip(self.kept[layer_idx], (key_states, value_states), strict=True):
            if isinstance(self.slots, range):
                kept[:, :, self.slots.start : self.slots.stop] = new
                found.append(kept[:, :, : self.end])
            else:
                kept[self.rows[:, None], :, self.slots] = new.transpose(1, 2)
                found.append(
                    kept[:, :, : self.end] if len(self.rows) == self.size else kept[self.rows, :, : self.end]
                )
        return tuple(found)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        self.size = len(rows)
        self.kept = [[x[rows] for x in layer] for layer in self.kept]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.slots.start if isinstance(self.slots, range) else 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.end, 0


class Board:
    """The unfinished rows of a batch. Column j of `ids` is a row's position j: its prompt, then its
    canvas."""

    def __init__(self, rows: Sequence[Row], models: Models):
        self.rows, self.bucket = list(rows), models.bucket
        if self.bucket > 1 and len(rows) > 1:
            raise ValueError("compiled models take one row at a time: batch_size=1, or compile=false")
        self.width = self.padded(max(len(row.prompt) + len(row.canvas) for row in rows))
        self.ids = torch.full((len(rows), self.width), models.mask_id or 0, device=models.device)
        for ids, row in zip(self.ids, rows, strict=True):
            ids[: len(row.prompt)] = row.prompt
        self.caches: dict[tuple, SlotCache] = models.caches if self.bucket > 1 else {}

    def padded(self, length: int) -> int:
        """The next multiple of the bucket."""
        return -(-length // self.bucket) * self.bucket

    @property
    def known(self) -> list[int]:
        """Per row, the column after its gapless prefix: the first mask of a decoder that goes left to
        right."""
        return [len(row.prompt) + row.prefix for row in self.rows]

    def cache(self, role: Role) -> SlotCache:
        key = role.name, self.width
        if key not in self.caches:
            fresh = SlotCache(len(self.rows), self.width)
            self.caches[key] = fresh.allocate(role.model) if self.bucket > 1 else fresh
        return self.caches[key]

    def tensor(self, values) -> Tensor:
        return torch.tensor(values, device=self.ids.device)

    def forward(
        self,
        role: Role,
        starts: Sequence[int],
        ends: Sequence[int],
        cached: bool,
        causal: bool = False,
        only: Sequence[int] | None = None,
        ids: Tensor | None = None,
        **kwargs,
    ):
        """One forward of the columns from start to end (one past the last) of every row, or of the rows
        `only`.

        A row attends to its columns before `end`; with `cached`, those before `start` are in the role's
        cache. Shorter rows are padded on the right with columns that nobody attends to. `ids` replaces the
        board's own; kwargs go to the model.
        """
        ids = self.ids if ids is None else ids
        only = None if only is not None and len(only) == len(self.rows) else only
        rows = self.rows if only is None else [self.rows[i] for i in only]
        end, fed = max(ends), [e - s for s, e in zip(starts, ends, strict=True)]
        even = only is None and min(ends) == end and len(set(starts)) == 1 and self.bucket == 1
        cache = self.cache(role) if cached else None
        if even:  # no padding: no mask, so that the attention kernels need none
            (start,) = set(starts)
            if cached:
                cache.place(None, range(start, end), end)
                kwargs["position_ids"] = torch.arange(start, end, device=ids.device).expand(len(rows), -1)
            return role(rows, ids[:, start:end], cache=cache, **kwargs)
        limits = self.tensor(ends)[:, None]
        columns = self.tensor(starts)[:, None] + torch.arange(self.padded(max(fed)), device=ids.device)
        chosen = torch.arange(len(rows), device=ids.device) if only is None else self.tensor(only)
        if self.bucket > 1:
            end = self.width if cached else columns.size(1)
        if cached:
            cache.place(chosen, columns.where(columns < limits, self.width), end)
        seen = torch.arange(end, device=ids.device)
        visible = (seen < limits)[:, None, None]
        if causal:
            visible = visible & (seen <= columns[:, None, :, None])
        inside = columns.clamp(max=self.width - 1)
        return role(
            rows,
            ids[chosen[:, None], inside],
            fed,
            cache,
            position_ids=columns,
            attention_mask=visible.expand(-1, -1, columns.size(1), -1),
            **kwargs,
        )

    def commit(
        self,
        positions: Sequence[Sequence[int]],
        ids: Sequence[Sequence[int]],
        stop: Stop,
        observer: Observer | None,
    ):
        """Commit each row's tokens (or none) at its canvas positions; finished rows leave the board and its
        caches."""
        places = [(i, len(row.prompt) + p) for i, row in enumerate(self.rows) for p in positions[i]]
        self.ids[tuple(self.tensor(places).T)] = self.tensor([token for row in ids for token in row])
        for row, where, what in zip(self.rows, positions, ids, strict=True):
            if len(where):
                row.commit(where, what, stop, observer)
        keep = [i for i, row in enumerate(self.rows) if not row.finished]
        if len(keep) < len(self.rows):
            self.rows = [self.rows[i] for i in keep]
            if keep:
                kept = self.tensor(keep)
                self.ids = self.ids[kept]
                for cache in self.caches.values():
                    cache.keep(kept)


class Marginals:
    """What a denoiser's forward knows of every fed column, as logits where they are asked for: the head runs
    on those alone."""

    def __init__(self, denoiser: Role, mask_id: int, hidden: Tensor, starts: Sequence[int]):
        self.denoiser, self.mask_id, self.hidden, self.starts = denoiser, mask_id, hidden, starts

    def logits(self, columns: Sequence[Sequence[int]], only: Sequence[int] | None = None) -> Tensor:
        """(rows, k, V) for each row's columns, k being the most that a row asks for: shorter lists repeat
        their last column.

        only: the rows that ask. The mask id is banned.
        """
        only = range(len(self.starts)) if only is None else only
        most = max(map(len, columns))
        asked = [
            [c - self.starts[i] for c in [*wanted, *[wanted[-1]] * (most - len(wanted))]]
            for i, wanted in zip(only, columns, strict=True)
        ]
        device = self.hidden.device
        rows = torch.tensor(list(only), device=device)[:, None]
        return ban(
            self.denoiser.model.lm_head(self.hidden[rows, torch.tensor(asked, device=device)]), self.mask_id
        )


def denoise(
    board: Board,
    denoiser: Role,
    mask_id: int,
    starts: Sequence[int],
    ends: Sequence[int],
    cached: bool,
    only: Sequence[int] | None = None,
) -> Marginals:
    """One forward of a denoiser over the columns from start to end, of every row or of the rows `only`; the
    head waits."""
    hidden = board.forward(denoiser, starts, ends, cached, only=only, logits_to_keep=None).hidden_states[-1]
    if board.bucket > 1:
        hidden = hidden.clone()  # what a CUDA graph returns is overwritten when the next one runs
    return Marginals(denoiser, mask_id, hidden, starts)


@dataclass(frozen=True, kw_only=True)
class Windowed(Sampling, Decoder):
    """What the decoders that go left to right have in common, besides Sampling:

    kv_window: W, positions whose keys and values are recomputed before the last step's tokens; None = all,
        exact.
    max_lookahead: M, masks that a forward sees; None = all up to the budget.

    With window W, the keys and values of positions left of t' - W are kept from earlier steps, t' being the
    first position that was masked when they were last computed: what the last step committed is always
    recomputed, since it was fed as masks.
    """

    kv_window: int | None = None
    max_lookahead: int | None = None

    def __post_init__(self):
        super().__post_init__()
        at_least_one(max_lookahead=self.max_lookahead)
        window = self.kv_window
        if window is not None and (not isinstance(window, int) or window < 0):
            raise ValueError(
                f"kv_window={window!r} must be a whole number, 0 or more (null recomputes every position)"
            )

    def look(self, models: Models, board: Board, denoiser: Role) -> tuple[Marginals, list[range]]:
        """One forward; what it knows, and the columns of the masks that each row has in it."""
        first, starts = board.known, [0] * len(board.rows)
        ends = [len(row.prompt) + len(row.canvas) for row in board.rows]
        if self.max_lookahead is not None:
            ends = [min(end, t + self.max_lookahead) for end, t in zip(ends, first, strict=True)]
        if self.kv_window is not None:
            for i, (row, t) in enumerate(zip(board.rows, first, strict=True)):
                if denoiser.name in row.cached:
                    # A denoiser that predicts token i from position i-1 must be fed i-1, window 0 included.
                    starts[i] = max(
                        0, min(row.cached[denoiser.name] - self.kv_window, t - denoiser.model.lookback)
                    )
                row.cached[denoiser.name] = t
        marginals = denoise(board, denoiser, models.mask_id, starts, ends, cached=self.kv_window is not None)
        return marginals, [range(t, end) for t, end in zip(first, ends, strict=True)]
