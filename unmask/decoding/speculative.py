"""Draft and verify: a small model proposes tokens, the target judges all of them in one forward.

The target's own law is kept: greedy, its ids are those of `autoregressive`; sampled, so is their
distribution. A step commits the accepted tokens and one of the target's own. The first step reads the prompt
and drafts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unmask.decoding.board import Board, Commit, Row
from unmask.decoding.decoder import Decoder
from unmask.decoding.sampling import Sampling, at_least_one, step_generator
from unmask.decoding.visibility import causal

VERIFY = ("exact", "sampled")


@dataclass(frozen=True, kw_only=True)
class Drafting(Sampling, Decoder):
    """block_length: B, tokens that a forward of the target judges, of which the first is known: a step
        commits 1 to B tokens. It shrinks at the end of the canvas. None: the drafter's own.
    verify: exact, the draft is greedy, and accepted as far as the target's own samples equal it; sampled,
        the draft is drawn too and accepted by rejection (arXiv 2211.17192, Algorithm 1). Greedy they are the
        same.
    temperature, top_p, top_k: of the target and, with "sampled", of the draft; see Sampling.
    """

    block_length: int | None = None
    verify: str = "exact"
    lossless: ClassVar = True

    def __post_init__(self):
        super().__post_init__()
        at_least_one(block_length=self.block_length)
        if self.verify not in VERIFY:
            raise ValueError(f"verify={self.verify!r} must be one of {', '.join(VERIFY)}")

    # What the drafters differ in

    def longest(self, board: Board) -> int:
        """B."""
        raise NotImplementedError

    def draft(
        self, board: Board, only: list[int], sizes: list[int], ids: Tensor, noise: Sequence[Tensor] | None
    ) -> Tensor:
        """Write a draft of `size - 1` tokens behind the prefix of each row in `only` into `ids`.

        noise: per row (size - 1, V) to add to the scores, or None: greedy. Returns the logits that it was
        drawn from, (len(only), most, V); what stands behind a shorter draft is not looked at.
        """
        raise NotImplementedError

    def learn(self, board: Board, fed: list[range], output: Any, known: list[int]) -> None:
        """What the drafter takes over from a forward of the target over `fed`: of the columns before
        `known`."""

    # What they share

    def step(self, board: Board) -> list[Commit]:
        rows, longest = board.rows, self.longest(board)
        sizes = [min(longest, len(row.canvas) - row.prefix) if row.prefix else 1 for row in rows]
        ids, sampled = board.ids.clone(), self.verify == "sampled" and self.temperature > 0
        generators = [step_generator(r.seed, r.step, ids.device) for r in rows] if sampled else None
        only = [i for i, size in enumerate(sizes) if size > 1]
        drafted = None
        if only:
            noise = None
            if sampled:
                vocabulary = board.models["target"].config.vocab_size
                noise = [self.noise(generators[i], (sizes[i] - 1, vocabulary)) for i in only]
            drafted = self.draft(board, only, sizes, ids, noise)
        fed = [
            range(valid, row.first - 1 + size)
            for valid, row, size in zip(board.valid("target"), rows, sizes, strict=True)
        ]
        places = [
            [min(k, size - 1) + row.first - 1 for k in range(max(sizes))]
            for row, size in zip(rows, sizes, strict=True)
        ]
        keep = [[c - columns.start for c in mine] for columns, mine in zip(fed, places, strict=True)]
        output = board.forward(
            "target", fed, causal, cached=True, ids=ids, logits_to_keep=board.tensor(keep), **self.wants
        )
        logits = output.logits.float()
        draft = ids.gather(1, board.tensor(places))[:, 1:]
        if sampled:
            tokens, counts = self._reject(rows, only, sizes, logits, drafted, draft, generators)
        else:
            streams = [(row.seed, row.step) for row in rows]
            tokens = self.pick(logits, self.gumbel(streams, range(logits.size(1)), logits))
            real = torch.arange(draft.size(1), device=ids.device) < board.tensor(sizes)[:, None] - 1
            counts = 1 + ((draft == tokens[:, :-1]) & real).cumprod(-1).sum(-1)
        packed = torch.cat((tokens, draft, counts[:, None]), -1).tolist()  # one transfer a step
        commits = []
        for row, size, (*found, count) in zip(rows, sizes, packed, strict=True):
            row.drafted = found[tokens.size(1) :][: size - 1]
            commits.append((range(row.prefix, row.prefix + count), found[:count]))
        self.learn(
            board, fed, output, [row.first + len(c[1]) - 1 for row, c in zip(rows, commits, strict=True)]
        )
        return commits

    wants: ClassVar[dict] = {}  # of the target's forward, besides logits

    def _reject(
        self,
        rows: list[Row],
        only: list[int],
        sizes: list[int],
        logits: Tensor,
        drafted: Tensor | None,
        draft: Tensor,
        generators: list,
    ) -> tuple[Tensor, Tensor]:
        """Accept a drafted token with probability p/q, and draw the first one that fails from what p has more
        than q: (rows, B) tokens, (rows,) how many of them count."""
        p = self.scores(logits).softmax(-1)
        q = torch.zeros_like(p)  # where nothing was drafted, all of p is more than q
        if only:
            q[only, : drafted.size(1)] = self.scores(drafted).softmax(-1)
        count = torch.tensor(sizes, device=p.device)[:, None]
        q = q.masked_fill((torch.arange(p.size(1), device=p.device) >= count - 1)[..., None], 0)
        uniforms = torch.ones(draft.shape, device=p.device)
        for i in only:
            drawn = torch.rand(sizes[i] - 1, generator=generators[i], device=p.device)
            uniforms[i, : sizes[i] - 1] = drawn
        ours, theirs = (x[:, :-1].gather(-1, draft[..., None])[..., 0] for x in (p, q))
        accepted = ((uniforms * theirs < ours) & (theirs > 0)).cumprod(-1).sum(-1)
        at = accepted[:, None, None].expand(-1, 1, p.size(-1))
        rest = (p.gather(1, at) - q.gather(1, at)).clamp(min=0)[:, 0]
        noise = torch.stack([self.noise(generator, (p.size(-1),)) for generator in generators])
        own = (rest.log() + noise).argmax(-1)
        tokens = torch.cat((draft, draft[:, :1] if draft.size(1) else own[:, None]), 1)
        return tokens.scatter(1, accepted[:, None], own[:, None]), accepted + 1


@dataclass(frozen=True)
class Speculative(Drafting):
    """A small causal drafter of the same vocabulary, one token a forward (arXiv 2211.17192, 2302.01318).

    block_length: as in Drafting; null is 8.
    """

    roles: ClassVar = {"target": "causal", "drafter": "causal"}

    def longest(self, board: Board) -> int:
        return self.block_length or 8

    def draft(self, board, only, sizes, ids, noise) -> Tensor:
        found = []
        going = list(only)
        for k in range(max(sizes) - 1):
            going = [i for i in going if sizes[i] - 1 > k]
            valid = board.valid("drafter", going)
            fed = [range(v, board.rows[i].first + k) for v, i in zip(valid, going, strict=True)]
            last = board.tensor([[len(columns) - 1] for columns in fed])
            output = board.forward(
                "drafter", fed, causal, cached=True, only=going, ids=ids, logits_to_keep=last
            )
            size = board.models["target"].config.vocab_size
            logits = torch.full((len(going), size), -torch.inf, device=ids.device)
            shared = min(size, output.logits.size(-1))
            logits[:, :shared] = output.logits[:, 0, :shared].float()
            scores = self.scores(logits)
            if noise is not None:
                scores = scores + torch.stack([noise[only.index(i)][k] for i in going])
            columns = [board.rows[i].first + k for i in going]
            ids[going, columns] = scores.argmax(-1)
            step = logits.new_full((len(only), size), 0.0)
            step[[only.index(i) for i in going]] = logits
            found.append(step)
        return torch.stack(found, 1)


@dataclass(frozen=True)
class DFlash(Drafting):
    """A block-diffusion drafter (DFlash, arXiv 2602.06036): the whole draft in one forward, from the target's
    hidden states.

    The known token before the draft, the anchor, stands first in its block: the target has not seen it yet.
    """

    roles: ClassVar = {"target": "causal", "drafter": "drafter"}
    wants: ClassVar = {"output_hidden_states": True}

    def longest(self, board: Board) -> int:
        return self.block_length or board.models["drafter"].config.block_size

    def draft(self, board, only, sizes, ids, noise) -> Tensor:
        target, drafter = board.models["target"], board.models["drafter"]
        blocks = [range(board.rows[i].first - 1, board.rows[i].first - 1 + sizes[i]) for i in only]
        most = max(map(len, blocks))
        for i, block in zip(only, blocks, strict=True):
            ids[i, block.start + 1 : block.stop] = drafter.mask_token_id
        hidden = board.forward(
            "drafter", blocks, cached=True, only=only, ids=ids, embed=target.get_input_embeddings()
        )
        logits = drafter.logits(hidden[:, 1:most], target.get_output_embeddings())
        scores = self.scores(logits)
        for k, (i, block) in enumerate(zip(only, blocks, strict=True)):
            mine = scores[k, : len(block) - 1]
            mine = mine if noise is None else mine + noise[k]
            ids[i, block.start + 1 : block.stop] = mine.argmax(-1)
        return logits

    def learn(self, board, fed, output, known) -> None:
        features = board.models["drafter"].features(output.hidden_states)
        board.absorb("drafter", fed, features, known)
