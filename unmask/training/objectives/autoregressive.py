"""Next-token prediction: what a causal model is trained to do."""

from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from unmask.training.data import Batch
from unmask.training.objectives.objective import STUDENT, Objective


class Autoregressive(Objective):
    """Mean cross-entropy of the answer tokens, given everything left of them."""

    roles: ClassVar = {STUDENT: "causal"}

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        # Rows are padded on the right, where no token of an answer looks: no mask is needed.
        hidden = self.student.model(batch.ids[:, :-1]).last_hidden_state
        answer = batch.answer[:, 1:]
        logits = self.student.lm_head(hidden[answer])
        return cross_entropy(logits, batch.ids[:, 1:][answer])
