"""How good a model is while it trains: greedy answers to validation problems, which are neither trained on
nor test problems."""

import re
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from unmask.decoding import Models, Stop
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.leftright import LeftRight
from unmask.tasks import problems
from unmask.training.data import chat_prompt

BATCH = 16


@dataclass
class Validation:
    """Accuracy on the first `count` validation problems of a task, decoded greedily: one token a step, left
    to right."""

    tokenizer: PreTrainedTokenizerBase
    count: int
    budget: int
    every: int  # training tokens between two measurements
    task: str = "gsm_symbolic"

    def __call__(self, model: torch.nn.Module) -> float:
        found = problems.held_out(self.task, "validation")[: self.count]
        prompts = [
            torch.tensor(self.tokenizer.encode(chat_prompt(self.tokenizer, p.question))) for p in found
        ]
        decoder = LeftRight() if Models(model).mask_id is not None else Autoregressive()
        stop = Stop(frozenset({self.tokenizer.eos_token_id}))
        model.eval()
        right = 0
        for start in range(0, len(found), BATCH):
            batch = slice(start, start + BATCH)
            answers = decoder.decode(
                Models(model), prompts[batch], self.budget, stop, [0] * len(prompts[batch])
            )
            for problem, answer in zip(found[batch], answers, strict=True):
                numbers = re.findall(r"\d+", self.tokenizer.decode(answer.ids[: answer.useful]))
                right += numbers[-1:] == [problem.answer]
        model.train()
        return right / len(found)
