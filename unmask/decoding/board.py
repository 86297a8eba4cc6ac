"""The board: a batch of rows at work, each at its own pace, with the models and their keys and values.

Column j of a row is its position j: first its prompt, then its canvas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from unmask.decoding.cache import SlotCache
from unmask.decoding.generation import Generation, Observer, Stop
from unmask.decoding.sampling import ban
from unmask.decoding.visibility import attention_mask, block_causal, causal, full

ENDLESS = Stop()
READY = 2  # forwards of a shape that make a compiled model ready for it
Measured = TypeVar("Measured")
Commit = tuple[Sequence[int], Sequence[int]]  # canvas positions and the ids to write there


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
    def device(self) -> torch.device:
        return self.main.device


@dataclass
class Row:
    """The decoding state of one prompt: what is committed, and what it has cost so far.

    state is the decoder's own (`Decoder.begin`).
    """

    index: int  # in the list of prompts
    prompt: Tensor  # (p,) ids
    canvas: list[int | None]  # a generated id, or None where still masked
    seed: int
    forwards: dict[str, int]
    positions: dict[str, int]
    commits: list[int] = field(default_factory=list)  # per canvas position, its step; -1 where masked
    step: int = 0  # number of the step at work
    idle: int = 0  # steps since the last token
    prefix: int = 0  # committed without a gap from the left
    end: int | None = None  # useful length, once a stop lies in the gapless prefix
    fills: bool = False  # goes on after an end token until every wanted slot is filled
    wanted: int | None = None  # of the canvas, if a decoder gives up what stands right of it
    drafted: Sequence[int] = ()  # the ids that the step at work judges, if its decoder drafts
    state: Any = None

    @classmethod
    def fresh(cls, index: int, prompt: Tensor, max_new_tokens: int, seed: int, roles: Sequence[str]) -> Row:
        zeros = dict.fromkeys(roles, 0)
        return cls(index, prompt, [None] * max_new_tokens, seed, zeros, dict(zeros), [-1] * max_new_tokens)

    @property
    def first(self) -> int:
        """The column after the gapless prefix: the first mask."""
        return len(self.prompt) + self.prefix

    @property
    def columns(self) -> int:
        """Columns of prompt and canvas."""
        return len(self.prompt) + len(self.canvas)

    @property
    def length(self) -> int:
        """Of the canvas, as far as it is wanted."""
        return len(self.canvas) if self.wanted is None else self.wanted

    @property
    def finished(self) -> bool:
        return (self.end is not None and not self.fills) or self.prefix >= self.length

    def count(self, role: str, fed: int) -> None:
        """One forward of a role, with `fed` columns of this row."""
        self.forwards[role] += 1
        self.positions[role] += fed

    def commit(self, commit: Commit, stop: Stop, observer: Observer | None) -> None:
        """End a step: write its tokens. Notices a stop as soon as everything left of it is committed."""
        positions, ids = commit
        for position, token in zip(positions, ids, strict=True):
            self.canvas[position], self.commits[position] = token, self.step
        if observer:
            observer(self, list(positions), list(ids))
        self.step, self.drafted = self.step + 1, ()
        self.idle = 0 if positions else self.idle + 1
        if self.idle > len(self.canvas):
            raise AssertionError(f"no token in {self.idle} steps: this decoder may never end")
        known = self.prefix
        while self.prefix < len(self.canvas) and self.canvas[self.prefix] is not None:
            self.prefix += 1
        if self.prefix > known and self.end is None:  # else the prefix is the one that no stop was found in
            self.end = stop.cut(self.canvas[: self.prefix], known)

    def generation(self) -> Generation:
        ids = [token for token in self.canvas if token is not None]
        last = max((p for p, step in enumerate(self.commits) if step >= 0), default=-1)
        useful = self.prefix if self.end is None else self.end
        finish = "length" if self.end is None else "stop"
        return Generation(ids, self.commits[: last + 1], useful, finish, self.forwards, self.positions)


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

    def forward(
        self,
        role: str,
        fed: Sequence[range],
        sees: Callable[[Tensor], Tensor] | int | None = None,
        cached: bool = False,
        only: Sequence[int] | None = None,
        ids: Tensor | None = None,
        reach: Sequence[int] | None = None,
        **kwargs,
    ):
        """One forward of a role over the columns `fed` of every row, or of the rows `only`; counted.

        Args:
            fed: a range of columns per row. Shorter ones are padded on the right with columns nobody sees.
            sees: `causal`; the length of a block, for block-causal attention; or None: every fed column sees
                up to the end of what its row is fed (see visibility.py).
            cached: attend to the role's cached columns too, and write the fed ones there.
            ids: (rows, columns) instead of the board's own, as when a draft is judged.
            reach: per row, the column before which everything seen must lie, where cached columns right of
                the fed ones are to be seen too (a dual cache). None: the end of what the row is fed.
            kwargs: go to the model.
        """
        ids = self.ids if ids is None else ids
        if only is not None and len(only) == len(self.rows):
            only = None
        rows = self.rows if only is None else [self.rows[i] for i in only]
        for row, columns in zip(rows, fed, strict=True):
            row.count(role, len(columns))
        cache = self.cache(role) if cached else None
        kwargs |= {"past_key_values": cache, "use_cache": cached}
        if cached:
            self._keep(cache, fed, sees, only)
        bounds = [columns.stop for columns in fed] if reach is None else list(reach)
        end = max(bounds)
        native = causal if getattr(self.models[role].config, "is_causal", True) else None
        alike = reach is None and len(set(fed)) == 1
        if only is None and self.bucket == 1 and sees is native and alike:
            # Nothing is padded, and the model sees just that by itself: the attention kernels need no mask.
            columns = fed[0]
            if cached:
                cache.place(None, columns, end)
                steps = torch.arange(columns.start, columns.stop, device=ids.device)
                kwargs["position_ids"] = steps.expand(len(rows), -1)
            return self.models[role](input_ids=ids[:, columns.start : columns.stop], **kwargs)
        starts, ends = (self.tensor([getattr(c, edge) for c in fed]) for edge in ("start", "stop"))
        steps = torch.arange(self.padded(max(map(len, fed))), device=ids.device)
        columns = starts[:, None] + steps
        chosen = torch.arange(len(rows), device=ids.device) if only is None else self.tensor(only)
        if self.bucket > 1:
            end = self.width if cached else columns.size(1)
            self.models.shapes[role, columns.size(1), end] += 1
        if cached:
            cache.place(chosen, columns.where(columns < ends[:, None], self.width), end)
        limits = full(columns, self.tensor(bounds))
        if isinstance(sees, int):
            prompts = self.tensor([len(row.prompt) for row in rows])
            limits = limits.minimum(block_causal(columns, prompts, sees))
        elif sees is not None:
            limits = limits.minimum(sees(columns))
        keys = torch.arange(end, device=ids.device)
        return self.models[role](
            input_ids=ids[chosen].gather(1, columns.clamp(max=self.width - 1)),
            position_ids=columns,
            attention_mask=attention_mask(limits, keys),
            **kwargs,
        )

    def absorb(self, role: str, fed: Sequence[range], features: Tensor, known: Sequence[int]) -> None:
        """Write into a drafter's cache what it makes of a target's features: of each row's columns `fed`,
        those before `known`. No token goes through the drafter, so no forward is counted.

        features: (rows, n, ...), of the columns as the target was fed them.
        """
        starts = self.tensor([columns.start for columns in fed])
        columns = starts[:, None] + torch.arange(features.size(1), device=features.device)
        slots = columns.where(columns < self.tensor(known)[:, None], self.width)
        cache = self.cache(role)
        cache.place(torch.arange(len(self.rows), device=features.device), slots, 0)
        for layer, (keys, values) in enumerate(self.models[role].context(features, columns)):
            cache.update(keys, values, layer)

    def _keep(
        self, cache: SlotCache, fed: Sequence[range], sees: Callable | int | None, only: Sequence[int] | None
    ) -> None:
        """Raise the cache's watermarks after a forward.

        Under a causal mask all that was fed is right until a commit says otherwise; under a block-causal one,
        the blocks without a mask are. Where all see all, keys and values of masks are void, and those of
        committed columns are kept as they are: an approximation, the one that a window or a block cache
        makes.
        """
        cache.causal = sees is causal
        for i, columns in zip(range(len(self.rows)) if only is None else only, fed, strict=True):
            row = self.rows[i]
            right = columns.stop if cache.causal else row.first
            if isinstance(sees, int):
                right -= row.prefix % sees
            cache.valid[i] = min(columns.stop, right)

    def denoise(
        self,
        fed: Sequence[range],
        cached: bool = False,
        reach: Sequence[int] | None = None,
        role: str = "denoiser",
        sees: int | None = None,
    ) -> Marginals:
        """One forward of a denoiser over the columns `fed` of every row; the head waits until it is asked."""
        output = self.forward(role, fed, sees, cached=cached, reach=reach, logits_to_keep=None)
        hidden = output.hidden_states[-1]
        if self.bucket > 1:
            hidden = hidden.clone()  # what a CUDA graph returns is overwritten when the next one runs
        return Marginals(self.models[role], self.models.mask_id, hidden, [columns.start for columns in fed])

    def commit(self, commits: Sequence[Commit], observer: Observer | None) -> None:
        """End a step: write every row's tokens (or none). Finished rows leave the board and its caches."""
        places = [
            (i, len(row.prompt) + position)
            for i, (row, (positions, _)) in enumerate(zip(self.rows, commits, strict=True))
            for position in positions
        ]
        if places:
            self.ids[tuple(self.tensor(places).T)] = self.tensor([i for _, ids in commits for i in ids])
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
    """What a denoiser's forward knows of every fed column: the head runs on the columns that are asked
    for."""

    def __init__(self, model: torch.nn.Module, mask_id: int, hidden: Tensor, starts: Sequence[int]):
        self.model, self.mask_id, self.hidden, self.starts = model, mask_id, hidden, starts

    def logits(self, columns: Sequence[Sequence[int]], only: Sequence[int] | None = None) -> Tensor:
        """(rows, k, V) for each row's columns, k being the most that a row asks for.

        Shorter lists repeat their last column. only: the rows that ask. The mask id is banned.
        """
        only = range(len(self.starts)) if only is None else only
        most = max(map(len, columns))
        asked = [
            [column - self.starts[i] for column in [*wanted, *[wanted[-1]] * (most - len(wanted))]]
            for i, wanted in zip(only, columns, strict=True)
        ]
        device = self.hidden.device
        rows = torch.tensor(list(only), device=device)[:, None]
        return ban(self.model.lm_head(self.hidden[rows, torch.tensor(asked, device=device)]), self.mask_id)
