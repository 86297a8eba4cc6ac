"""What every decoder is, and the loop that all of them share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from unmask.decoding.board import Board
from unmask.decoding.generation import Generation, Observer, Stop
from unmask.decoding.models import Models
from unmask.decoding.row import Commit, Row
from unmask.decoding.sampling import at_least_one
from unmask.models.layout import Layout


class Decoder:
    """A frozen dataclass of settings with a `step`.

    To add one, write a file in unmask/decoding/ with a subclass and a YAML in eval_config/decoder/ that names
    it. Every forward goes through `Board.forward`, which counts it; every token through what `step` returns.
    One that samples inherits `Sampling` too, and names in `sampling` which of its settings it uses.
    `unmask.testing.check.check_decoder(MyDecoder())` tests what every decoder promises.

    roles: the models that it needs, "diffusion", "causal" or "drafter" by role. The first one's forwards are
        the steps.
    compiles: whether its models may be compiled: all forwards are the board's, which pads them to few shapes.
    attention: what the first role's model sees, if it is a denoiser: "full", or "block_causal", the blocks up
        to its own.
    lossless: greedy, its ids are those of its `baseline`; eval.py checks it in every run.
    revises: what it has committed it may mask again or rewrite. It keeps `row.revisable` up to date; stops,
        caches and ends look at what is settled alone, and records keep what was taken back.
    """

    roles: ClassVar[Mapping[str, str]] = {"denoiser": "diffusion"}
    attention: ClassVar[str] = "full"
    lossless: ClassVar[bool] = False
    compiles: ClassVar[bool] = True
    revises: ClassVar[bool] = False

    @property
    def baseline(self) -> Decoder:
        """The decoder that gives the same ids at temperature 0 one token a step, if this one is lossless. Its
        roles are some of this one's."""
        from unmask.decoding.autoregressive import Autoregressive  # which is a decoder

        return Autoregressive()

    @property
    def contents(self) -> dict[str, str]:
        """Of files that decide its answers and are not as shipped: a hash of each, part of a run's
        identity."""
        return {}

    def check(self, max_new_tokens: int, vocabulary: int | None = None) -> None:
        """Raise ValueError where the settings do not fit a canvas of `max_new_tokens` tokens, or a vocabulary
        of so many, where that is known. No model is needed."""

    def check_layout(self, layout: Layout) -> None:
        """Raise ValueError where the settings do not fit a first model of this layout. No weights needed."""

    def begin(self, board: Board) -> None:
        """Prepare what each row needs in `row.state`."""

    def step(self, board: Board) -> list[Commit]:
        """One forward of the first role for every row on the board (and what it takes besides).

        Returns, per row, the canvas positions and ids that it commits; both may be empty. An id of None masks
        a position again.
        """
        raise NotImplementedError

    def block_states(self, row: Row) -> str:
        """Where its blocks stand after a step, a letter a block; empty for decoders that do not begin blocks
        on their own. See `Pipeline.block_states`."""
        return ""

    def run(self, board: Board, observer: Observer | None) -> None:
        """Step until every row has ended."""
        self.begin(board)
        while board.rows:
            board.commit(self.step(board), observer)

    def decode(
        self,
        models: Models,
        prompts: Sequence[Tensor],
        max_new_tokens: int,
        stop: Stop,
        seeds: Sequence[int],
        observer: Observer | None = None,
    ) -> list[Generation]:
        """Decode every prompt (1-D id tensors of any lengths) to at most `max_new_tokens` tokens.

        In float32 a row's result depends on its prompt and its seed alone: not on the batch, its size or its
        order. With fewer bits the shape of a batch may round otherwise, and another token win.
        ValueError where the settings do not fit max_new_tokens, a causal model gets an empty prompt, or a
        prompt holds the mask's id; NotFinite, which is one, where a model's logits are no numbers.
        """
        at_least_one(max_new_tokens=max_new_tokens)
        self.check(max_new_tokens)
        if "causal" in self.roles.values() and not all(map(len, prompts)):
            raise ValueError(
                f"{type(self).__name__} needs prompts of one token or more: a causal model starts there"
            )
        for i, prompt in enumerate(prompts):
            if models.mask_id is not None and models.mask_id in prompt.tolist():
                raise ValueError(
                    f"prompt {i} holds the mask's id {models.mask_id}: the model would take it for an open "
                    "position. Remove the mask's text from the prompt"
                )
        rows = [
            Row.fresh(i, prompt.tolist(), max_new_tokens, seed, list(self.roles))
            for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        if self.revises:
            for row in rows:
                row.lost, row.revisable = [], 0
        synchronise(models.device)
        start = time.perf_counter()
        with torch.inference_mode():
            if rows:
                self.run(board := Board(rows, models, stop), observer)
        synchronise(models.device)
        if rows:
            board.watch.check()
        seconds = (time.perf_counter() - start) / max(1, len(rows))
        generations = [row.generation() for row in rows]
        for generation in generations:
            generation.seconds = seconds
            if models.mask_id is not None and models.mask_id in generation.ids:
                raise AssertionError(f"{type(self).__name__} emitted the mask id {models.mask_id}")
        return generations


def synchronise(device: torch.device) -> None:
    """Wait for all work on an accelerator; nothing to do on a CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
