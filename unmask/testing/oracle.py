"""Oracles: models of tasks whose every distribution is exact, so that what a decoder must score is a formula.

The tasks are ParallelBench's waiting lines (arXiv 2510.04767): n names, one token each, ids below `names`. An
answer holds n tokens that depend on one another. A denoiser gives only the marginals, so what a decoder loses
by committing several at once is its own doing: no model error hides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep

from unmask.decoding.visibility import attended

NEVER = -1e9  # the logit of what cannot be; finite, so that a mixture of two models' logits is a number


@dataclass(frozen=True)
class Shuffle:
    """The answer is uniform over all n! orders of the prompt's n names, the prompt's own included.

    ParallelBench itself counts the prompt's own order as wrong; with it the law is simpler.
    """

    n: int

    @property
    def prompt_length(self) -> int:
        return self.n

    def marginals(self, prompts: Tensor, canvases: Tensor, positions: Tensor, mask: int) -> Tensor:
        """Uniform over the names that are not on the canvas; this also holds where one stands there twice.

        Args:
            prompts: (rows, prompt_length) ids.
            canvases: (rows, queries, n) what each query sees of the answer, `mask` where it sees nothing.
            positions: (rows, queries) of the answer, those that each query is about; masked ones.

        Returns: probabilities (rows, queries, mask + 1).
        """
        wanted = one_hot(prompts, mask + 1).sum(1)[:, None]
        used = one_hot(canvases, mask + 1).sum(2)
        left = (wanted - used).clamp(min=0).double()
        return left / left.sum(-1, keepdim=True).clamp(min=1)

    def score(self, prompt: list[int], answer: list[int]) -> bool:
        """Whether the answer holds the prompt's names, each as often."""
        return sorted(answer) == sorted(prompt)


@dataclass(frozen=True)
class ReplaceRandom:
    """The prompt holds n names and a new one; in the answer the new one stands for one of them, each position
    being equally likely."""

    n: int

    @property
    def prompt_length(self) -> int:
        return self.n + 1

    def marginals(self, prompts: Tensor, canvases: Tensor, positions: Tensor, mask: int) -> Tensor:
        """With m masks, the new name has 1/m and the old one the rest; 0 and 1 once the new one is placed.

        So also where it is placed twice, or where other wrong names stand. Arguments as of Shuffle.
        """
        old, new = prompts[:, : self.n], prompts[:, self.n]
        placed = (canvases == new[:, None, None]).any(-1)
        masks = (canvases == mask).sum(-1).clamp(min=1)
        share = (1 / masks.double()).masked_fill(placed, 0)[..., None]
        return share * one_hot(new, mask + 1)[:, None] + (1 - share) * one_hot(
            old.gather(1, positions), mask + 1
        )

    def score(self, prompt: list[int], answer: list[int]) -> bool:
        """Whether the answer is the n names with the new one at one position."""
        *old, new = prompt
        return answer in [[*old[:i], new, *old[i + 1 :]] for i in range(self.n)]


@dataclass(frozen=True)
class Listed:
    """A task by its right answers, which are equally likely whatever the prompt is: rows of ids, all of one
    length. For other laws than those above; its marginals take time and memory for every answer."""

    answers: tuple[tuple[int, ...], ...]
    prompt_length: int = 1

    @property
    def n(self) -> int:
        return len(self.answers[0])

    def marginals(self, prompts: Tensor, canvases: Tensor, positions: Tensor, mask: int) -> Tensor:
        """`counted`. Arguments as of Shuffle."""
        return counted(torch.tensor(self.answers), canvases, positions, mask)

    def score(self, prompt: list[int], answer: list[int]) -> bool:
        """Whether it is one of the right answers."""
        return tuple(answer) in self.answers


def counted(answers: Tensor, canvases: Tensor, positions: Tensor, mask: int) -> Tensor:
    """Marginals by counting the answers that fit, or all of them where none does.

    Args:
        answers: (answers, n) ids, equally likely.
        canvases: (..., n) what each query sees of the answer, `mask`, above all ids, where it sees nothing.
        positions: (...) those that each query is about.

    Returns: probabilities (..., mask + 1).
    """
    # Most queries see the same.
    seen, which = canvases.flatten(0, -2).unique(dim=0, return_inverse=True)
    seen = seen[:, None]  # beside every answer
    fits = ((seen == answers) | (seen == mask)).all(-1).double()
    fits = torch.where(fits.any(-1, keepdim=True), fits, 1.0)[which].unflatten(0, positions.shape)
    found = fits.new_zeros(*positions.shape, mask + 1)
    return found.scatter_add(-1, answers.T[positions], fits) / fits.sum(-1, keepdim=True)


def seen_by_query(
    ids: Tensor, attention_mask: Tensor | None, columns: Tensor | None, cache, mask: int, causal: bool
) -> tuple[Tensor, Tensor]:
    """(rows, queries, width) what each query of a forward sees of every column, `mask` where it sees nothing,
    and (rows, queries) the queries' columns.

    Takes what a model's forward takes. Of several queries of one column, that which is no mask is seen: the
    mask is above all ids. A cache keeps ids instead of keys and values. width: up to the last column that is
    seen.
    """
    if columns is None:
        columns = torch.arange(ids.size(1), device=ids.device).expand_as(ids)
    keys = columns
    if cache is not None:
        kept = ids[:, None, :, None].float()
        ids = cache.update(kept, kept, 0)[0][:, 0, :, 0].long()
        slots = torch.arange(ids.size(1), device=ids.device).expand_as(ids)
        aside = cache.slots is None  # queries side by side, behind what is cached
        keys = torch.cat((slots[:, : cache.end], columns), 1) if aside else slots
    if attention_mask is None:
        attention_mask = (keys[:, None, None] <= columns[:, None, :, None]) | (not causal)
    attention_mask = attended(attention_mask)
    visible = attention_mask.any(2)[:, 0]  # keys that some query sees: no padding
    width = int(keys.where(visible, 0).max()) + 1
    seen = ids[:, None].masked_fill(~attention_mask[:, 0], mask)
    keys = keys.clamp(max=width)[:, None].expand_as(seen)  # padding of a cache lies right of all
    found = seen.new_full((*seen.shape[:2], width + 1), mask)
    return found.scatter_reduce(2, keys, seen, "amin")[..., :-1], columns


class Oracle(nn.Module):
    """A task's exact denoiser or, if `causal`, its exact joint: a causal model of the same law.

    A model like any other for `Board.forward`, caches included. What a column does not see counts as masked,
    so the joint's next token has the marginal of a canvas that is masked from there on. Of columns that
    predict no masked position of the answer, the logits mean nothing.

    names: ids below it are names, and it is the mask id. All prompts have the task's prompt_length, all
    canvases n tokens.
    """

    device, dtype = torch.device("cpu"), torch.float32
    lookback = 0

    def __init__(self, task: Shuffle | ReplaceRandom | Listed, names: int, causal: bool = False):
        super().__init__()
        self.task, self.mask, self.causal = task, names, causal
        self.config = SimpleNamespace(
            vocab_size=names + 1, mask_token_id=None if causal else names, is_causal=causal
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values=None,
        use_cache: bool = False,
        logits_to_keep: int | Tensor | None = 0,
    ) -> CausalLMOutputWithPast:
        """Logits (rows, fed, names + 1): log-probabilities, NEVER where a probability is 0.

        ValueError where there is more than a prompt and n tokens. logits_to_keep=None: they come as hidden
        states, for `lm_head`.
        """
        begin, n = self.task.prompt_length, self.task.n
        seen, columns = seen_by_query(
            input_ids, attention_mask, position_ids, past_key_values, self.mask, self.causal
        )
        if (most := seen.size(2)) > begin + n:
            raise ValueError(f"{most} columns: this oracle takes prompts of {begin} and {n} more")
        seen = pad(seen, (0, begin + n - most), value=self.mask)
        positions = (columns - begin + self.causal).clamp(0, n - 1)
        marginals = self.task.marginals(seen[..., :begin].amin(1), seen[..., begin:], positions, self.mask)
        logits = marginals.log().float().clamp(min=NEVER)
        if logits_to_keep is None:
            return CausalLMOutputWithPast(hidden_states=(logits,))
        return CausalLMOutputWithPast(logits=slice_logits_to_keep(logits, logits_to_keep))

    def lm_head(self, hidden: Tensor) -> Tensor:
        return hidden
