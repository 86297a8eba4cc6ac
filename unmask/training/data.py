"""Training batches, streamed from a seed: word problems and sums in the chat template, and arithmetic drills.

A stream is a pure function of its settings and a position (chunk, batch), so a checkpoint holds those (and
the mixture of the chunk) and resuming continues with exactly the batch that an uninterrupted run would have
seen.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from unmask.tasks import problems

CHUNK_TOKENS = 200_000  # tokens that are generated, sorted by length and cut into batches at once
DRILL_LINES = (4, 11)  # drills are as long as word problems, so that batches mix both


Row = tuple[list[int], list[bool], int | None]


@dataclass
class Batch:
    """Token ids (b, n), filled with EOS to the right, and per token:"""

    ids: torch.Tensor
    answer: torch.Tensor  # bool: the model is asked for this token
    silence: torch.Tensor  # bool: an EOS right of an answer's own, which a denoiser is asked for too
    drill: torch.Tensor  # bool, per row: lines of arithmetic, of which the results are asked for

    @property
    def tokens(self) -> int:
        return self.ids.numel()

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass
class Stream:
    """Batches of about `batch_tokens` tokens, without end.

    `mixture` gives each source's share of the tokens; it moves linearly to `final_mixture` as `progress` goes
    from 0 to 1.
    """

    tokenizer: PreTrainedTokenizerBase
    mixture: Mapping[str, float]
    batch_tokens: int
    seed: int = 0
    final_mixture: Mapping[str, float] | None = None
    canvas: int | None = (
        None  # answers are followed by silence: in half of the rows up to this length, else up to a drawn one
    )
    position: tuple[int, int] = (0, 0)  # chunk, batch within it: the next batch to come
    shares: dict[str, float] | None = None  # the mixture of the chunk under way
    _chunk: tuple[int, list[Batch]] = field(default=(-1, []), repr=False)

    def next(self, progress: float = 0.0) -> Batch:
        """The next batch. The mixture of a chunk is fixed when the chunk begins."""
        chunk, index = self.position
        if index == 0 or self.shares is None:
            self.shares = self._shares(progress)
        if self._chunk[0] != chunk:
            self._chunk = (chunk, self._batches(chunk, self.shares))
        batches = self._chunk[1]
        self.position = (chunk, index + 1) if index + 1 < len(batches) else (chunk + 1, 0)
        return batches[index]

    def _shares(self, progress: float) -> dict[str, float]:
        first, last = dict(self.mixture), dict(self.final_mixture or self.mixture)
        return {
            name: (1 - progress) * first.get(name, 0) + progress * last.get(name, 0) for name in first | last
        }

    def _batches(self, chunk: int, shares: dict[str, float]) -> list[Batch]:
        rng = random.Random(f"{self.seed}/{chunk}")
        total = sum(shares.values())
        rows = []
        for name, share in shares.items():
            tokens = CHUNK_TOKENS * share / total
            for row in self._examples(name, chunk, rng):
                if tokens <= 0:
                    break
                rows.append(row)
                tokens -= len(row[0])
        # Sorting within a little noise buckets the lengths without tying a length to one source for ever.
        rows.sort(key=lambda row: len(row[0]) + rng.random() * 4)
        batches, group = [], []
        for row in rows:
            if group and (len(group) + 1) * max(len(r[0]) for r in [*group, row]) > self.batch_tokens:
                batches.append(group)
                group = []
            group.append(row)
        batches.append(group)
        rng.shuffle(batches)
        return [self._collate(group) for group in batches]

    def _examples(self, name: str, chunk: int, rng: random.Random) -> Iterator[Row]:
        """Rows of one source as (ids, asked for or not, silence at the end or None where nothing ends)."""
        if name == "drill":
            while True:
                pairs = problems.drill(rng, rng.randint(*DRILL_LINES))
                pieces = self.tokenizer([text for a, b in pairs for text in (a, b + "\n")]).input_ids
                yield (
                    [i for piece in pieces for i in piece],
                    [odd for k, piece in enumerate(pieces) for odd in [k % 2 == 1] * len(piece)],
                    None,
                )
        size = 1000
        part = 0
        while True:
            # 64 parts a chunk are far more than CHUNK_TOKENS can use.
            found = problems.training_stream(name, (self.seed * 100_003 + chunk) * 64 + part, size)
            prompts = [chat_prompt(self.tokenizer, p.question) for p in found]
            answers = [p.solution + self.tokenizer.eos_token for p in found]
            pairs = zip(self.tokenizer(prompts).input_ids, self.tokenizer(answers).input_ids, strict=True)
            for prompt, answer in pairs:
                silence = self._silence(len(answer), rng)
                ids = prompt + answer + [self.tokenizer.eos_token_id] * silence
                yield ids, [False] * len(prompt) + [True] * len(answer), silence
            part += 1

    def _silence(self, length: int, rng: random.Random) -> int:
        if self.canvas is None or length >= self.canvas:
            return 0
        return (self.canvas if rng.random() < 0.5 else rng.randint(length, self.canvas)) - length

    def _collate(self, rows: list[Row]) -> Batch:
        width = max(len(ids) for ids, _, _ in rows)
        eos = self.tokenizer.eos_token_id
        return Batch(
            ids=torch.tensor([ids + [eos] * (width - len(ids)) for ids, _, _ in rows]),
            answer=torch.tensor([asked + [False] * (width - len(asked)) for _, asked, _ in rows]),
            silence=torch.tensor(
                [[n is not None and i >= len(asked) for i in range(width)] for _, asked, n in rows]
            ),
            drill=torch.tensor([n is None for _, _, n in rows]),
        )


def chat_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
