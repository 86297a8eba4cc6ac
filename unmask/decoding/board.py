"""The board: a batch of rows at work, each at its own pace, with the models and their keys and values.

Column j of a row is its position j: first its prompt, then its canvas.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from unmask.decoding.cache import SlotCache
from unmask.decoding.generation import Observer, Stop
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import exclude
from unmask.decoding.visibility import attention_mask, block_causal, causal, full, origin

ENDLESS = Stop()
READY = 2  # forwards of a shape that make a compiled model ready for it
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Models:
    """The models that a decoder runs on, by role.

    bucket: 1, or the multiple that fed and cached lengths are padded to, so that compiled models meet few
    shapes; then caches are kept in `caches` from answer to answer, since a CUDA graph needs them to stay, and
    `shapes` counts the forwards by role, length fed and length seen.
    """

    by_role: Mapping[str, torch.nn.Module]
    bucket: int = 1
    caches: dict = field(default_factory=dict)
    shapes: Counter = field(default_factory=Counter)

    def __getitem__(self, role: str) -> torch.nn.Module:
        return self.by_role[role]

    def compiled(self, bucket: int = 32, **options) -> Models:
        """The same models with their bodies under torch.compile, for batches of one row.

        options: torch.compile's; by default CUDA graphs ("reduce-overhead").
        """
        import torch._dynamo  # takes seconds: only where it is used

        torch._dynamo.config.recompile_limit = 64  # a graph for every multiple of the bucket
        for model in self.by_role.values():
            getattr(model, "model", model).compile(dynamic=False, **(options or {"mode": "reduce-overhead"}))
        return replace(self, bucket=bucket)

    def settled(self, measure: Callable[[], Measured]) -> Measured:
        """measure(), again until no model is made ready in it.

        A compiled model compiles a shape when it first meets it, records a CUDA graph at the second time and
        replays that from the third on: only then does a clock measure decoding.
        """
        while True:
            before = Counter(self.shapes)
            measured = measure()
            if all(before[shape] >= READY for shape, count in self.shapes.items() if count > before[shape]):
                return measured

    @property
    def main(self) -> torch.nn.Module:
        """The model of the first role."""
        return next(iter(self.by_role.values()))

    @property
    def mask_id(self) -> int | None:
        """The first model's mask id, which must never come out; None where it has none."""
        return getattr(self.main.config, "mask_token_id", None)

    @property
    def eos_ids(self) -> list[int]:
        """The EOS ids of the first model's configuration; empty where it has none."""
        ids = getattr(self.main.config, "eos_token_id", None)
        return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)

    @property
    def device(self) -> torch.device:
        return self.main.device


class Columns(tuple):
    """Columns of a row that are no range, from the left."""

    start = property(lambda self: self[0])
    stop = property(lambda self: self[-1] + 1)


@dataclass(frozen=True)
class Fed:
    """What the rows are fed in a forward, and what the fed columns see.

    columns: a range of columns per row, or `Columns`. Shorter ones are padded on the right with columns
        nobody sees.
    sees: `causal`; the length of a block, for block-causal attention; or None: every fed column sees up to
        the end of what its row is fed (see visibility.py).
    reach: per row, the column before which everything seen must lie, where cached columns right of the fed
        ones are to be seen too (a dual cache). None: the end of what the row is fed.
    only: indices of the rows that take part, to which the other fields belong; None: all.
    """

    columns: Sequence[range | Columns]
    sees: Callable[[Tensor], Tensor] | int | None = None
    reach: Sequence[int] | None = None
    only: Sequence[int] | None = None

    @property
    def bounds(self) -> list[int]:
        """Per row, the column before which everything seen lies."""
        return [columns.stop for columns in self.columns] if self.reach is None else list(self.reach)


class Board:
    """The unfinished rows of a batch. `ids` (rows, columns) holds prompts and canvases, masks included."""

    def __init__(self, rows: Sequence[Row], models: Models, stop: Stop = ENDLESS):
        self.rows, self.models, self.stop, self.bucket = list(rows), models, stop, models.bucket
        if self.bucket > 1 and len(rows) > 1:
            raise ValueError("compiled models take one row at a time: batch_size=1, or compile=false")
        self.width = self.padded(max(row.columns for row in rows))
        self.ids = torch.full((len(rows), self.width), models.mask_id or 0, device=models.device)
        for ids, row in zip(self.ids, rows, strict=True):
            ids[: len(row.prompt)] = row.prompt
        self.caches: dict[tuple, SlotCache] = models.caches if self.bucket > 1 else {}
        for cache in self.caches.values():
            cache.valid = [0] * cache.size

    def padded(self, length: int) -> int:
        """The next multiple of the bucket."""
        return -(-length // self.bucket) * self.bucket

    def tensor(self, values) -> Tensor:
        return torch.tensor(values, device=self.ids.device)

    def cache(self, role: str) -> SlotCache:
        """The role's keys and values, allocated when first asked for."""
        key = role, self.width
        if key not in self.caches:
            fresh = SlotCache(len(self.rows), self.width)
            self.caches[key] = fresh.allocate(self.models[role]) if self.bucket > 1 else fresh
        return self.caches[key]

    def valid(self, role: str, only: Sequence[int] | None = None) -> list[int]:
        """Per row (or row in `only`), the columns from the left that the role need not be fed again."""
        valid = self.cache(role).valid
        return list(valid) if only is None else [valid[i] for i in only]

    def forward(self, role: str, fed: Fed, cached: bool = False, ids: Tensor | None = None, **kwargs):
        """One forward of a role, counted.

        Args:
            fed: what every row is fed and sees.
            cached: attend to the role's cached columns too, and write the fed ones there.
            ids: (rows, columns) instead of the board's own, as when a draft is judged.
            kwargs: go to the model.
        """
        ids = self.ids if ids is None else ids
        if fed.only is not None and len(fed.only) == len(self.rows):
            fed = replace(fed, only=None)
        for i, columns in zip(self._taking_part(fed), fed.columns, strict=True):
            self.rows[i].count(role, len(columns))
        cache = self.cache(role) if cached else None
        if cached:
            self._keep(role, cache, fed)
        alike = self._alike(role, fed)
        inputs = self._shared_inputs(fed, ids, cache) if alike else self._masked_inputs(role, fed, ids, cache)
        return self.models[role](**inputs, past_key_values=cache, use_cache=cached, **kwargs)

    def _taking_part(self, fed: Fed) -> Sequence[int]:
        """The rows that a forward is about, as indices."""
        return range(len(self.rows)) if fed.only is None else fed.only

    def _alike(self, role: str, fed: Fed) -> bool:
        """Whether all rows are fed the same columns and see just what the model lets them see by itself.

        Then nothing is padded, and the attention kernels need no mask.
        """
        native = causal if getattr(self.models[role].config, "is_causal", True) else None
        natural = fed.sees is native and fed.reach is None
        return natural and fed.only is None and self.bucket == 1 and len(set(fed.columns)) == 1

    def _shared_inputs(self, fed: Fed, ids: Tensor, cache: SlotCache | None) -> dict:
        """What the model gets where all rows are alike."""
        columns = fed.columns[0]
        inputs = {"input_ids": ids[:, columns.start : columns.stop]}
        if cache is not None:
            cache.write_at(None, columns, columns.stop)
            positions = torch.arange(columns.start, columns.stop, device=ids.device)
            inputs["position_ids"] = positions.expand(len(ids), -1)
        return inputs

    def _masked_inputs(self, role: str, fed: Fed, ids: Tensor, cache: SlotCache | None) -> dict:
        """What the model gets where rows differ: columns of their own, and a mask."""
        device = ids.device
        starts, ends = (self.tensor([getattr(c, edge) for c in fed.columns]) for edge in ("start", "stop"))
        n = self.padded(max(map(len, fed.columns)))
        columns = starts[:, None] + torch.arange(n, device=device)
        if any(isinstance(mine, Columns) for mine in fed.columns):  # padding stands right of all columns
            beyond = range(self.width, self.width + n)
            columns = self.tensor([[*mine, *beyond[: n - len(mine)]] for mine in fed.columns])
        rows = torch.arange(len(ids), device=device) if fed.only is None else self.tensor(fed.only)
        end = max(fed.bounds)  # of the columns that are seen
        if self.bucket > 1:
            end = self.width if cache is not None else columns.size(1)
            self.models.shapes[role, columns.size(1), end] += 1
        if cache is not None:
            cache.write_at(rows, columns.where(columns < ends[:, None], self.width), end)
        return {
            "input_ids": ids[rows].gather(1, columns.clamp(max=self.width - 1)),
            "position_ids": columns,
            "attention_mask": attention_mask(
                self._limits(role, fed, columns), torch.arange(end, device=device)
            ),
        }

    def origin(self, role: str, row: Row, block_length: int) -> int:
        """The column from which the role's model counts a row's blocks."""
        layout = getattr(self.models[role], "layout", None)
        return origin(layout.blocks_from if layout else "prompt", len(row.prompt), block_length)

    def shift(self, role: str, row: Row, block_length: int) -> int:
        """Columns of the prompt that share a block with the first canvas position."""
        return (len(row.prompt) - self.origin(role, row, block_length)) % block_length

    def _limits(self, role: str, fed: Fed, columns: Tensor) -> Tensor:
        """The column before which each fed column sees: (rows, n) -> (rows, n)."""
        limits = full(columns, self.tensor(fed.bounds))
        if isinstance(fed.sees, int):
            origins = [self.origin(role, self.rows[i], fed.sees) for i in self._taking_part(fed)]
            return limits.minimum(block_causal(columns, self.tensor(origins), fed.sees))
        return limits if fed.sees is None else limits.minimum(fed.sees(columns))

    def absorb(self, role: str, fed: Sequence[range], features: Tensor, ends: Sequence[int]) -> None:
        """Write into a drafter's cache what it makes of a target's features: of each row's columns `fed`,
        those before `ends`. No token goes through the drafter, so no forward is counted.

        features: (rows, n, ...), of the columns as the target was fed them.
        """
        starts = self.tensor([columns.start for columns in fed])
        columns = starts[:, None] + torch.arange(features.size(1), device=features.device)
        slots = columns.where(columns < self.tensor(ends)[:, None], self.width)
        cache = self.cache(role)
        cache.write_at(torch.arange(len(self.rows), device=features.device), slots, 0)
        for layer, (keys, values) in enumerate(self.models[role].context(features, columns)):
            cache.update(keys, values, layer)

    def _keep(self, role: str, cache: SlotCache, fed: Fed) -> None:
        """Raise the cache's watermarks after a forward.

        Under a causal mask all that was fed is right until a commit says otherwise; under a block-causal one,
        the blocks without a mask are. Where all see all, keys and values of masks are void, and those of
        committed columns are kept as they are: an approximation, the one that a window or a block cache
        makes.
        """
        cache.causal = fed.sees is causal
        for i, columns in zip(self._taking_part(fed), fed.columns, strict=True):
            row = self.rows[i]
            right = columns.stop if cache.causal else row.first
            if isinstance(fed.sees, int):
                right -= (row.first - self.origin(role, row, fed.sees)) % fed.sees
            cache.valid[i] = min(columns.stop, right)

    def denoise(
        self, fed: Fed, cached: bool = False, role: str = "denoiser", aligned: bool = True
    ) -> Marginals:
        """One forward of a denoiser; its head runs later, on the columns that are asked for.

        aligned: False keeps the prediction of the column right of those fed, which a model that looks back
            makes, and drops that of the first one.
        """
        shift = 0 if aligned else self.models[role].lookback
        options = {"aligned": False} if shift else {}
        output = self.forward(role, fed, cached=cached, logits_to_keep=None, **options)
        hidden = output.hidden_states[-1]
        if self.bucket > 1:
            hidden = hidden.clone()  # what a CUDA graph returns is overwritten when the next one runs
        starts = [mine if isinstance(mine, Columns) else mine.start + shift for mine in fed.columns]
        return Marginals(self.models[role], self.models.mask_id, hidden, starts)

    def commit(self, commits: Sequence[Commit], observer: Observer | None) -> None:
        """End a step: write every row's tokens (or none). Finished rows leave the board and its caches."""
        written = [
            (i, len(row.prompt) + position)
            for i, (row, (positions, _)) in enumerate(zip(self.rows, commits, strict=True))
            for position in positions
        ]
        if written:
            self.ids[tuple(self.tensor(written).T)] = self.tensor([i for _, ids in commits for i in ids])
        for row, commit in zip(self.rows, commits, strict=True):
            row.commit(commit, self.stop, observer)
        for cache in self.caches.values():
            if cache.causal:
                # The last token of a prefix is fed again: it predicts the next one, and it may not be the one
                # that was fed in its place (a draft that was corrected).
                cache.valid = [min(v, row.first - 1) for v, row in zip(cache.valid, self.rows, strict=True)]
        keep = [i for i, row in enumerate(self.rows) if not row.finished]
        if len(keep) < len(self.rows):
            self.rows = [self.rows[i] for i in keep]
            if keep:
                self.ids = self.ids[keep]
                for cache in self.caches.values():
                    cache.keep(keep)


class Marginals:
    """A denoiser's forward: the head runs on the columns that are asked for, and on no other."""

    def __init__(self, model: torch.nn.Module, mask_id: int, hidden: Tensor, starts: Sequence[int | Columns]):
        self.model, self.mask_id, self.hidden, self.starts = model, mask_id, hidden, starts

    def logits(self, columns: Sequence[Sequence[int]], only: Sequence[int] | None = None) -> Tensor:
        """(rows, k, V) for each row's columns, k being the most that a row has.

        Shorter lists repeat their last column; a column that was not fed gives that of the nearest. only: the
        rows that `columns` are of. The mask id gets -inf.
        """
        only = range(len(self.starts)) if only is None else only
        most, end = max(map(len, columns)), self.hidden.size(1) - 1
        indices = [
            [
                min(max(0, _index(self.starts[i], column)), end)
                for column in [*mine, *[mine[-1]] * (most - len(mine))]
            ]
            for i, mine in zip(only, columns, strict=True)
        ]
        device = self.hidden.device
        rows = torch.tensor(list(only), device=device)[:, None]
        hidden = self.hidden[rows, torch.tensor(indices, device=device)]
        return exclude(self.model.lm_head(hidden), self.mask_id)


def _index(start: int | Columns, column: int) -> int:
    """Where a column stands among those fed."""
    return bisect_left(start, column) if isinstance(start, Columns) else column - start


def to_lists(*tensors: Tensor) -> list[list]:
    """Tensors of whole numbers, each (rows,) or (rows, n), as lists by row, in one transfer.

    On a GPU every transfer waits for all work before it: one a step instead of one a tensor.
    """
    wide = [tensor[:, None] if tensor.ndim == 1 else tensor for tensor in tensors]
    packed = torch.cat([tensor.long() for tensor in wide], 1).tolist()
    found, begin = [], 0
    for tensor, part in zip(tensors, wide, strict=True):
        end = begin + part.size(1)
        found.append([row[begin] if tensor.ndim == 1 else row[begin:end] for row in packed])
        begin = end
    return found
