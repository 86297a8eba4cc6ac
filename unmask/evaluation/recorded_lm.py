"""The language model of eval.py: lm-eval builds prompts (chat template and system prompt included) and scores
answers; the decoding between the two, its accounting and its record are ours.

Every document is on disk as soon as it is decoded, and a document that is on disk is never decoded again, so
that scoring twice generates once.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

import torch
from lm_eval.api.instance import Instance

from unmask.configuration.command_line import Sweep
from unmask.decoding import Generation, Models, Stop
from unmask.decoding.transformers_generate import forwards_of, ids_fed
from unmask.evaluation.lm import GenerativeLM
from unmask.evaluation.setup import Setup
from unmask.models.resources import check_device
from unmask.progress import progress_bar
from unmask.records import Run
from unmask.records.environment import commit, machine
from unmask.records.identity import prompt_hash

CHECKED = 20  # answers of a lossless decoder that are checked on a GPU, where check_lossless does not say


class RecordedLM(GenerativeLM):
    """A `GenerativeLM` whose answers are read from a record, and appended to it.

    tasks: names of the tasks, in the order that numbers their documents.
    stop: where answers end. max_new_tokens: new tokens at most.
    run: the record that answers are read from and appended to; may be set later, before anything is
        generated.
    warm_up: documents that are decoded before the clock starts, and again under it.
    """

    def __init__(
        self,
        setup: Setup,
        tasks: Sequence[str],
        stop: Stop,
        max_new_tokens: int,
        run: Run | None = None,
        warm_up: int = 5,
    ):
        super().__init__(setup, tasks)
        self.stop, self.max_new_tokens, self.run, self.warm_up = stop, max_new_tokens, run, warm_up
        # prompt of (number in the task, document, answers to earlier turns), by task
        self.prompt_of: dict[str, Callable[..., str]] = {}
        self.session: str | None = None  # number of the session in which settings answer in turns
        self.decoded = 0  # documents decoded by this process, not read from the record
        # ids of the warm-up by batch size, of which they depend below float32, and document; None before it
        self._first: dict | None = None

    # lm-eval's side

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers of all requests, decoding those that the record lacks. Stop strings come from the config,
        not the task."""
        self.generate(requests)
        texts = {(s["doc_id"], s["repeat"]): s["text"] for s in self.run.samples()}
        return [texts[self.key(request)] for request in requests]

    # Our side

    def key(self, request: Instance) -> tuple[int, int]:
        """(document, repeat) as the record numbers them: unique over the tasks of a group."""
        return self.number(request.task_name, request.doc_id), request.idx

    def asked(self, request: Instance) -> str:
        """A request's prompt. One that follows other turns of its conversation has the recorded answers to
        these; where they are not given yet, something stands for them."""
        if not self.run or not (turns := len(request.doc.get("earlier", ()))):
            return request.args[0]
        number, repeat = self.key(request)
        texts = {(s["doc_id"], s["repeat"]): s["text"] for s in self.run.samples()}
        before = [texts[key] for key in ((number - turns + t, repeat) for t in range(turns)) if key in texts]
        return self.prompt_of[request.task_name](request.doc_id, request.doc, before)

    def prompts(self, requests: Iterable[Instance]) -> list[torch.Tensor]:
        """Prompt ids, each 1-D; ValueError for one that holds the mask, or does not fit the context together
        with its answer."""
        requests = list(requests)
        prompts = [torch.tensor(self.tok_encode(self.asked(request))) for request in requests]
        for request, prompt in zip(requests, prompts, strict=True):
            if len(prompt) + self.max_new_tokens > self.context:
                raise ValueError(
                    f"document {request.doc_id} of {request.task_name}: a prompt of {len(prompt)} tokens and "
                    f"task.max_new_tokens={self.max_new_tokens} do not fit the model's context of "
                    f"{self.context} tokens"
                )
            if self.mask_id is not None and self.mask_id in prompt.tolist():
                raise ValueError(
                    f"document {request.doc_id} of {request.task_name}: its prompt holds the mask's id "
                    f"{self.mask_id}; remove the mask's text from the document"
                )
        return prompts

    def generate(self, requests: Sequence[Instance], advance: Callable[[], None] | None = None) -> None:
        """Decode and record every request that the record lacks, in batches.

        `advance` is called once a document; without it a progress bar with ETA is shown.
        """
        missing = [r for r in requests if self.key(r) not in self.run.done]
        self.prompts(missing)
        if not missing:
            return
        try:
            check_device(self.setup.device)
        except ValueError as error:
            lack = f"{len(missing)} of {len(requests)} documents are not in {self.run.folder}"
            raise ValueError(f"{lack}, a record of {self.setup.device.type}: {error}") from error
        self.run.claim()
        if advance:
            return self._generate_in_turns(missing, advance)
        with progress_bar() as bar:
            task = bar.add_task(
                Sweep.describe(0, 0, 0), total=len(requests), completed=len(requests) - len(missing)
            )
            before, start = self.decoded, time.perf_counter()

            def shown():
                words = Sweep.describe(self.decoded - before, len(missing), time.perf_counter() - start)
                bar.update(task, advance=1, description=words)

            self._generate_in_turns(missing, shown)

    def _generate_in_turns(self, requests: Sequence[Instance], advance: Callable[[], None]) -> None:
        """First the first turns of all conversations, then the second ones, which see the answers."""
        turn_of = lambda request: len(request.doc.get("earlier", ()))  # noqa: E731
        for _, group in groupby(sorted(requests, key=turn_of), turn_of):
            alike = list(group)
            prompts = self.prompts(alike)
            if self._first is None:
                self._warm_up(alike, prompts)
            self._generate(alike, prompts, advance)

    def _generate(
        self, requests: Sequence[Instance], prompts: Sequence[torch.Tensor], advance: Callable[[], None]
    ) -> None:
        stamp = {"commit": commit(), "machine": machine(self.models.device), "session": self.session}

        def decode(batch: slice) -> tuple[list[dict], list[bool | None]]:
            samples = self.models.settled(partial(self.decode, requests[batch], prompts[batch]))
            return samples, self._exact(prompts[batch], samples)

        for batch, (samples, exact) in self.in_batches(requests, decode):
            number = self.run.next_batch
            for request, sample, same in zip(requests[batch], samples, exact, strict=True):
                first = self._first.pop((self.batch_size, self.key(request)), sample["ids"])
                if first != sample["ids"]:
                    raise AssertionError(
                        f"document {sample['doc_id']} decoded twice with one seed gave different ids"
                    )
                self.run.append(sample | {"batch": number, "exact": same} | stamp)
                self.decoded += 1
                advance()

    def seed_of(self, request: Instance) -> int:
        """The seed of a document's noise."""
        return self.noise_seed(*self.key(request))

    def decode(self, requests: Sequence[Instance], prompts: Sequence[torch.Tensor]) -> list[dict]:
        """One batch, as samples for the record but for its number, exactness and where it was made."""
        seeds = list(map(self.seed_of, requests))
        generations = self.decoder.decode(self.models, prompts, self.max_new_tokens, self.stop, seeds)
        return [self._sample(*row) for row in zip(requests, prompts, seeds, generations, strict=True)]

    def _exact(self, prompts: Sequence[torch.Tensor], samples: Sequence[dict]) -> list[bool | None]:
        """Whether each answer is that of the decoder's baseline, id for id, where the decoder claims so; None
        where it does not, and of documents beyond `check_lossless`.

        AssertionError where it is not, in float32; with fewer bits, argmax may change with the shape of a
        forward, and the difference is recorded.
        """
        if not self.decoder.lossless or getattr(self.decoder, "temperature", 0) != 0:
            return [None] * len(samples)
        if (left := self._to_check()) < len(samples):
            checked = self._exact(prompts[:left], samples[:left]) if left else []
            return checked + [None] * (len(samples) - left)
        decoder = self.decoder.baseline
        shared = replace(self.models, by_role={role: self.models[role] for role in decoder.roles})
        baseline = decoder.decode(shared, prompts, self.max_new_tokens, self.stop, [0] * len(prompts))
        exact = []
        for ours, theirs in zip(samples, baseline, strict=True):
            end = theirs.useful + 1  # with the end token
            exact.append(ours["ids"][:end] == theirs.ids[:end] and ours["useful"] == theirs.useful)
            if not exact[-1] and self.models.main.dtype == torch.float32:
                pairs = zip(ours["ids"], theirs.ids, strict=False)
                at = next((i for i, pair in enumerate(pairs) if pair[0] != pair[1]), end)
                raise AssertionError(
                    f"{type(self.decoder).__name__} claims to be lossless, but document {ours['doc_id']} "
                    f"differs from {type(decoder).__name__} decoding at token {at}"
                )
        return exact

    def _to_check(self) -> float:
        """How many answers of a lossless decoder are still to be checked: an answer more for each costs as
        much as the baseline's."""
        most = self.setup.cfg.check_lossless
        if most is None:
            most = math.inf if self.setup.device.type == "cpu" else CHECKED
        if most == math.inf:  # nothing to count
            return most
        return max(0, most - sum(sample["exact"] is not None for sample in self.run.samples()))

    def _sample(self, request: Instance, prompt: torch.Tensor, seed: int, generation: Generation) -> dict:
        document, repeat = self.key(request)
        return {
            "doc_id": document,
            "repeat": repeat,
            "task": request.task_name,
            "prompt_hash": prompt_hash(prompt.tolist()),
            "prompt_length": len(prompt),
            "seed": seed,
            "text": self.text(generation),
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch_size,
            **{name: value for name, value in vars(generation).items() if value is not None},
        }

    def _warm_up(self, requests: Sequence[Instance], prompts: Sequence[torch.Tensor]) -> None:
        """Decode a few documents untimed, in batches.

        Warms caches and kernels, checks the claimed forwards against the models' own, and leaves the ids that
        the timed pass must repeat. (`Models.settled` warms what compiled models have not met by then.)
        """
        self._first = {}
        count = -(-min(len(requests), self.warm_up) // self.batch_size) * self.batch_size  # whole batches
        few = requests[:count]

        def decode(batch: slice) -> tuple[list[dict], dict[str, int]]:
            with ForwardCounter(self.models) as seen:
                return self.decode(few[batch], prompts[batch]), seen.rows

        for batch, (samples, seen) in self.in_batches(few, decode):
            claimed = {role: sum(s["forwards"][role] for s in samples) for role in self.models.by_role}
            most = 2 if self.models.bucket > 1 else 1  # rows of compiled models are padded to a power of two
            if not all(claimed[role] <= seen[role] <= most * claimed[role] for role in claimed):
                raise AssertionError(f"forwards: {claimed} were claimed, and the models saw {seen}")
            for request, sample in zip(few[batch], samples, strict=True):
                self._first[self.batch_size, self.key(request)] = sample["ids"]


class ForwardCounter:
    """Counts rows of all forwards of the models by role while it is entered, independently of what decoders
    claim."""

    def __init__(self, models: Models):
        self.models, self.rows = models, dict.fromkeys(models.by_role, 0)

    def __enter__(self) -> "ForwardCounter":
        self._hooks = [
            part.register_forward_pre_hook(partial(self._count, role), with_kwargs=True)
            for role, model in self.models.by_role.items()
            for part in forwards_of(model)
        ]
        return self

    def __exit__(self, *_) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, role, module, args, kwargs) -> None:
        self.rows[role] += ids_fed(kwargs).size(0)
