"""The board: a batch of rows at work, each at its own pace, with the models and their keys and values.

Column j of a row is its position j: first its prompt, then its canvas.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from unmask.decoding.cache import SlotCache, sent
from unmask.decoding.finite import Watch
from unmask.decoding.generation import Observer, Stop
from unmask.decoding.models import Models
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import exclude
from unmask.decoding.visibility import additive, attention_mask, block_causal, causal, full, origin
from unmask.models.resources import LOGITS

ENDLESS = Stop()


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


@dataclass(frozen=True)
class Queries:
    """What rows are fed query by query, where ranges of columns do not say it: a column may stand there
    several times, with other ids. So branches of a row share a forward, and WINO's shadow block.

    columns: per row, the column of each query. ids: per row, theirs.
    among: per row (n, n) bool, which of its queries each query sees, on the host.
    kept: per row, the cached columns that all of its queries see, as ranges.
    only: indices of the rows that take part, to which the other fields belong; None: all.

    What is fed is written into no cache; see `Board.adopt`.
    """

    columns: Sequence[Sequence[int]]
    ids: Sequence[Tensor]
    among: Sequence[Tensor]
    kept: Sequence[Sequence[range]] | None = None
    only: Sequence[int] | None = None


class Board:
    """The unfinished rows of a batch. `ids` (rows, columns) holds prompts and canvases, masks included."""

    def __init__(self, rows: Sequence[Row], models: Models, stop: Stop = ENDLESS):
        self.rows, self.models, self.stop, self.bucket = list(rows), models, stop, models.bucket
        self.width = models.length(max(row.columns for row in rows))
        ids = torch.full((len(rows), self.width), models.mask_id or 0)
        for line, row in zip(ids, rows, strict=True):
            line[: len(row.prompt)] = torch.tensor(row.prompt, dtype=torch.long)
        self.ids = sent(ids, models.device)
        self.cached: list[tuple[str, SlotCache, Fed]] = []  # forwards of the step at work
        self.caches: dict[tuple, SlotCache] = {}
        self.watch = Watch()

    def tensor(self, values) -> Tensor:
        """Numbers of the host on the device, in a transfer that nothing waits for."""
        return sent(torch.tensor(values), self.ids.device)

    def cache(self, role: str) -> SlotCache:
        """The role's keys and values, allocated when first asked for."""
        key = role, self.width
        if key not in self.caches:
            self.caches[key] = self.models.slots(role, len(self.rows), self.width)
        return self.caches[key]

    def valid(self, role: str, only: Sequence[int] | None = None) -> list[int]:
        """Per row (or row in `only`), the columns from the left that the role need not be fed again."""
        valid = self.cache(role).valid
        return list(valid) if only is None else [valid[i] for i in only]

    def forward(
        self, role: str, fed: Fed | Queries, cached: bool = False, ids: Tensor | None = None, **kwargs
    ):
        """One forward of a role, counted.

        Args:
            fed: what every row is fed and sees.
            cached: attend to the role's cached columns too, and write the fed ones there (`Queries` are kept
                aside).
            ids: (rows, columns) instead of the board's own, as when a draft is judged.
            kwargs: go to the model.
        """
        ids = self.ids if ids is None else ids
        if fed.only is not None and len(fed.only) == len(self.rows):
            fed = replace(fed, only=None)
        for i, columns in zip(self._taking_part(fed), fed.columns, strict=True):
            self.rows[i].count(role, len(columns))
        cache = self.cache(role) if cached else None
        if isinstance(fed, Queries):
            inputs = self._query_inputs(role, fed, cache)
        else:
            if cached:
                self._keep(role, cache, fed)
            alike = self._alike(fed)
            inputs = (
                self._shared_inputs(role, fed, ids, cache)
                if alike
                else self._own_inputs(role, fed, ids, cache)
            )
        output = self.models[role](**inputs, past_key_values=cache, use_cache=cached, **kwargs)
        output = _first(output, len(fed.columns), len(inputs["input_ids"]))
        if getattr(output, "logits", None) is not None:
            self.watch.see(role, output.logits, [self.rows[i] for i in self._taking_part(fed)])
        return output

    def kept(self, fed: Sequence[range], wanted: Sequence[Sequence[int]]) -> int | Tensor:
        """`logits_to_keep` for these columns of each row: how many, where all rows end with them, else where
        they stand among those fed, (rows, k)."""
        k, n = len(wanted[0]), len(fed[0])
        alike = self.bucket == 1 and all(len(columns) == n for columns in fed)
        if alike and all(list(mine) == [*columns[-k:]] for mine, columns in zip(wanted, fed, strict=True)):
            return k
        at = [[c - columns.start for c in mine] for mine, columns in zip(wanted, fed, strict=True)]
        return self.tensor([at[i] for i in self._repeated(len(at))])

    def _repeated(self, count: int) -> list[int]:
        """The rows of a forward: compiled models are fed the first one again where they need more."""
        return [*range(count), *[0] * (self.models.rows(count) - count)]

    def write(self, ids: Tensor, rows: Sequence[int], columns: Sequence[range], tokens: Tensor) -> None:
        """Write tokens, (len(rows), n), at columns of these rows of `ids`; behind shorter ones is padding."""
        if len(rows) == 1:
            ids[rows[0], columns[0].start : columns[0].stop] = tokens[0, : len(columns[0])]
            return
        n = tokens.size(1)
        at = [
            (i, column, k * n + j)
            for k, (i, mine) in enumerate(zip(rows, columns, strict=True))
            for j, column in enumerate(mine)
        ]
        i, column, source = self.tensor(at).T
        ids[i, column] = tokens.take(source)

    def adopt(self, role: str, row: int, queries: range, columns: range) -> None:
        """Write keys and values of the last forward's `queries` of a row into its cache, which then holds all
        columns before `columns.stop`. All rows took part in that forward."""
        self.cache(role).adopt(row, queries, columns)

    def _taking_part(self, fed: Fed | Queries) -> Sequence[int]:
        """The rows that a forward is about, as indices."""
        return range(len(self.rows)) if fed.only is None else fed.only

    def _alike(self, fed: Fed) -> bool:
        """Whether all rows are fed one range of columns: then nothing is padded, gathered or scattered."""
        first = fed.columns[0]
        same = isinstance(first, range) and all(columns == first for columns in fed.columns)
        return same and fed.only is None and self.bucket == 1

    def _native(self, role: str, fed: Fed) -> bool:
        """Whether rows that are alike see just what the model lets them see by itself, so that its attention
        kernels need no mask."""
        model = self.models[role]
        if getattr(model, "is_causal", getattr(model.config, "is_causal", True)):
            return fed.sees is causal and fed.reach is None
        bounds = fed.bounds
        if fed.sees is causal or min(bounds) < max(bounds):
            return False
        # The first column sees least.
        first = torch.tensor([[columns.start] for columns in fed.columns])
        return fed.sees is None or int(self._limits(role, fed, first).min()) == max(bounds)

    def _shared_inputs(self, role: str, fed: Fed, ids: Tensor, cache: SlotCache | None) -> dict:
        """What the model gets where all rows are alike."""
        columns, end, native = fed.columns[0], max(fed.bounds), self._native(role, fed)
        inputs = {"input_ids": ids[:, columns.start : columns.stop]}
        if cache is not None:
            cache.write_at(None, columns, end)
        if cache is not None or not native:
            positions = torch.arange(columns.start, columns.stop, device=ids.device)
            inputs["position_ids"] = positions.expand(len(ids), -1)
        if not native:
            host = torch.arange(columns.start, columns.stop).expand(len(ids), -1)
            inputs["attention_mask"] = self._mask(role, sent(self._limits(role, fed, host), ids.device), end)
        return inputs

    def _own_inputs(self, role: str, fed: Fed, ids: Tensor, cache: SlotCache | None) -> dict:
        """What the model gets where rows differ: columns of their own, and a mask.

        All indices are computed on the host and sent at once: on a GPU each small operation is a launch."""
        starts, stops = (torch.tensor([getattr(c, edge) for c in fed.columns]) for edge in ("start", "stop"))
        n = self.models.length(max(map(len, fed.columns)))
        columns = starts[:, None] + torch.arange(n)
        if any(isinstance(mine, Columns) for mine in fed.columns):  # padding stands right of all columns
            beyond = range(self.width, self.width + n)
            columns = torch.tensor([[*mine, *beyond[: n - len(mine)]] for mine in fed.columns])
        rows = torch.tensor(self._taking_part(fed))[:, None].expand_as(columns)
        end = max(fed.bounds)  # of the columns that are seen
        if self.bucket > 1:
            end = self.width if cache is not None else n
        known = rows * ids.size(1) + columns.clamp(max=self.width - 1)  # of what is padded, the last column
        slots = columns.where(columns < stops[:, None], self.width)
        packed = torch.stack((known, columns, self._limits(role, fed, columns), rows, slots))
        every, count = fed.only is None, len(columns)
        if self.bucket > 1:
            packed = packed[:, self._repeated(count)]
            packed[3, count:] = torch.arange(count, packed.size(1))[:, None] if every else 0
            packed[4, count:] = self.width
            self._note(role, packed.size(1), n, end, cache, every)
        known, columns, limits, rows, slots = sent(packed, ids.device)
        if cache is not None:
            cache.write_at(rows, slots, end, every)
        return {
            "input_ids": ids.take(known),
            "position_ids": columns,
            "attention_mask": self._mask(role, limits, end),
        }

    def _note(self, role: str, rows: int, fed: int, end: int, cache: SlotCache | None, every: bool | None):
        """Count a forward of a compiled model under its shape. every: as in `SlotCache.write_at`; None: of
        queries."""
        held = 0 if cache is None else self.models.rows(cache.size)
        self.models[role].graphs.shapes[rows, fed, end, held, every] += 1

    def _mask(self, role: str, limits: Tensor, end: int) -> Tensor:
        """The mask of the `end` columns of which each fed one sees those before its limit, (rows, n)."""
        sees = attention_mask(limits, torch.arange(end, device=limits.device))
        return additive(sees, self.models[role].dtype)

    def _query_inputs(self, role: str, fed: Queries, cache: SlotCache | None) -> dict:
        """What the model gets for queries. Nobody sees padding, and it sees its row's first query."""
        rows = self._repeated(len(fed.columns))
        fields = (fed.columns, fed.ids, fed.among, fed.kept or [()] * len(fed.columns))
        fed_columns, ids, among, kept = ([field[i] for i in rows] for field in fields)
        rows, most = [self._taking_part(fed)[i] for i in rows], self.models.length(max(map(len, fed_columns)))
        end = max((columns.stop for ranges in kept for columns in ranges), default=0)
        if self.bucket > 1:
            end = 0 if cache is None else self.width
            self._note(role, len(rows), most, end, cache, None)
        if cache is not None:
            cache.write_aside(self.tensor(rows), end)
        mask = torch.zeros(len(rows), most, end + most, dtype=torch.bool)
        mask[:, :, end] = True
        for sees, mine, branches, ranges in zip(mask, ids, among, kept, strict=True):
            n = len(mine)
            sees[:n, end : end + n] = branches
            for columns in ranges:
                sees[:n, columns.start : columns.stop] = True
        positions = self.tensor([[*columns, *[0] * (most - len(columns))] for columns in fed_columns])
        mask = additive(sent(mask[:, None], self.ids.device), self.models[role].dtype)
        ids = pad_sequence(ids, batch_first=True)
        if ids.size(1) < most:
            ids = pad(ids, (0, most - ids.size(1)))
        return {"input_ids": ids, "position_ids": positions, "attention_mask": mask}

    def origin(self, role: str, row: Row, block_length: int) -> int:
        """The column from which the role's model counts a row's blocks."""
        layout = getattr(self.models[role], "layout", None)
        return origin(layout.blocks_from if layout else "prompt", len(row.prompt), block_length)

    def shift(self, role: str, row: Row, block_length: int) -> int:
        """Columns of the prompt that share a block with the first canvas position."""
        return (len(row.prompt) - self.origin(role, row, block_length)) % block_length

    def _limits(self, role: str, fed: Fed, columns: Tensor) -> Tensor:
        """The column before which each fed column sees: (rows, n) -> (rows, n), both on the host."""
        limits = full(columns, torch.tensor(fed.bounds))
        if isinstance(fed.sees, int):
            origins = [self.origin(role, self.rows[i], fed.sees) for i in self._taking_part(fed)]
            return limits.minimum(block_causal(columns, torch.tensor(origins), fed.sees))
        return limits if fed.sees is None else limits.minimum(fed.sees(columns))

    def absorb(self, role: str, fed: Sequence[range], features: Tensor, ends: Sequence[int]) -> None:
        """Write into a drafter's cache what it makes of a target's features: of each row's columns `fed`,
        those before `ends`. No token goes through the drafter, so no forward is counted.

        features: (rows, n, ...), of the columns as the target was fed them.
        """
        cache, first = self.cache(role), fed[0].start
        if all((columns.start, end) == (first, ends[0]) for columns, end in zip(fed, ends, strict=True)):
            features = features[:, : ends[0] - first]
            columns = torch.arange(first, ends[0], device=features.device).expand(len(fed), -1)
            cache.write_at(None, range(first, ends[0]), 0)
        else:
            columns = torch.tensor([columns.start for columns in fed])[:, None] + torch.arange(
                features.size(1)
            )
            slots = columns.where(columns < torch.tensor(ends)[:, None], self.width)
            rows = torch.arange(len(fed))[:, None].expand_as(columns)
            columns, slots, rows = sent(torch.stack((columns, slots, rows)), features.device)
            cache.write_at(rows, slots, 0)
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
        self.cached.append((role, cache, fed))
        for i, columns in zip(self._taking_part(fed), fed.columns, strict=True):
            cache.valid[i] = self._right(role, fed, self.rows[i], columns)

    def _right(self, role: str, fed: Fed, row: Row, columns: range) -> int:
        """The column before which keys and values are right after a forward over `columns`."""
        settled = len(row.prompt) + row.settled
        if isinstance(fed.sees, int):
            settled -= (settled - self.origin(role, row, fed.sees)) % fed.sees
        return columns.stop if fed.sees is causal else min(columns.stop, settled)

    def denoise(
        self, fed: Fed | Queries, cached: bool = False, role: str = "denoiser", aligned: bool = True
    ) -> Marginals:
        """One forward of a denoiser; its head runs later, on the columns that are asked for.

        Of `Queries`, they are asked for by number: a model that looks back says of the query of a column what
        stands in the next one.

        aligned: False keeps the prediction of the column right of those fed, which a model that looks back
            makes, and drops that of the first one.
        """
        queries = isinstance(fed, Queries)
        shift = self.models[role].lookback if queries or not aligned else 0
        options = {"aligned": False} if shift else {}
        output = self.forward(role, fed, cached=cached, logits_to_keep=None, **options)
        hidden = output.hidden_states[-1]
        if self.bucket > 1:
            hidden = hidden.clone()  # what a CUDA graph returns is overwritten when the next one runs
        starts = [
            0 if queries else mine if isinstance(mine, Columns) else mine.start + shift
            for mine in fed.columns
        ]
        rows = self.rows if fed.only is None else [self.rows[i] for i in fed.only]

        def watch(logits: Tensor, only: Sequence[int]) -> None:
            self.watch.see(role, logits, [rows[i] for i in only])

        return Marginals(self.models[role], self.models.mask_id, hidden, starts, watch)

    def commit(self, commits: Sequence[Commit], observer: Observer | None) -> None:
        """End a step: write every row's tokens (or none). Finished rows leave the board and its caches.

        NotFinite where the logits of the step were not."""
        self.watch.check()
        written = {
            (i, len(row.prompt) + position): self.models.mask_id if token is None else token
            for i, (row, (positions, ids)) in enumerate(zip(self.rows, commits, strict=True))
            for position, token in zip(positions, ids, strict=True)
        }
        if written:
            rows, columns, ids = self.tensor([(*at, token) for at, token in written.items()]).T
            self.ids[rows, columns] = ids
        for row, commit in zip(self.rows, commits, strict=True):
            row.commit(commit, self.stop, observer)
        for role, cache, fed in self.cached:
            # A step that wrote nothing may settle what it fed: that is as it was fed.
            for i, columns in zip(self._taking_part(fed), fed.columns, strict=True):
                if not commits[i][0]:
                    cache.valid[i] = self._right(role, fed, self.rows[i], columns)
        self.cached = []
        for cache in self.caches.values():
            if cache.causal:
                # The last token of a prefix is fed again: it predicts the next one, and it may not be the one
                # that was fed in its place (a draft that was corrected).
                cache.valid = [min(v, row.first - 1) for v, row in zip(cache.valid, self.rows, strict=True)]
        keep = [i for i, row in enumerate(self.rows) if not row.finished]
        if len(keep) < len(self.rows):
            self.rows = [self.rows[i] for i in keep]
            if keep:
                self.ids = self.ids[self.tensor(keep)]
                for cache in self.caches.values():
                    cache.keep(keep)


class Marginals:
    """A denoiser's forward: the head runs on the columns that are asked for, and on no other."""

    def __init__(
        self,
        model: torch.nn.Module,
        mask_id: int,
        hidden: Tensor,
        starts: Sequence[int | Columns],
        watch: Callable[[Tensor, Sequence[int]], None] = lambda logits, only: None,
    ):
        self.model, self.mask_id, self.hidden, self.starts, self.watch = model, mask_id, hidden, starts, watch

    def logits(self, columns: Sequence[Sequence[int]], only: Sequence[int] | None = None) -> Tensor:
        """(rows, k, V) for each row's columns, k being the most that a row has.

        Shorter lists repeat their last column; a column that was not fed gives that of the nearest. only: the
        rows that `columns` are of. The mask id gets -inf.
        """
        only = range(len(self.starts)) if only is None else only
        rows, n, width = self.hidden.shape
        indices = [
            [min(max(0, _index(self.starts[i], column)), n - 1) for column in mine]
            for i, mine in zip(only, padded(columns), strict=True)
        ]
        first = indices[0][0]
        same = range(first, first + len(indices[0]))
        if list(only) == [*range(rows)] and all(mine == [*same] for mine in indices):
            hidden = self.hidden[:, same.start : same.stop]  # no copy
        else:
            at = [[i * n + k for k in mine] for i, mine in zip(only, indices, strict=True)]
            hidden = self.hidden.reshape(-1, width)[sent(torch.tensor(at), self.hidden.device)]
        logits = self.model.lm_head(hidden)
        self.watch(logits, only)
        return exclude(logits, self.mask_id)

    def in_parts(
        self, columns: Sequence[Sequence[int]], judge: Callable[[range, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """What `judge(rows, logits)` says of all rows, a few rows at a time: no more than LOGITS bytes of
        logits are held at once, and one row's at least.

        columns: as in `logits`. judge: of these rows and their logits (rows, k, V), tensors (rows, k).
        """
        columns = padded(columns)
        size = max(1, LOGITS // (4 * len(columns[0]) * self.model.config.vocab_size))
        parts = [range(n, min(n + size, len(columns))) for n in range(0, len(columns), size)]
        judged = [judge(part, self.logits(columns[part.start : part.stop], part)) for part in parts]
        return judged[0] if len(judged) == 1 else tuple(map(torch.cat, zip(*judged, strict=True)))

    def likeliest(self, columns: Sequence[Sequence[int]]) -> list[list[tuple[int, float]]]:
        """Of each row, the likeliest token of every column asked for and its probability, in one transfer."""
        likely = self.logits(columns).softmax(-1).max(-1)
        values, ids = torch.stack((likely.values, likely.indices.float())).tolist()
        return [
            [(int(token), value) for token, value in zip(i, v, strict=True)][: len(mine)]
            for i, v, mine in zip(ids, values, columns, strict=True)
        ]


def _first(output, count: int, fed: int):
    """What a model gave for the first `count` of the rows that it was fed, the others being padding."""
    if count == fed:
        return output
    if isinstance(output, Tensor):
        return output[:count]
    for name in ("logits", "hidden_states"):
        if (found := output.get(name)) is not None:
            output[name] = found[:count] if isinstance(found, Tensor) else tuple(h[:count] for h in found)
    return output


def padded(lists: Iterable[Sequence[int]]) -> list[list[int]]:
    """Lists of one length: the shorter ones repeat their last number."""
    lists = list(lists)
    most = max(map(len, lists))
    return [[*mine, *[mine[-1]] * (most - len(mine))] for mine in lists]


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
