"""Log-likelihoods of a continuation given a context: ids and a model in, nats out.

A causal model's is exact (`causal`). A masked diffusion model has none; what is computed is the bound that it
is trained on (`masked`):

    log p(x) >= E_l E_S (L / l) sum over i in S of log p(x_i | x without S)

L tokens, l uniform in 1..L, S a uniform subset of l of them, masked (LLaDA, arXiv 2502.09992, eq. 6). It is
the mean, over all orders of the tokens, of the log-probability of writing them one by one, and it is the
log-likelihood itself where all these conditionals are of one joint distribution.

Up to `samples` subsets there are, all are fed and the bound is exact; beyond, it is estimated from draws.
In a batch l is stratified: one random l, the others equally spaced from it, modulo L (as LLaDA's authors;
their rounding of the spacing favours some l slightly, whole steps here favour none). So batches are what is
drawn independently, and the interval is over their means. A block-causal model's bound is the sum of its
blocks' bounds, each given the text before it.

Both end where the continuation ends: a model is told its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb, hypot, isfinite, sqrt

import torch
from scipy import stats
from torch import Tensor
from transformers import DynamicCache

from unmask.decoding.visibility import attention_mask, block_causal, origin

HEAD_ROWS = 256  # positions whose logits are held at once: a vocabulary may have 150,000 entries
CHUNK = 512  # columns that a causal model is fed at once, for the same reason


def is_likelihood(row: Mapping) -> bool:
    """Whether a row that was read holds the numbers of a `Likelihood`; KeyError where one lacks."""
    numbers = [row["value"], *([row["error"]] if row["error"] is not None else [])]
    counts = [row[name] for name in ("tokens", "samples", "forwards", "positions")]
    return (
        all(type(number) in (int, float) and isfinite(number) for number in numbers)
        and all(type(count) is int and count >= 0 for count in counts)
        and (row["greedy"] is None or type(row["greedy"]) is bool)
    )


@dataclass(frozen=True)
class Likelihood:
    """One continuation's log-likelihood, or its bound, and what it cost.

    value: nats. error: half the width of its 95% interval, of what sampling leaves open: 0 where nothing is
        sampled, None where a single batch of draws tells no spread.
    greedy: whether greedy decoding writes the continuation; None where that was not checked.
    tokens: of the continuation. samples: masked copies of it. forwards: rows of forwards. positions: fed.
    """

    value: float
    error: float | None
    greedy: bool | None
    tokens: int
    samples: int
    forwards: int
    positions: int

    def __add__(self, other: Likelihood) -> Likelihood:
        """Of one text after the other: blocks, or windows of a long one."""
        errors, greedy = (self.error, other.error), (self.greedy, other.greedy)
        return Likelihood(
            self.value + other.value,
            None if None in errors else hypot(*errors),
            False if False in greedy else None if None in greedy else True,
            self.tokens + other.tokens,
            self.samples + other.samples,
            self.forwards + other.forwards,
            self.positions + other.positions,
        )


@torch.inference_mode()
def causal(
    model: torch.nn.Module, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[Likelihood]:
    """Exact log-likelihoods from a causal model, in one batch; no context and no continuation is empty.

    The last token of a continuation is not fed. `samples` is 0.
    """
    fed = [[*context, *text][:-1] for context, text in zip(contexts, continuations, strict=True)]
    begins = [len(context) - 1 for context in contexts]  # the column that predicts the first token
    longest = max(map(len, fed))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in fed], device=model.device)
    values, greedy = [0.0] * len(fed), [True] * len(fed)
    cache = DynamicCache(config=model.config) if longest > CHUNK else None
    for start in range(0, longest, CHUNK):
        stop = min(start + CHUNK, longest)
        first = max(start, min(min(begins), stop - 1))  # of the columns whose logits are wanted
        logits = model(
            input_ids=ids[:, start:stop],
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=stop - first,
        ).logits
        for i, (row, begin, text) in enumerate(zip(fed, begins, continuations, strict=True)):
            left, right = max(begin, first), min(len(row), stop)
            if left >= right:
                continue
            found = logits[i, left - first : right - first].float()
            targets = torch.tensor(text[left - begin : right - begin], device=model.device)
            values[i] += _of_targets(found, targets).sum().item()
            greedy[i] &= bool((found.argmax(-1) == targets).all())
    return [
        Likelihood(value, 0.0, hit, len(text), 0, 1, len(row))
        for value, hit, text, row in zip(values, greedy, continuations, fed, strict=True)
    ]


@dataclass(frozen=True)
class Denoiser:
    """A masked diffusion model, and how its bound is taken.

    samples, batch: masked copies of a continuation (of a block, where the model is block-causal), and how
        many are fed at once; batch divides samples.
    check_greedy: whether to decode greedily, the most confident token first, a forward a token.
    block_length, blocks_from: of block-causal attention (Layout.blocks_from); None: full attention.
    """

    model: torch.nn.Module
    mask_id: int
    samples: int = 128
    batch: int = 32
    check_greedy: bool = False
    block_length: int | None = None
    blocks_from: str = "prompt"

    @torch.inference_mode()
    def likelihood(self, context: Sequence[int], continuation: Sequence[int], seed: int) -> Likelihood:
        """The bound on a continuation's log-likelihood; neither it nor the context is empty."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.tensor([*context, *continuation], device=self.model.device)
        total, begin = None, len(context)
        for columns in self.blocks(begin, len(ids)):
            block = _Block(self, ids[: columns.stop], columns, self._sees(begin, columns.stop))
            found = block.bound(generator)
            if self.check_greedy:  # after a wrong block no other one is decoded
                right, forwards = block.greedy() if total is None or total.greedy else (False, 0)
                found = replace(
                    found,
                    greedy=right,
                    forwards=found.forwards + forwards,
                    positions=found.positions + forwards * columns.stop,
                )
            total = found if total is None else total + found
        return total

    def blocks(self, begin: int, end: int) -> Iterator[range]:
        """The columns `begin` .. `end` - 1, block by block."""
        if self.block_length is None:
            yield range(begin, end)
            return
        first, size = origin(self.blocks_from, begin, self.block_length), self.block_length
        while begin < end:
            stop = min(end, first + ((begin - first) // size + 1) * size)
            yield range(begin, stop)
            begin = stop

    def _sees(self, begin: int, end: int) -> Tensor | None:
        """The attention mask (1, 1, end, end); None where all see all."""
        if self.block_length is None:
            return None
        columns = torch.arange(end, device=self.model.device)
        first = torch.tensor([origin(self.blocks_from, begin, self.block_length)], device=columns.device)
        return attention_mask(block_causal(columns[None], first, self.block_length), columns)


@dataclass(frozen=True)
class _Block:
    """One block, or the whole continuation: ids (n,) up to its end, its columns, and the attention mask."""

    denoiser: Denoiser
    ids: Tensor
    columns: range
    sees: Tensor | None

    def bound(self, generator: torch.Generator) -> Likelihood:
        length, batch = len(self.columns), self.denoiser.batch
        if 2**length - 1 <= self.denoiser.samples:
            masks, weights = all_masks(length)
            sums = torch.cat([self.log_probs(part) for part in masks.split(batch)])
            samples, value, error = len(masks), float(weights @ sums), 0.0
        else:
            means = []
            for _ in range(self.denoiser.samples // batch):
                masks = draw_masks(length, batch, generator)
                means.append(float((length / masks.sum(1) * self.log_probs(masks)).mean()))
            samples, (value, error) = self.denoiser.samples, mean_of_batches(means)
        return Likelihood(value, error, None, length, samples, samples, samples * len(self.ids))

    def log_probs(self, masks: Tensor) -> Tensor:
        """The log-probabilities of the tokens that each mask hides, added up: (n, L) bool -> (n,) float64."""
        masks = masks.to(self.ids.device)
        hidden = self.hidden(masks)[masks]
        targets = self.own.expand(len(masks), -1)[masks]
        head = self.denoiser.model.lm_head
        found = [
            _of_targets(head(states).float(), wanted)
            for states, wanted in zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
        ]
        sums = torch.zeros(len(masks), dtype=torch.float64)
        return sums.index_add(0, masks.nonzero()[:, 0].cpu(), torch.cat(found).double().cpu())

    def hidden(self, masks: Tensor) -> Tensor:
        """What the head makes logits of, at the block's columns: (n, L) bool -> (n, L, hidden)."""
        rows = self.ids.repeat(len(masks), 1)
        begin, end = self.columns.start, self.columns.stop
        rows[:, begin:end] = rows[:, begin:end].masked_fill(masks, self.denoiser.mask_id)
        sees = None if self.sees is None else self.sees.expand(len(rows), -1, -1, -1)
        output = self.denoiser.model(input_ids=rows, attention_mask=sees, logits_to_keep=None)
        return output.hidden_states[-1][:, begin:end]

    def greedy(self) -> tuple[bool, int]:
        """Whether greedy decoding, the most confident masked token first, writes the block; its forwards."""
        masked = torch.ones(1, len(self.columns), dtype=torch.bool, device=self.ids.device)
        for forwards in range(1, len(self.columns) + 1):
            logits = self.denoiser.model.lm_head(self.hidden(masked)[masked]).float()
            best = int(logits.softmax(-1).amax(-1).argmax())
            column = masked[0].nonzero()[best]
            if int(logits[best].argmax()) != int(self.own[column]):
                return False, forwards
            masked[0, column] = False
        return True, forwards

    @property
    def own(self) -> Tensor:
        """The block's ids (L,)."""
        return self.ids[self.columns.start : self.columns.stop]


def all_masks(length: int) -> tuple[Tensor, Tensor]:
    """Every non-empty subset of `length` tokens (n, length), and its weight in the bound (n,) float64."""
    masks = (torch.arange(1, 2**length)[:, None] >> torch.arange(length) & 1).bool()
    weights = [1 / (size * comb(length, size)) for size in masks.sum(1).tolist()]
    return masks, torch.tensor(weights, dtype=torch.float64)


def draw_masks(length: int, batch: int, generator: torch.Generator) -> Tensor:
    """A stratified batch of subsets, (batch, length) bool: their sizes are one random number of 1..length and
    those equally spaced from it."""
    first = int(torch.randint(length, (), generator=generator))
    sizes = torch.tensor([(first + i * length // batch) % length + 1 for i in range(batch)])
    ranks = torch.rand(batch, length, generator=generator).argsort(1).argsort(1)
    return ranks < sizes[:, None]


def mean_of_batches(means: Sequence[float]) -> tuple[float, float | None]:
    """The mean of independent batches' means, and half the width of its 95% interval (Student's t)."""
    found = torch.tensor(means, dtype=torch.float64)
    if len(means) == 1:
        return means[0], None
    width = float(stats.t.ppf(0.975, len(means) - 1)) * float(found.std()) / sqrt(len(means))
    return float(found.mean()), width


def _of_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities of the targets (n,), from logits (n, V)."""
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)
