"""lm-eval's view of a decoder, and this project's view of lm-eval.

`DecoderLM` is an in-process lm-eval model over any decoder: lm-eval builds prompts (chat template and system
prompt included) and scores answers; the decoding between the two, its accounting and its record are ours.
Every document is on disk as soon as it is decoded, and a document that is on disk is never decoded again, so
that scoring twice generates once.

    lm = DecoderLM(decoder, load, tokenizer, stop, budget, run)
    results = simple_evaluate(lm, tasks=["gsm8k"], apply_chat_template=True, ...)
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from unmask.cli import Sweep, progress_bar
from unmask.decoding import Decoder, Generation, Models, Stop
from unmask.decoding.autoregressive import Autoregressive
from unmask.records import Run
from unmask.records.documents import TASK_STRIDE
from unmask.records.environment import commit, machine
from unmask.records.recipe import prompt_hash


class DecoderLM(TemplateLM):
    """A decoder on loaded models, as lm-eval's language model.

    load: returns the Models; called once, and only when something has to be decoded.
    stop: where answers end. budget: new tokens at most. context: positions of prompt and answer together at
        most.
    tasks: names of the tasks, in the order that numbers their documents.
    run: the record that answers are read from and appended to; may be set later, before anything is
        generated.
    warm_up: documents that are decoded before the clock starts, and again under it.
    chat_options: for the tokenizer's chat template.
    """

    def __init__(
        self,
        decoder: Decoder,
        load: Callable[[], Models],
        tokenizer,
        stop: Stop,
        budget: int,
        context: int,
        tasks: Sequence[str],
        batch_size: int = 1,
        seed: int = 0,
        run: Run | None = None,
        warm_up: int = 5,
        chat_options: Mapping | None = None,
    ):
        super().__init__()
        self.decoder, self._load, self.tokenizer, self.stop = decoder, load, tokenizer, stop
        self.budget, self.context, self.tasks, self.run = budget, context, list(tasks), run
        self.batch_size, self.seed, self.warm_up = batch_size, seed, warm_up
        self.chat_options = dict(chat_options or {})
        self.turns: str | None = None  # number of the session in which settings answer in turns
        self.decoded = 0  # documents decoded by this process, not read from the record
        self._first: dict | None = None  # ids of the warm-up by document; None before it

    @cached_property
    def models(self) -> Models:
        return self._load()

    def release(self) -> None:
        """Forget the models, so that memory serves the next evaluation."""
        self.__dict__.pop("models", None)

    # lm-eval's side

    tokenizer_name = property(lambda self: self.tokenizer.name_or_path.replace("/", "__"))
    eot_token_id = property(lambda self: self.tokenizer.eos_token_id)

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt: bool = True) -> str:
        # lm-eval asks for no generation prompt where the task begins the assistant's turn itself (humaneval).
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self.chat_options,
        )

    def tok_encode(self, string: str, **kwargs) -> list[int]:
        # The chat template has written all special tokens that the model expects (a second BOS changes
        # scores).
        return self.tokenizer.encode(string, add_special_tokens=False)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers of all requests, decoding those that the record lacks. Stop strings come from the config,
        not the task."""
        self.generate(requests)
        texts = {(s["doc_id"], s["repeat"]): s["text"] for s in self.run.samples()}
        return [texts[self.key(request)] for request in requests]

    def loglikelihood(self, requests, **kwargs):
        raise NotImplementedError(
            "DecoderLM generates; it computes no likelihoods (a diffusion model has only bounds). "
            "Choose a generate_until task, for example task=gsm8k"
        )

    _loglikelihood_tokens = loglikelihood_rolling = loglikelihood

    # Our side

    def key(self, request: Instance) -> tuple[int, int]:
        """(document, repeat) as the record numbers them: unique over the tasks of a group."""
        return self.number(request.task_name, request.doc_id), request.idx

    def number(self, task: str, document: int) -> int:
        return self.tasks.index(task) * TASK_STRIDE + document

    def prompts(self, requests: Iterable[Instance]) -> list[torch.Tensor]:
        """Prompt ids, each 1-D; ValueError for one that does not fit the context together with the budget."""
        prompts = [torch.tensor(self.tok_encode(request.args[0])) for request in requests]
        for request, prompt in zip(requests, prompts, strict=True):
            if len(prompt) + self.budget > self.context:
                raise ValueError(
                    f"document {request.doc_id} of {request.task_name}: a prompt of {len(prompt)} tokens and "
                    f"task.budget={self.budget} do not fit the model's context of {self.context} tokens"
                )
        return prompts

    def generate(self, requests: Sequence[Instance], advance: Callable[[], None] | None = None) -> None:
        """Decode and record every request that the record lacks, in batches.

        `advance` is called once a document; without it a progress bar with ETA is shown.
        """
        missing = [r for r in requests if self.key(r) not in self.run.done]
        prompts = self.prompts(missing)
        if not missing:
            return
        self.run.claim()
        if self._first is None:
            self._warm_up(missing, prompts)
        if advance:
            return self._generate(missing, prompts, advance)
        with progress_bar() as bar:
            task = bar.add_task(
                Sweep.describe(0, 0, 0), total=len(requests), completed=len(requests) - len(missing)
            )
            before, start = self.decoded, time.perf_counter()

            def shown():
                words = Sweep.describe(self.decoded - before, len(missing), time.perf_counter() - start)
                bar.update(task, advance=1, description=words)

            self._generate(missing, prompts, shown)

    def _generate(
        self, requests: Sequence[Instance], prompts: Sequence[torch.Tensor], advance: Callable[[], None]
    ) -> None:
        stamp = {"commit": commit(), "machine": machine(self.models.device), "turns": self.turns}
        for start in range(0, len(requests), self.batch_size):
            batch = slice(start, start + self.batch_size)
            number = self.run.next_batch
            samples = self.models.settled(partial(self.decode, requests[batch], prompts[batch]))
            exact = self._exact(prompts[batch], samples)
            for request, sample, same in zip(requests[batch], samples, exact, strict=True):
                first = self._first.pop(self.key(request), sample["ids"])
                if first != sample["ids"]:
                    raise AssertionError(
                        f"document {sample['doc_id']} decoded twice with one seed gave different ids"
                    )
                self.run.append(sample | {"batch": number, "exact": same} | stamp)
                self.decoded += 1
                advance()

    def seed_of(self, request: Instance) -> int:
        """The seed of a document's noise."""
        document, repeat = self.key(request)
        return self.seed * 1_000_003 + document * 101 + repeat

    def decode(self, requests: Sequence[Instance], prompts: Sequence[torch.Tensor]) -> list[dict]:
        """One batch, as samples for the record but for its number, exactness and where it was made."""
        seeds = list(map(self.seed_of, requests))
        generations = self.decoder.decode(self.models, prompts, self.budget, self.stop, seeds)
        return [self._sample(*row) for row in zip(requests, prompts, seeds, generations, strict=True)]

    def _exact(self, prompts: Sequence[torch.Tensor], samples: Sequence[dict]) -> list[bool | None]:
        """Whether each answer is the greedy autoregressive one, id for id, where the decoder claims so.

        AssertionError where it is not, in float32; with fewer bits, argmax may change with the shape of a
        forward, and the difference is recorded.
        """
        if not self.decoder.lossless or getattr(self.decoder, "temperature", 0) != 0:
            return [None] * len(samples)
        target = replace(self.models, by_role={"target": self.models["target"]})
        baseline = Autoregressive().decode(target, prompts, self.budget, self.stop, [0] * len(prompts))
        exact = []
        for ours, theirs in zip(samples, baseline, strict=True):
            end = theirs.useful + 1  # with the end token
            exact.append(ours["ids"][:end] == theirs.ids[:end] and ours["useful"] == theirs.useful)
            if not exact[-1] and self.models.main.dtype == torch.float32:
                pairs = zip(ours["ids"], theirs.ids, strict=False)
                at = next((i for i, pair in enumerate(pairs) if pair[0] != pair[1]), end)
                raise AssertionError(
                    f"{type(self.decoder).__name__} claims to be lossless, but document {ours['doc_id']} "
                    f"differs from autoregressive decoding at token {at}"
                )
        return exact

    def _sample(self, request: Instance, prompt: torch.Tensor, seed: int, generation: Generation) -> dict:
        document, repeat = self.key(request)
        return {
            "doc_id": document,
            "repeat": repeat,
            "task": request.task_name,
            "prompt_hash": prompt_hash(prompt.tolist()),
            "prompt_length": len(prompt),
            "seed": seed,
            "text": self.tokenizer.decode(generation.ids[: generation.useful], skip_special_tokens=True),
            "budget": self.budget,
            "batch_size": self.batch_size,
            **vars(generation),
        }

    def _warm_up(self, requests: Sequence[Instance], prompts: Sequence[torch.Tensor]) -> None:
        """Decode a few documents untimed, in batches.

        Warms caches and kernels, checks the claimed forwards against the models' own, and leaves the ids that
        the timed pass must repeat. (`Models.settled` warms what compiled models have not met by then.)
        """
        self._first = {}
        few = [
            requests[i : i + self.batch_size]
            for i in range(0, min(len(requests), self.warm_up), self.batch_size)
        ]
        by_key = {self.key(r): p for r, p in zip(requests, prompts, strict=True)}
        for batch in few:
            with ForwardCounter(self.models) as seen:
                samples = self.decode(batch, [by_key[self.key(r)] for r in batch])
            claimed = {role: sum(s["forwards"][role] for s in samples) for role in self.models.by_role}
            if claimed != seen.rows:
                raise AssertionError(f"forwards: {claimed} were claimed, and the models saw {seen.rows}")
            for request, sample in zip(batch, samples, strict=True):
                self._first[self.key(request)] = sample["ids"]


class ForwardCounter:
    """Counts rows of all forwards of the models by role while it is entered, independently of what decoders
    claim."""

    def __init__(self, models: Models):
        self.models, self.rows = models, dict.fromkeys(models.by_role, 0)

    def __enter__(self) -> "ForwardCounter":
        self._hooks = [
            model.register_forward_pre_hook(partial(self._count, role), with_kwargs=True)
            for role, model in self.models.by_role.items()
        ]
        return self

    def __exit__(self, *_) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, role, module, args, kwargs) -> None:
        self.rows[role] += kwargs["input_ids"].size(0)


def text_stop(ids: Iterable[int], strings: Sequence[str], tokenizer) -> Stop:
    """Stop at any of the token ids, and before the first of the strings, found in the decoded text."""
    strings = [s for s in strings if s]
    stop = Stop(frozenset(ids))
    if not strings:
        return stop
    # A token is a byte or more: a string that ends in new tokens begins no further left of them than this.
    # (And a few more: the first tokens of a piece may decode otherwise, as half a character.)
    reach = max(len(s.encode()) for s in strings) + 8

    def match(tokens: Sequence[int], known: int = 0) -> int | None:
        recent = tokenizer.decode(tokens[max(0, known - reach) :])  # the clock runs: not all of it every step
        if not any(s in recent for s in strings):
            return None
        text = tokenizer.decode(tokens)
        cut = min((text.index(s) for s in strings if s in text), default=None)
        if cut is None:
            return None
        # The most tokens whose text ends before the stop string: a string inside a token cuts before that
        # token.
        low, high = 0, len(tokens)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(tokenizer.decode(tokens[:middle])) <= cut else (low, middle - 1)
        return low

    return replace(stop, match=match)
