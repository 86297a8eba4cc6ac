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
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unmask.decoding.board import Board, Fed, to_lists
from unmask.decoding.cache import sent
from unmask.decoding.decoder import Decoder
from unmask.decoding.row import Commit
from unmask.decoding.sampling import ALL, Sampling, at_least_one, greatest, one_of, step_generator
from unmask.decoding.visibility import causal

VERIFY = ("exact", "sampled")


@dataclass(frozen=True)
class Blocks:
    """What a forward of the target judges: of each row, its last known token and a draft behind it.

    sizes: tokens of each row's block. columns: theirs, the last one repeated in shorter blocks.
    ids: (rows, columns) the board's, with the drafts written in.
    generators: of each row, where the draft is drawn; None where it is greedy.
    """

    sizes: list[int]
    columns: list[list[int]]
    ids: Tensor
    generators: list[torch.Generator] | None

    @property
    def drafting(self) -> list[int]:
        """The rows that draft anything."""
        return [i for i, size in enumerate(self.sizes) if size > 1]

    def draft(self, board: Board) -> Tensor:
        """The drafted ids, (rows, B - 1); behind a shorter draft its last column is repeated."""
        if len(self.sizes) == 1:
            return self.ids[:, self.columns[0][0] + 1 : self.columns[0][-1] + 1]
        return self.ids.gather(1, board.tensor(self.columns))[:, 1:]


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
        one_of(VERIFY, verify=self.verify)

    # What the drafters differ in

    def longest(self, board: Board) -> int:
        """B."""
        raise NotImplementedError

    def draft(
        self, board: Board, only: list[int], sizes: list[int], ids: Tensor, noise: Sequence[Tensor] | None
    ) -> Tensor:
        """Write a draft of `size - 1` tokens behind the prefix of each row in `only` into `ids`.

        noise: per row (size - 1, V) to add to the scores, or None: greedy. Returns the logits that it was
        drawn from, (len(only), most, V); what stands behind a shorter draft is not used.
        """
        raise NotImplementedError

    def learn(self, board: Board, fed: list[range], output: Any, ends: list[int]) -> None:
        """What the drafter takes over from a forward of the target over `fed`: of the columns before
        `ends`."""

    wants: ClassVar[dict] = {}  # of the target's forward, besides logits

    # What they share

    def step(self, board: Board) -> list[Commit]:
        blocks = self._blocks(board)
        drafted_from = self._draft(board, blocks)
        fed, output = self._target_forward(board, blocks)
        draft, logits = blocks.draft(board), output.logits.float()
        if blocks.generators is None:
            tokens, accepted = self._accept_equal(board, draft, logits)
        else:
            tokens, accepted = self._accept_by_rejection(blocks, draft, logits, drafted_from)
        commits = self._commits(board, blocks, tokens, draft, accepted)
        ends = [row.first + len(ids) - 1 for row, (_, ids) in zip(board.rows, commits, strict=True)]
        self.learn(board, fed, output, ends)
        return commits

    def _blocks(self, board: Board) -> Blocks:
        """How much each row drafts: nothing before the prompt is read, less at the end of the canvas."""
        longest = self.longest(board)
        sizes = [min(longest, len(row.canvas) - row.prefix) if row.prefix else 1 for row in board.rows]
        columns = [
            [min(k, size - 1) + row.first - 1 for k in range(max(sizes))]
            for row, size in zip(board.rows, sizes, strict=True)
        ]
        generators = None
        if self.verify == "sampled" and self.temperature > 0:
            generators = [step_generator(row.seed, row.step, board.ids.device) for row in board.rows]
        return Blocks(sizes, columns, board.ids.clone(), generators)

    def _draft(self, board: Board, blocks: Blocks) -> Tensor | None:
        """Let the drafter write into `blocks.ids`; the logits that it drew from, if any row drafts."""
        only, noise = blocks.drafting, None
        if not only:
            return None
        if blocks.generators is not None:
            vocabulary = board.models["target"].config.vocab_size
            noise = [self.noise(blocks.generators[i], (blocks.sizes[i] - 1, vocabulary)) for i in only]
        return self.draft(board, only, blocks.sizes, blocks.ids, noise)

    def _target_forward(self, board: Board, blocks: Blocks) -> tuple[list[range], Any]:
        """The target over the blocks and what it has not read yet: the columns fed, and its output, with
        logits of the blocks' columns alone."""
        starts = board.valid("target")
        fed = [range(start, mine[-1] + 1) for start, mine in zip(starts, blocks.columns, strict=True)]
        output = board.forward(
            "target",
            Fed(fed, causal),
            cached=True,
            ids=blocks.ids,
            logits_to_keep=board.kept(fed, blocks.columns),
            **self.wants,
        )
        return fed, output

    def _accept_equal(self, board: Board, draft: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The target's own tokens, (rows, B), and how many drafted ones equal them from the first on."""
        streams = [(row.seed, row.step) for row in board.rows]
        tokens = self.pick(logits, self.gumbel(streams, range(logits.size(1)), logits))
        return tokens, (draft == tokens[:, :-1]).cumprod(-1).sum(-1)

    def _accept_by_rejection(
        self, blocks: Blocks, draft: Tensor, logits: Tensor, drafted_from: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Accept a drafted token with probability p/q, and draw the first one that fails from what p has more
        than q: (rows, B) tokens, (rows,) how many are drafted."""
        p = self.scores(logits).softmax(-1)
        q = self._draft_law(blocks, p, drafted_from)
        uniforms = torch.ones(draft.shape, device=p.device)
        for i in blocks.drafting:
            length = blocks.sizes[i] - 1
            uniforms[i, :length] = torch.rand(length, generator=blocks.generators[i], device=p.device)
        ours, theirs = (law[:, :-1].gather(-1, draft[..., None])[..., 0] for law in (p, q))
        accepted = ((uniforms * theirs < ours) & (theirs > 0)).cumprod(-1).sum(-1)
        at = accepted[:, None, None].expand(-1, 1, p.size(-1))
        rest = (p.gather(1, at) - q.gather(1, at)).clamp(min=0)[:, 0]
        noise = torch.stack([self.noise(generator, (p.size(-1),)) for generator in blocks.generators])
        own = greatest(rest.log() + noise)[:, None]
        tokens = torch.cat((draft, own), 1).scatter(1, accepted[:, None], own)
        return tokens, accepted

    def _draft_law(self, blocks: Blocks, p: Tensor, drafted_from: Tensor | None) -> Tensor:
        """The law q of every drafted token, like `p`; 0 where nothing was drafted: all of p is more."""
        q = torch.zeros_like(p)
        if drafted_from is not None:
            drafting = sent(torch.tensor(blocks.drafting), p.device)
            q[drafting, : drafted_from.size(1)] = self.scores(drafted_from).softmax(-1)
        behind = torch.arange(p.size(1)) >= torch.tensor(blocks.sizes)[:, None] - 1
        return q.masked_fill(sent(behind, p.device)[..., None], 0)

    def _commits(
        self, board: Board, blocks: Blocks, tokens: Tensor, draft: Tensor, accepted: Tensor
    ) -> list[Commit]:
        """The accepted tokens and one of the target's own. Notes on each row what was drafted, and how much
        of it accepted; padding may equal the target's tokens, too."""
        commits = []
        for row, size, ids, drafted, count in zip(
            board.rows, blocks.sizes, *to_lists(tokens, draft, accepted), strict=True
        ):
            row.drafted, row.accepted = drafted[: size - 1], min(count, size - 1)
            end = row.accepted + 1
            commits.append((range(row.prefix, row.prefix + end), ids[:end]))
        return commits


@dataclass(frozen=True)
class Speculative(Drafting):
    """A small causal drafter of the same vocabulary, one token a forward (arXiv 2211.17192, 2302.01318).

    block_length: as in Drafting; null is 8.
    """

    roles: ClassVar = {"target": "causal", "drafter": "causal"}
    sampling: ClassVar = ALL

    def longest(self, board: Board) -> int:
        return self.block_length or 8

    def draft(self, board, only, sizes, ids, noise) -> Tensor:
        drawn_from = []
        index = {i: k for k, i in enumerate(only)}  # row of the board -> row of the draft
        for k in range(max(sizes) - 1):
            going = [i for i in only if sizes[i] - 1 > k]
            logits = self._next_logits(board, going, k, ids)
            scores = self.scores(logits)
            if noise is not None:
                scores = scores + torch.stack([noise[index[i]][k] for i in going])
            at = [range(board.rows[i].first + k, board.rows[i].first + k + 1) for i in going]
            board.write(ids, going, at, greatest(scores)[:, None])
            if len(going) < len(only):
                rows = board.tensor([index[i] for i in going])
                logits = logits.new_zeros(len(only), logits.size(-1)).index_copy(0, rows, logits)
            drawn_from.append(logits)
        return torch.stack(drawn_from, 1)

    def _next_logits(self, board: Board, going: list[int], k: int, ids: Tensor) -> Tensor:
        """The drafter's logits of the k-th drafted token of these rows, (rows, V of the target).

        Ids that the target has and the drafter does not are never drafted.
        """
        starts = board.valid("drafter", going)
        fed = [range(start, board.rows[i].first + k) for start, i in zip(starts, going, strict=True)]
        last = board.kept(fed, [[columns[-1]] for columns in fed])
        what = Fed(fed, causal, only=going)
        theirs = board.forward("drafter", what, cached=True, ids=ids, logits_to_keep=last).logits[:, 0]
        more = board.models["target"].config.vocab_size - theirs.size(-1)
        return nn.functional.pad(theirs.float(), (0, more), value=-torch.inf) if more else theirs.float()


@dataclass(frozen=True)
class DFlash(Drafting):
    """A block-diffusion drafter (DFlash, arXiv 2602.06036): the whole draft in one forward, from the target's
    hidden states.

    The known token before the draft, the anchor, stands first in its block: the target has not seen it yet.
    """

    roles: ClassVar = {"target": "causal", "drafter": "drafter"}
    sampling: ClassVar = ALL
    wants: ClassVar = {"output_hidden_states": True}

    def longest(self, board: Board) -> int:
        return self.block_length or board.models["drafter"].config.block_size

    def begin(self, board: Board) -> None:
        # What the drafter reads in an open column; the target never reads one.
        for row, ids in zip(board.rows, board.ids, strict=True):
            ids[len(row.prompt) :] = board.models["drafter"].mask_token_id

    def draft(self, board, only, sizes, ids, noise) -> Tensor:
        target, drafter = board.models["target"], board.models["drafter"]
        blocks = [range(board.rows[i].first - 1, board.rows[i].first - 1 + sizes[i]) for i in only]
        most = max(map(len, blocks))
        embed = target.get_input_embeddings()
        hidden = board.forward("drafter", Fed(blocks, only=only), cached=True, ids=ids, embed=embed)
        logits = drafter.logits(hidden[:, 1:most], target.get_output_embeddings())
        scores = self.scores(logits)
        if noise is not None:
            scores = scores + pad_sequence(list(noise), batch_first=True)
        board.write(ids, only, [block[1:] for block in blocks], greatest(scores))
        return logits

    def learn(self, board, fed, output, ends) -> None:
        features = board.models["drafter"].features(output.hidden_states)
        board.absorb("drafter", fed, features, ends)
