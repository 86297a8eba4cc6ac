"""DFlash's drafter learns to fill a block from its first token and what a frozen target made of the text
before it (arXiv 2602.06036, app. A.1)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache

from unmask.training.data import Batch
from unmask.training.objectives.objective import STUDENT, Objective

ANCHOR_POSITIONS = ("random", "fixed")


class DFlash(Objective):
    """Many blocks of an answer in one forward: block j begins at its anchor a_j, a token of the answer, and
    holds masks for the block_length - 1 tokens after it. It sees the target's features of what stands left of
    a_j, and itself: just what it sees when it drafts.

    Cross-entropy of each masked token (those of the answer), weighted by exp(-(k - 1) / gamma) for the k-th
    after the anchor, a weighted mean. Train it on answers of its target (`run:FOLDER`).
    """

    roles: ClassVar = {STUDENT: "drafter", "target": "causal"}

    @dataclass(frozen=True)
    class Options:
        """block_length: B, the anchor and B - 1 drafted tokens.
        anchors: of a row, at most.
        anchor_positions: random, anchors anywhere in the answer; fixed, every B-th token of it.
        gamma: how fast the weight falls (published: 7, 5, 4 for B = 16, 10, 8; null = 1 + 3/8 B, which is
            near these); .inf = it does not.
        negatives: tokens that a draft is told from besides those of the batch, drawn anew for each step and
            weighted for all that they stand for (sampled softmax, arXiv 1412.2007); null = the whole
            vocabulary, which is half of the time of a small drafter.
        keep_features: what the target made of a text stays in memory, for when the text comes again: a
            target that costs more than its drafter runs once, and 4 bytes x layers x hidden a token stay.
        """

        block_length: int = 8
        anchors: int = 16
        anchor_positions: str = "random"
        gamma: float | None = None
        negatives: int | None = None
        keep_features: bool = False

        def __post_init__(self):
            for name, least in (("block_length", 2), ("anchors", 1), ("negatives", 1)):
                if (value := getattr(self, name)) is not None and value < least:
                    raise ValueError(f"objective_options.{name}={value} must be at least {least}")
            if self.anchor_positions not in ANCHOR_POSITIONS:
                raise ValueError(
                    f"objective_options.anchor_positions={self.anchor_positions!r} is not random or fixed"
                )
            if self.gamma is not None and not self.gamma > 0:
                raise ValueError(f"objective_options.gamma={self.gamma} must be above 0")

    def __init__(self, models: Mapping[str, nn.Module], **options):
        super().__init__(models, **options)
        self.kept: dict[tuple[int, ...], Tensor] = {}  # features by text

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        options, drafter = self.options, self.student
        features = self.kept_features(batch) if options.keep_features else self.features(batch.ids)
        anchors, real = chosen_anchors(batch.answer, options, generator)  # (rows, m)
        offsets = torch.arange(options.block_length, device=anchors.device)
        columns = anchors[..., None] + offsets  # (rows, m, B)
        n = batch.ids.size(1)
        inside = columns.clamp(max=n - 1)
        wanted = batch.ids.gather(1, inside.flatten(1)).view_as(columns)
        predicted = batch.answer.gather(1, inside.flatten(1)).view_as(columns)
        predicted &= (columns < n) & real[..., None] & (offsets > 0)
        blocks = torch.where(offsets > 0, drafter.mask_token_id, wanted)

        text = torch.arange(n, device=anchors.device)
        known = text < anchors[..., None]  # (rows, m, n)
        own = torch.eye(anchors.size(1), dtype=torch.bool, device=anchors.device)
        sees = torch.cat(
            (known, own.repeat_interleave(options.block_length, 1).expand(len(known), -1, -1)), -1
        )
        out = drafter(
            blocks.flatten(1),
            self.target.get_input_embeddings(),
            columns.flatten(1),
            attention_mask=sees.repeat_interleave(options.block_length, 1)[:, None],
            past_key_values=Beside(drafter.context(features, text.expand_as(batch.ids))),
            use_cache=True,
        )
        logits, labels = self.logits(out[predicted.flatten(1)], wanted[predicted], generator)
        gamma = options.gamma or 1 + 3 / 8 * options.block_length
        weight = torch.exp(-(offsets - 1) / gamma if gamma < math.inf else offsets * 0.0)
        weight = weight.expand_as(columns)[predicted]
        loss = cross_entropy(logits, labels, reduction="none")
        return (loss * weight).sum() / weight.sum().clamp(min=1e-9)

    def logits(self, hidden: Tensor, wanted: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(logits, the column of each wanted token): (tokens, V), or (tokens, those of the batch and the
        drawn ones)."""
        head = self.target.get_output_embeddings()
        if self.options.negatives is None:
            return head(hidden), wanted
        size = head.weight.size(0)
        known, labels = wanted.unique(return_inverse=True)
        drawn = torch.randperm(size, generator=generator)[: self.options.negatives].to(known.device)
        drawn = drawn[~torch.isin(drawn, known)]
        logits = linear(hidden, head.weight[torch.cat((known, drawn))])
        stands_for = math.log((size - len(known)) / max(len(drawn), 1))  # each drawn token, for so many
        return torch.cat((logits[:, : len(known)], logits[:, len(known) :] + stands_for), 1), labels

    def features(self, ids: Tensor) -> Tensor:
        """(rows, n, layers * hidden) that the target made of ids (rows, n)."""
        with self.frozen("target") as target:
            hidden = target.model(ids, output_hidden_states=True, use_cache=False).hidden_states
            return self.student.features(hidden)

    def kept_features(self, batch: Batch) -> Tensor:
        """`features`, of the texts that came before from memory. What follows a text is zero."""
        lengths = (batch.answer.size(1) - batch.answer.flip(1).long().argmax(1)).tolist()
        texts = [tuple(row[:n]) for row, n in zip(batch.ids.tolist(), lengths, strict=True)]
        if new := [i for i, text in enumerate(texts) if text not in self.kept]:
            for i, row in zip(new, self.features(batch.ids[new]), strict=True):
                self.kept[texts[i]] = row[: lengths[i]].cpu()
        rows = pad_sequence([self.kept[text] for text in texts], batch_first=True).to(batch.ids.device)
        return pad(rows, (0, 0, 0, batch.ids.size(1) - rows.size(1)))


class Beside(Cache):
    """Keys and values of every layer that stand left of a forward's own; nothing is kept."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]]):
        super().__init__(layers=[])
        self.beside = layers

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        new = (key_states, value_states)
        return tuple(torch.cat(pair, 2) for pair in zip(self.beside[layer_idx], new, strict=True))


def chosen_anchors(
    answer: Tensor, options: DFlash.Options, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(columns of the anchors, whether each is one): (rows, m) of `answer` (rows, n) bool.

    An anchor is a token of the answer that another one follows.
    """
    may = answer.clone()
    may[:, :-1] &= answer[:, 1:]
    may[:, -1] = False
    if options.anchor_positions == "fixed":
        number = answer.cumsum(1) - 1
        may &= number % options.block_length == 0
    draws = torch.rand(answer.shape, generator=generator).to(answer.device).masked_fill(~may, -1)
    order = draws.topk(min(options.anchors, answer.size(1)), dim=1).indices
    return order, may.gather(1, order)
