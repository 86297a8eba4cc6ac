"""Unmasking in any order = rank x quota x cache: which masks are surest, how many of them a step commits, and
what is fed.

Blocks are finished from the left. Ranks: ranks.py. Quotas: quotas.py.

| cache | a step feeds |
|---|---|
| none | everything |
| prefix | the block and all that follows it; what stands left is kept from the block's first forward |
| dual | the block; all else is kept from the block's first forward |
| decoded | all masks, and what the step before committed; all else is kept from when it was last fed |

prefix and dual are Fast-dLLM's (arXiv 2505.22618, sec. 3.2), decoded is dKV-Cache's (2505.15781, its decode
variant): what is kept is stale, so other tokens may come out. Every block begins with a forward of everything
(decoded: two), and every `refresh_interval` steps of a block there is another. Under prefix and dual, a model
that looks back (Dream) commits in a block's first step its first token and no other, as published: the column
that predicts that token is not fed again. Under decoded, columns that predict masks are fed too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unmask.decoding.board import Board, Columns, Fed, Marginals, to_lists
from unmask.decoding.cache import sent
from unmask.decoding.decoder import Decoder
from unmask.decoding.quotas import LIMITS, SCHEDULES, Limit, Ranked, dream_share
from unmask.decoding.ranks import BLIND, RANKS
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import (
    ALL,
    Sampling,
    at_least_one,
    divides,
    number,
    one_of,
    step_generator,
    true_or_false,
)

EPSILON = 1e-3  # where Dream's time ends
CACHES = ("none", "prefix", "dual", "decoded")
END_RULES = ("none", "last", "no_eos")


@dataclass
class Progress:
    """Where a row is: its block, and the steps that it has spent in it."""

    block: range
    spent: int = 0
    shift: int = 0  # columns of the prompt that share a block with the first canvas position


@dataclass(frozen=True)
class Candidates:
    """The masks of a row that go through the head in a step.

    positions: one or more, of the canvas. wanted: how many the step commits at most.
    first_only: whether it commits the first of its block and no other.
    generator: the row's random numbers of this step; None where nothing is drawn.
    """

    positions: list[int]
    wanted: int
    first_only: bool
    generator: torch.Generator | None


@dataclass(frozen=True)
class Unmasking(Sampling, Decoder):
    """rank, quota, cache: see ranks.py, quotas.py and the table above.
    steps: T, forwards for a full canvas under a schedule (or dynamic); None = one per token.
    threshold: a probability (rank=confidence), a difference of probabilities (margin) or nats (entropy).
    factor, bound, low_threshold: see quotas.py. block_length: B, blocks are finished from the left; None =
        one. It must divide max_new_tokens (under quota=linear the last block may be shorter, as published).
    refresh_interval: steps of a block, see above; or none. cache=decoded needs it.
    after_end: none, decoding ends as soon as all left of an end token is committed; fill, it goes on until
        every slot is filled, as the published decoders do.
    rank_tempered: rank by the tempered and filtered probabilities, as Dream's own decoders do, or by the
        model's own. Tempered ones tend to 1 as the temperature falls: masks tie, the leftmost wins, and
        Dream's T = 0.1 decodes nearly left to right (`leftmost_share` in summaries), which T = 0 does not.
        The model's own give at T -> 0, top_k = 1 and top_p -> 0 what greedy decoding gives.
    end_rule: what LLaDA's published code does about end tokens: none; last, they are committed last: they
        have no confidence, and that of other tokens is among the rest (its confidence_eos_eot_inf, at T = 0);
        no_eos, the EOS of the model's configuration is never drawn, other end tokens are (its
        logits_eos_inf).
    temperature, top_p, top_k: see Sampling.
    """

    rank: str = "confidence"
    quota: str = "even"
    steps: int | None = None
    threshold: float | None = None
    factor: float | None = None
    bound: float | None = None
    low_threshold: float | None = None
    block_length: int | None = None
    rank_tempered: bool = False
    cache: str = "none"
    refresh_interval: int | str = "none"
    after_end: str = "none"
    end_rule: str = "none"
    sampling: ClassVar = ALL
    epsilon: ClassVar = EPSILON
    after_ends: ClassVar = ("none", "fill")
    caches: ClassVar = CACHES
    ranks: ClassVar = (*RANKS, *BLIND)
    limits: ClassVar[Mapping[str, Limit]] = LIMITS
    quotas: ClassVar = (*SCHEDULES, *LIMITS)

    def __post_init__(self):
        super().__post_init__()
        at_least_one(steps=self.steps, block_length=self.block_length)
        true_or_false(rank_tempered=self.rank_tempered)
        choices = {
            "rank": self.ranks,
            "quota": self.quotas,
            "cache": self.caches,
            "after_end": self.after_ends,
            "end_rule": END_RULES,
        }
        for name, known in choices.items():
            one_of(known, **{name: getattr(self, name)})
        if self.rank in BLIND and self.quota not in SCHEDULES:
            raise ValueError(
                f"quota={self.quota} needs a rank that depends on the model, and rank={self.rank} does not"
            )
        if self.quota == "origin" and self.rank != "random":
            raise ValueError(f"quota=origin draws its masks: it goes with rank=random, not rank={self.rank}")
        if self.refresh_interval != "none":
            at_least_one(needed=True, refresh_interval=self.refresh_interval)
        if (self.refresh_interval != "none" and self.cache not in CACHES[1:]) or (
            self.refresh_interval == "none" and self.cache == "decoded"
        ):
            raise ValueError(
                f"refresh_interval={self.refresh_interval} and cache={self.cache}: cache=decoded needs it, "
                "cache=prefix and cache=dual may have it, others have none"
            )
        if self.end_rule == "last" and self.rank != "confidence":
            raise ValueError(
                f"end_rule=last takes the end tokens' confidence: it needs rank=confidence, not {self.rank}"
            )
        limit = self.limit
        if limit.rank not in (None, self.rank):
            raise ValueError(f"quota={self.quota} {limit.why}: it needs rank={limit.rank}, not {self.rank}")
        for name in ("threshold", "factor", "bound", "low_threshold"):
            value = getattr(self, name)
            if (value is None and name in limit.needs) or (value is not None and name not in limit.takes):
                quotas = [quota for quota, other in self.limits.items() if name in other.takes]
                other = (
                    "give it a number" if value is None else f"with quota={self.quota} also set {name}=null"
                )
                raise ValueError(
                    f"{name}={value} and quota={self.quota}: {name} goes with "
                    f"quota={' or '.join(quotas)}; {other}"
                )
            if value is not None and not (number(value) and 0 <= value < math.inf):
                raise ValueError(f"{name}={value!r} must be a number, 0 or more")
            compared = name in ("threshold", "low_threshold") and self.rank != "entropy"
            if value is not None and compared and value > 1:
                raise ValueError(f"{name}={value} is compared with probabilities: it must be from 0 to 1")
        if self.steps is not None and not self.scheduled:
            raise ValueError(
                f"steps={self.steps} is for schedules ({', '.join(SCHEDULES)}), not quota={self.quota}"
            )

    @property
    def limit(self) -> Limit:
        """What the quota compares; a schedule compares nothing."""
        return self.limits.get(self.quota, Limit(passes=None))

    @property
    def scheduled(self) -> bool:
        """Whether the quota has a number of steps."""
        return self.quota in SCHEDULES or self.limit.scheduled

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        self.check_threshold(vocabulary)
        block = self.block_length or max_new_tokens
        if self.quota != "linear":
            divides(block, max_new_tokens)
        if self.steps is not None and self.steps < max_new_tokens // block:
            raise ValueError(
                f"steps={self.steps} is less than one for each of the {max_new_tokens // block} blocks"
            )

    def check_threshold(self, vocabulary: int | None) -> None:
        """ValueError for a threshold above every entropy."""
        most = math.log(vocabulary) if vocabulary and self.rank == "entropy" else math.inf
        for name in ("threshold", "low_threshold"):
            if (value := getattr(self, name)) is not None and value > most:
                raise ValueError(
                    f"{name}={value} is compared with entropies in nats, and no entropy over {vocabulary} "
                    f"tokens is above {most:.2f}"
                )

    def begin(self, board: Board) -> None:
        for row in board.rows:
            row.state = Progress(range(min(self.block_length or len(row.canvas), len(row.canvas))))
            row.fills = self.after_end == "fill"

    def step(self, board: Board) -> list[Commit]:
        for row in board.rows:
            self._advance(row)
        rows = [self._candidates(board, row) for row in board.rows]
        return self._decide(board, rows, self._forward(board))

    def _decide(self, board: Board, rows: list[Candidates], marginals: Marginals) -> list[Commit]:
        """What each row commits after its forward."""
        if not any(row.wanted for row in rows):
            return [([], [])] * len(board.rows)
        columns = [
            [len(row.prompt) + p for p in mine.positions] for row, mine in zip(board.rows, rows, strict=True)
        ]

        def judge(part: range, logits: Tensor) -> tuple[Tensor, Tensor]:
            """A token of each candidate, and how sure it is."""
            mine = [rows[i] for i in part]
            logits = self._weigh(board, part, mine, self._never(board, logits))
            scores, ids = self._draw(mine, logits)
            if self.rank in BLIND:
                return ids, ids
            return ids, self._values(board, part, mine, scores if self.rank_tempered else logits, ids)

        ids, values = marginals.in_parts(columns, judge)
        order, counts = self._choose(board, rows, values, ids)
        return self._commits(rows, order, counts, ids)

    def _logits(
        self,
        board: Board,
        marginals: Marginals,
        positions: Sequence[Sequence[int]],
        only: Sequence[int] | None = None,
    ) -> Tensor:
        """(rows, k, V) at these canvas positions of each row, or of the rows `only`."""
        rows = board.rows if only is None else [board.rows[i] for i in only]
        columns = [[len(row.prompt) + p for p in mine] for row, mine in zip(rows, positions, strict=True)]
        return self._never(board, marginals.logits(columns, only))

    def _never(self, board: Board, logits: Tensor) -> Tensor:
        """The logits without what `end_rule` says is never drawn."""
        if self.end_rule == "no_eos":
            logits[..., board.models.eos_ids] = -torch.inf
        return logits

    def _weigh(self, board: Board, part: range, rows: list[Candidates], logits: Tensor) -> Tensor:
        """The logits that a step decides by, (rows, k, V), of the board's rows `part`: for decoders that
        remember earlier ones."""
        return logits

    def _candidates(self, board: Board, row: Row) -> Candidates:
        """A row's masks that compete for this step: those of its block, or, in random order, those drawn."""
        masks = self._masks(row)
        first_only = self._takes_one(board, row)
        if first_only:
            masks = masks[:1]
        (generator,), wanted = self.generators([row], board.ids.device), masks
        if self.rank in BLIND:
            drawn = self._draw_positions(row, masks, generator)
            wanted = masks if first_only else drawn
        # A row that commits nothing takes part with one mask all the same.
        return Candidates(wanted or masks[:1], len(wanted), first_only, generator)

    def _forward(self, board: Board) -> Marginals:
        reach = [row.columns for row in board.rows] if self.cache in ("dual", "decoded") else None
        lookback = board.models["denoiser"].lookback
        fed = [self._fed(row, lookback) for row in board.rows]
        return board.denoise(Fed(fed, reach=reach), self.cache != "none")

    def _draw(self, rows: list[Candidates], logits: Tensor) -> tuple[Tensor, Tensor]:
        """Tempered and filtered scores (rows, k, V), and a token of each candidate (rows, k)."""
        return self.draw(logits, [row.generator for row in rows], [len(row.positions) for row in rows])

    def _choose(
        self, board: Board, rows: list[Candidates], values: Tensor, ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The candidates of each row from the surest on, (rows, k), and how many to commit, (rows,).

        values: how sure each is, (rows, k).
        """
        if self.rank in BLIND:
            order = torch.arange(ids.size(1), device=ids.device).expand_as(ids)
            return order, board.tensor([row.wanted for row in rows])
        return self._surest(board, rows, values, ids)

    def _commits(self, rows: list[Candidates], order: Tensor, counts: Tensor, ids: Tensor) -> list[Commit]:
        """The first `counts` of each row's order, as positions and ids."""
        lists = to_lists(order, counts, ids.gather(1, order))
        commits = []
        for row, ranked, count, tokens in zip(rows, *lists, strict=True):
            taken = min(max(count, row.first_only), row.wanted)
            commits.append(([row.positions[k] for k in ranked[:taken]], tokens[:taken]))
        return commits

    def _block(self, row: Row) -> range:
        """The canvas positions of the block that the first mask stands in."""
        length, shift = self.block_length or len(row.canvas), row.state.shift
        begin = (row.prefix + shift) // length * length - shift
        return range(max(0, begin), min(begin + length, len(row.canvas)))

    def _masks(self, row: Row) -> list[int]:
        """The masks that may be committed in this step."""
        return [p for p in row.state.block if row.canvas[p] is None]

    def _advance(self, row: Row) -> None:
        """Count the step, in the next block where the last one is finished."""
        if row.prefix >= row.state.block.stop:
            row.state = self._enter(row)
        row.state.spent += 1

    def _enter(self, row: Row) -> Progress:
        """The state of a row that enters its next block."""
        return Progress(self._block(row))

    def _fed(self, row: Row, lookback: int) -> range | Columns:
        """The columns that a step feeds."""
        before = row.state.spent - 1  # steps of the block
        renews = self.refresh_interval != "none" and before % self.refresh_interval == 0
        if self.cache == "none" or before == 0 or renews:
            return range(row.columns)
        if self.cache == "decoded":
            return range(row.columns) if before == 1 else self._undecoded(row, lookback)
        begin = len(row.prompt) + row.state.block.start
        return range(begin, row.columns if self.cache == "prefix" else begin + len(row.state.block))

    def _undecoded(self, row: Row, lookback: int) -> Columns:
        """Columns of masks and of what the last step committed, and those that predict masks of the block."""
        fresh = [p for p, at in enumerate(row.commits) if at < 0 or at == row.step - 1]
        predicting = [p - lookback for p in self._masks(row)]
        return Columns(len(row.prompt) + p for p in sorted({*fresh, *predicting}) if len(row.prompt) + p >= 0)

    def _takes_one(self, board: Board, row: Row) -> bool:
        """Whether this step commits the first token of a block and no other."""
        looks_back = self.cache in ("prefix", "dual") and board.models["denoiser"].lookback
        return bool(looks_back) and row.state.spent == 1

    def generators(self, rows: Sequence[Row], device: torch.device) -> list[torch.Generator | None]:
        """A random order is drawn when greedy, too."""
        if self.rank == "random":
            return [step_generator(row.seed, row.step, device) for row in rows]
        return super().generators(rows, device)

    def steps_left(self, row: Row) -> tuple[int, int]:
        """(steps of the row's block, how many of them are left, the present one included).

        One is left even where a block's only step went into its first token (see `_takes_one`).
        """
        max_new_tokens, progress = len(row.canvas), row.state
        blocks = max_new_tokens // len(progress.block)
        steps = min(self.steps or max_new_tokens, max_new_tokens)
        index = progress.block.start // len(progress.block)
        mine = steps // blocks + (index < steps % blocks)
        return mine, max(1, mine - progress.spent + 1)

    def steps_of_block(self, row: Row) -> int:
        """Of the schedules that give every block equally many (PER_BLOCK), as published."""
        length = self.block_length or len(row.canvas)
        return -(-self.steps // -(-len(row.canvas) // length)) if self.steps else length

    def _quota(self, row: Row, masks: int) -> int:
        """How many masks a schedule commits in this step."""
        return SCHEDULES[self.quota](self, row, masks)

    def _draw_positions(self, row: Row, masks: list[int], generator: torch.Generator) -> list[int]:
        """Masks in random order, or from the left. Only those that are committed go through the head."""
        if self.rank == "leftmost":
            return masks[: self._quota(row, len(masks))]
        draws = torch.rand(len(masks), generator=generator, device=generator.device)
        if self.quota == "origin":
            share = dream_share(self, row)
            return [p for p, draw in zip(masks, draws.tolist(), strict=True) if draw < share]
        return sorted(masks[i] for i in draws.topk(self._quota(row, len(masks))).indices.tolist())

    def _surest(
        self, board: Board, rows: list[Candidates], values: Tensor, ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The candidates of each row by rank, (rows, k), and how many the quota commits, (rows,).

        Equal ranks go left to right: a stable sort, where published code takes what topk happens to return.
        """
        lengths = [len(row.positions) for row in rows]
        padding = sent(torch.arange(ids.size(1)) >= torch.tensor(lengths)[:, None], ids.device)
        if min(lengths) < ids.size(1):
            values = values.masked_fill(padding, -torch.inf)
        values, order = values.sort(descending=True, stable=True)
        if self.quota in SCHEDULES:
            counts = [self._quota(row, len(c.positions)) for row, c in zip(board.rows, rows, strict=True)]
            return order, board.tensor(counts)
        return self.limit.choose(self, Ranked(board, rows, values, order, padding))

    def _values(
        self, board: Board, part: range, rows: Sequence[Candidates], scores: Tensor, ids: Tensor
    ) -> Tensor:
        """How sure each candidate of the board's rows `part` is, (rows, k)."""
        if self.end_rule != "last" or not board.stop.ids:
            return RANKS[self.rank](scores, ids)
        ends = board.tensor(sorted(board.stop.ids))
        # Drawn with end tokens, judged without: what is left of the probabilities is shared among the others.
        values = RANKS[self.rank](scores.index_fill(-1, ends, -torch.inf), ids)
        return values.masked_fill(torch.isin(ids, ends), -torch.inf)

    def least(self, threshold: float) -> float:
        """A threshold on the scale of the rank."""
        if self.rank == "entropy":
            return -threshold
        if self.rank == "confidence":
            return math.log(threshold) if threshold else -math.inf
        return threshold
