"""An ideal model of ParallelBench's tasks (tasks/parallelbench.py): it counts right answers.

Every masked token gets its true probability, given what its query sees: all right answers of a question are
equally likely, and those that fit are left; where none fits any more, all are. So what a decoder loses on it
is the decoder's alone. It is a layout: model=ideal has tokenizer and shape of LLaDA's folder that it is
loaded from, so it costs what that model costs; the weights are never read.

Equal tokens differ by up to TIE nats, drawn anew for every question and canvas, as rounding tells a trained
model's apart: without it every greedy decoder writes the lowest id wherever names are equally likely.
"""

import re
from functools import cache, cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep

from llada import LAYOUT as LLADA
from llada import LLaDAConfig, LLaDAModelLM
from unmask.models.layout import Layout, register
from unmask.tasks.parallelbench import TASKS, answers_to
from unmask.testing.oracle import NEVER, counted, seen_by_query

TIE = 1e-4  # nats
QUESTION = re.compile(r".*<\|im_start\|>user\n(.*?)<\|im_end\|>\n<\|im_start\|>assistant\n", re.DOTALL)


class IdealConfig(LLaDAConfig):
    """LLaDA's fields."""


class Given(nn.Linear):
    """A head whose hidden states are the logits already."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden


class IdealLM(LLaDAModelLM):
    """Takes what `BidirectionalLM.forward` takes; ValueError for a prompt that is no question of the tasks in
    the tiny family's chat template."""

    config: IdealConfig

    def __init__(self, config):
        super().__init__(config)
        self.lm_head = Given(config.hidden_size, config.vocab_size, bias=False)
        self.known: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}  # see `_answers`

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(self.config.name_or_path)

    @cached_property
    def header(self) -> list[int]:
        """The ids that a prompt ends with."""
        return self.tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values=None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor | None = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        mask = self.config.vocab_size  # above all ids
        ids = input_ids.masked_fill(input_ids == self.config.mask_token_id, mask)
        seen, columns = seen_by_query(ids, attention_mask, position_ids, past_key_values, mask, causal=False)
        logits = torch.full((*columns.shape, mask), NEVER, device=ids.device)
        for row, mine, own in zip(logits, seen, columns, strict=True):
            prompt = self._prompt(mine.amin(0).tolist())
            begin, end = len(prompt), mine.size(1)
            asked = (own >= begin) & (own < end)
            canvases, positions = mine[asked, begin:], own[asked] - begin
            tokens, answers = self._answers(prompt, end - begin)
            # Of the few tokens that some answer has, by their numbers; another one fits none.
            numbers = torch.full((mask + 1,), len(tokens) + 1).index_fill(
                0, torch.tensor([mask]), len(tokens)
            )
            numbers[tokens] = torch.arange(len(tokens))
            law = counted(answers, numbers[canvases], positions, len(tokens))[:, :-1].log()
            law = (law + ties(prompt, canvases, positions, tokens)).float().clamp(min=NEVER)
            row[asked.nonzero(), tokens] = law
        if logits_to_keep is None:
            return CausalLMOutputWithPast(past_key_values=past_key_values, hidden_states=(logits,))
        return CausalLMOutputWithPast(logits=slice_logits_to_keep(logits, logits_to_keep))

    def _prompt(self, row: list[int]) -> tuple[int, ...]:
        """The ids of a row up to its canvas: no answer holds what a prompt's last turn begins with."""
        turn = self.header[0]
        return tuple(row[: len(row) - 1 - row[::-1].index(turn) + len(self.header)] if turn in row else ())

    def _answers(self, prompt: tuple[int, ...], length: int) -> tuple[Tensor, Tensor]:
        """The ids that right answers have, and the answers (answers, length) as numbers of these: filled up
        with their end, as far as columns are seen."""
        if prompt not in self.known:
            text, ends = self.tokenizer.decode(prompt), [self.tokenizer.eos_token_id]
            try:
                right = answers_to(QUESTION.fullmatch(text)[1])
            except (TypeError, ValueError) as error:  # not in the template, or another question
                raise ValueError(f"model=ideal: no question of ParallelBench's tasks: {text!r}") from error
            found = [[*map(self._id, answer), *ends] for answer in right]
            most = max(map(len, found))
            ids = torch.tensor([[*answer, *ends * (most - len(answer))] for answer in found])
            self.known[prompt] = ids.unique(return_inverse=True)
        tokens, answers = self.known[prompt]
        answers = answers[:, :length]
        end = int((tokens == self.tokenizer.eos_token_id).nonzero())
        return tokens, pad(answers, (0, length - answers.size(1)), value=end)

    @cache  # noqa: B019  (names and digits)
    def _id(self, piece: str) -> int:
        (token,) = self.tokenizer.encode(piece, add_special_tokens=False)
        return token


def ties(prompt: tuple[int, ...], canvases: Tensor, positions: Tensor, tokens: Tensor) -> Tensor:
    """(queries, tokens) from 0 to TIE: of each prompt, canvas, position and token a number of its own."""
    odd = _mixed(torch.arange(1, canvases.size(1) + 2)) | 1
    seeds = (torch.cat((canvases, positions[:, None]), 1) * odd).sum(1) + hash(prompt)  # int64 wraps around
    bits = _mixed(_mixed(seeds)[:, None] + tokens)
    return TIE * (bits & (2**30 - 1)).double() / 2**30


def _mixed(bits: Tensor) -> Tensor:
    """Each of 64 bits depends on all (the finalizer of SplitMix64, Steele et al. 2014)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        bits = (bits ^ ((bits >> shift) & (2 ** (64 - shift) - 1))) * factor
    return bits


LAYOUT = register(
    Layout(
        "ideal",
        IdealConfig,
        IdealLM,
        mask_id=LLADA.mask_id,
        by_name_only=True,
        conversions=LLADA.conversions,
        tasks=tuple(task for task in TASKS if task != "line_shuffle_long"),  # ten names have 3,628,800 orders
    )
)
