"""lm-eval's language models over a decoder.

`GenerativeLM` is what all have: a `TextLM` with a decoder, seeds, and where answers end. `UnmaskLM` is the
one that lm-eval's own command runs (harness.py); `evaluation.recorded_lm.RecordedLM` is eval.py's, with a
record.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import simple_parse_args_string

from unmask.configuration.model_args import configuration
from unmask.decoding import Generation, Models, Stop
from unmask.decoding.finite import NotFinite
from unmask.decoding.models import SHAPES
from unmask.decoding.sampling import at_least_one
from unmask.evaluation.likelihood import Likelihood, is_likelihood
from unmask.evaluation.setup import Setup
from unmask.evaluation.text_lm import ROLLING, TextLM, joined
from unmask.models.resources import choose_device
from unmask.paths import ROOT
from unmask.processes import Processes, is_first, started
from unmask.progress import progress_bar
from unmask.records.documents import TASK_STRIDE
from unmask.records.identity import config_hash
from unmask.records.kept import Kept

COSTS = ("tokens", "samples", "forwards", "positions")  # of likelihoods
NEUTRAL = {"num_beams": 1}  # keys of gen_kwargs that ask for nothing at this value


class GenerativeLM(TextLM):
    """A decoder and its models: text in, text out.

    tasks: names of the tasks, in the order that numbers their documents.
    """

    def __init__(self, setup: Setup, tasks: Sequence[str] = ()):
        super().__init__(setup.main, setup.cfg, setup.device, setup.dtype)
        self.setup, self.decoder, self.tasks = setup, setup.decoder, list(tasks)
        self.may_halve = setup.cfg.batch_size == "auto"  # where a batch does not fit in memory

    @cached_property
    def models(self) -> Models:
        """Loaded when something has to be decoded, once."""
        return self.setup.load()

    def in_batches(
        self, requests: Sequence[Instance], decode: Callable[[slice], Any]
    ) -> Iterator[tuple[slice, Any]]:
        """`decode` of batch after batch, with the slice of the requests that it is of.

        Where batch_size=auto does not fit in memory, it is halved for good and a line on stderr says so.
        ValueError where it may not be, and, naming the document, for logits that are not finite.
        """
        start = 0
        while start < len(requests):
            batch, failed = slice(start, start + self.batch_size), None
            try:
                done = decode(batch)
            except NotFinite as error:
                request = requests[start + error.row]
                raise ValueError(f"document {request.doc_id} of {request.task_name}, {error}") from error
            except torch.OutOfMemoryError as error:
                failed = str(error).splitlines()[0]
            except Exception as error:
                if not type(error).__module__.startswith("torch._dynamo"):  # seconds to import
                    raise
                few = type(error).__name__ == "FailOnRecompileLimitHit"
                why = (
                    f"these prompts have more than {SHAPES} shapes, as many as a model is compiled for"
                    if few
                    else f"torch cannot compile this model whole ({str(error).splitlines()[0]})"
                )
                raise ValueError(f"compile=true: {why}: remove it. What was decoded is kept") from error
            if failed:  # outside of the except, which holds on to all tensors of the failed decoding
                self._halve(failed)
                continue
            yield batch, done
            start += self.batch_size

    def _halve(self, failed: str) -> None:
        torch.accelerator.empty_cache()
        size = self.batch_size
        if not self.may_halve or size == 1:
            advice = f"batch_size={size // 2} or auto" if size > 1 else "a smaller task.max_new_tokens"
            raise ValueError(
                f"batch_size={size} does not fit in the memory of {self.setup.device} ({failed}): {advice} "
                "may. What was decoded is kept"
            )
        self.batch_size = size // 2
        say(f"batch_size={size} does not fit in the memory of {self.setup.device}: {size // 2} from here on")

    def release(self) -> None:
        super().release()
        self.__dict__.pop("models", None)

    def text(self, generation: Generation) -> str:
        """What is scored: the useful tokens, without special ones."""
        return self.tokenizer.decode(generation.ids[: generation.useful], skip_special_tokens=True)

    def number(self, task: str, document: int) -> int:
        """A document's number, unique over the tasks of a group."""
        return self.tasks.index(task) * TASK_STRIDE + document

    def noise_seed(self, document: int, repeat: int) -> int:
        """The seed of an answer's noise, by the number of its document: whatever else is asked, it stays."""
        return self.seed * 1_000_003 + document * 101 + repeat


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


@register_model("unmask")
class UnmaskLM(GenerativeLM):
    """lm-eval's `--model unmask`: any decoder and model, on lm-eval's own tasks and by its own flags.

        UnmaskLM(pretrained="tiny_dream", decoder="apd", auxiliary="tiny_qwen", mixture_weight=0.1)

    Takes what --model_args takes (model_args.py). Building one loads no weights; ValueError names what is
    wrong. Documents are numbered and their noise is seeded as by eval.py, so that the ids are the same.

    keep: whether answers and likelihoods are kept on disk as they are found, under `results`/lm_eval, so that
        the same run goes on where it was stopped. lm-eval's command does.
    generations: of the last `generate_until`, in the order of its requests: ids and costs.
    scores: all likelihoods that were asked for.

    Under torchrun or accelerate launch each process has the documents that lm-eval gives it, and costs are
    those of all processes.
    """

    def __init__(self, keep: bool = False, **model_args):
        cfg, self.processes = configuration(model_args), Processes()
        if started() > 1:  # torchrun or accelerate launch: lm-eval divides the documents by rank
            self.processes = Processes.join(cfg.device, on_host=True)
            cfg.device = str(self.processes.device)
        super().__init__(Setup(cfg))
        self._rank, self._world_size = self.processes.rank, self.processes.world_size
        self.max_new_tokens = self.setup.cfg.task.max_new_tokens  # of requests that name none
        self.generations: list[Generation] = []
        self._counted: list[Generation] = []  # those of all processes
        self.scores: list[Likelihood] = []
        file = self._file
        mine = file.with_suffix(f".{self.rank}.jsonl") if self.rank else file
        self.kept = Kept(
            mine if keep else None, lambda row: row["key"], beside=f"{file.stem}*.jsonl", check=_is_kept
        )
        say(*self.setup.remarks)

    @property
    def _file(self) -> Path:
        """Where everything that these settings and weights answer is kept."""
        cfg = self.setup.cfg
        scoring = {key: getattr(cfg, key) for key in ("mc_samples", "mc_batch", "check_greedy")}
        settings = {key: value for key, value in self.setup.identity.items() if key != "task"} | scoring
        name = f"{cfg.model.name}-{cfg.decoder['name']}-{config_hash(settings)}.jsonl"
        return ROOT / cfg.results / "lm_eval" / name

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict, additional_config: dict | None = None) -> "UnmaskLM":
        """From model_args as lm-eval has parsed them, and its flags --batch_size and --device, which give
        way."""
        flags = {key: value for key, value in (additional_config or {}).items() if value is not None}
        if flags.get("device") == "cuda:0" and choose_device("auto").type != "cuda":
            del flags["device"]  # lm-eval's default: nobody asked for it
        return cls(**{"keep": True} | flags | arg_dict)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> "UnmaskLM":
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers in the order of the requests, each within its own `until` and `max_gen_toks`.

        All requests are checked before one is decoded. ValueError where a limit does not fit the decoder or
        the context, where a prompt holds the mask's id, or where a request asks for other sampling than the
        decoder's.
        """
        limits = [self._limits(request.args[1]) for request in requests]
        prompts, seeds = self._prompts(requests, limits), self._seeds(requests)
        temperature = getattr(self.decoder, "temperature", 0)
        if temperature and not all(request.args[1].get("do_sample") for request in requests):
            say(f"the task asks for greedy answers, and the decoder's own temperature={temperature} stays")
        keys = [
            _key("answer", prompt.tolist(), list(until), max_new_tokens, seed)
            for prompt, (until, max_new_tokens), seed in zip(prompts, limits, seeds, strict=True)
        ]
        found = {
            number: Generation(**self.kept.rows[key]["answer"])
            for number, key in enumerate(keys)
            if key in self.kept.rows
        }
        alike = defaultdict(list)  # numbers of the requests that share their stop strings and max_new_tokens
        for number, limit in enumerate(limits):
            if number not in found:
                alike[limit].append(number)
        with progress_bar(disable_tqdm) as bar:
            task = bar.add_task("decoding", total=len(requests), completed=len(found))
            for (until, max_new_tokens), numbers in alike.items():
                stop = text_stop(self.setup.main.end_ids, until, self.tokenizer)
                if self.batch_size == "auto":
                    width = max(len(prompts[number]) for number in numbers) + max_new_tokens
                    self.batch_size = self.setup.rows_that_fit(width, max_new_tokens)

                def decode(batch: slice, numbers=numbers, max_new_tokens=max_new_tokens, stop=stop):
                    asked, noise = ([each[i] for i in numbers[batch]] for each in (prompts, seeds))
                    return self.decoder.decode(self.models, asked, max_new_tokens, stop, noise)

                for batch, generations in self.in_batches([requests[i] for i in numbers], decode):
                    found |= dict(zip(numbers[batch], generations, strict=True))
                    for i in numbers[batch]:
                        self.kept.add({"key": keys[i], "answer": vars(found[i])})
                        self.cache_hook.add_partial("generate_until", requests[i].args, self.text(found[i]))
                    bar.advance(task, len(generations))
        self.generations = [found[number] for number in range(len(requests))]
        self._counted = self._of_all(requests, self.generations)
        if requests and not disable_tqdm:
            say(self.headline)
        return [self.text(generation) for generation in self.generations]

    def scored(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[Likelihood]:
        """Log-likelihoods in the order of the requests, all of which are checked before one is computed."""
        self.check_likelihoods()
        rolling = any(request.request_type == ROLLING for request in requests)
        pieces = [self.pieces(request) for request in requests]
        pairs = {_key("likelihood", *pair, rolling): pair for pairs in pieces for pair in pairs}
        found = {
            key: Likelihood(**self.kept.rows[key]["likelihood"]) for key in pairs if key in self.kept.rows
        }
        missing = [key for key in pairs if key not in found]
        with progress_bar(disable_tqdm) as bar:
            task = bar.add_task("likelihoods", total=len(pairs), completed=len(found))

            def advance(index: int, each: Likelihood) -> None:
                found[missing[index]] = each
                self.kept.add({"key": missing[index], "likelihood": asdict(each)})
                bar.advance(task)

            self.likelihoods([pairs[key] for key in missing], rolling, advance)
        keys = [_key("likelihood", *pair, rolling) for each in pieces for pair in each]
        scores = joined(pieces, [found[key] for key in keys])
        self.scores += self._of_all(requests, scores)
        return scores

    def _of_all(self, requests: Sequence[Instance], found: Sequence) -> list:
        """What all processes found, without what lm-eval repeats so that each has equally many requests."""
        if self.world_size == 1:
            return list(found)
        times, own = Counter(), []
        for request, each in zip(requests, found, strict=True):
            times[id(request)] += 1
            own += [each] * (times[id(request)] <= (request.repeats or 1))
        return [each for theirs in self.processes.gather(own) for each in theirs]

    # Between processes, as lm-eval asks for it

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([theirs.reshape(-1) for theirs in self.processes.gather(tensor.cpu())])

    def gather_object(self, obj: Any, dst: int = 0) -> list | None:
        found = self.processes.gather(obj)
        return found if self.rank == dst else None

    def barrier(self) -> None:
        self.processes.gather(None)

    def check_tasks(self, tasks: Mapping[str, Any]) -> None:
        """ValueError, naming the task, where one of lm-eval's tasks asks for what this model or decoder does
        not do. For before anything is computed: lm-eval hands over one kind of requests after the other."""
        for name, task in tasks.items():
            try:
                if task.OUTPUT_TYPE == "generate_until":
                    self._limits(dict(task.config.generation_kwargs or {}))
                else:
                    self.check_likelihoods(greedy=task.OUTPUT_TYPE == "loglikelihood")
            except ValueError as error:
                raise ValueError(f"task {name}: {error}") from error

    @property
    def costs(self) -> dict:
        """Of the last `generate_until`, by the names of a record's summary: samples, useful_tokens, forwards
        and positions by role, tokens_per_step (useful tokens per forward of the first role)."""
        counted = self._counted
        useful = sum(generation.useful for generation in counted)
        forwards, positions = (
            {role: sum(getattr(g, count)[role] for g in counted) for role in self.decoder.roles}
            for count in ("forwards", "positions")
        )
        steps = next(iter(forwards.values()))
        return {
            "samples": len(counted),
            "useful_tokens": useful,
            "forwards": forwards,
            "positions": positions,
            "tokens_per_step": useful / steps if steps else None,
        }

    @property
    def headline(self) -> str:
        """The costs of the last `generate_until` in one line."""
        costs = self.costs
        forwards = ", ".join(f"{count} {role} forwards" for role, count in costs["forwards"].items())
        per_step = f"{costs['tokens_per_step'] or 0:.2f} tokens per step"
        return f"{costs['samples']} answers, {costs['useful_tokens']} useful tokens, {forwards}: {per_step}"

    def get_model_info(self) -> dict:
        """What lm-eval adds to `config` in its results: decoder, models with their weights, and costs."""
        identity = {key: value for key, value in self.setup.identity.items() if key != "task"}
        costs = {key: sum(getattr(each, key) for each in self.scores) for key in COSTS}
        return {"unmask": identity | self.costs | {"likelihoods": {"texts": len(self.scores)} | costs}}

    def _limits(self, gen_kwargs: dict) -> tuple[tuple[str, ...], int]:
        """The stop strings of a request, and its new tokens at most."""
        asked = normalize_gen_kwargs(gen_kwargs, self.max_new_tokens)
        until, max_new_tokens = tuple(asked.pop("until")), asked.pop("max_gen_toks")
        at_least_one(max_gen_toks=max_new_tokens)
        if max_new_tokens >= self.context:
            raise ValueError(
                f"max_gen_toks={max_new_tokens}: the model's context is {self.context} tokens, prompt "
                "included; --gen_kwargs max_gen_toks=N sets another"
            )
        self.decoder.check(max_new_tokens, self.setup.main.text_config.vocab_size)
        self._check_sampling(asked)
        return until, max_new_tokens

    def _check_sampling(self, asked: dict) -> None:
        """ValueError where a request wants its tokens drawn otherwise than the decoder draws them.

        `do_sample=False`, as most tasks say by default, is ignored: the decoder's temperature applies.
        """
        samples = asked.pop("do_sample")
        ours = {key: getattr(self.decoder, key, None) for key in ("temperature", "top_p", "top_k")}
        wanted = {key: value for key, value in asked.items() if value != NEUTRAL.get(key)}
        if unknown := sorted(wanted.keys() - ours.keys()):
            raise ValueError(
                f"gen_kwargs {', '.join(unknown)}: unknown here; a request has until and max_gen_toks, "
                "and all else is the decoder's (model_args)"
            )
        if samples and not (ours["temperature"] and ours | wanted == ours):
            raise ValueError(
                f"gen_kwargs ask for sampling ({wanted or 'do_sample=True'}), and the decoder has {ours}: "
                "set temperature, top_p and top_k in model_args, where they hold for all requests"
            )

    def _prompts(self, requests: Sequence[Instance], limits: Sequence[tuple]) -> list[torch.Tensor]:
        """Prompt ids, each 1-D. One that is too long loses its left end, as with lm-eval's own models."""
        whole = [self.tok_encode(request.args[0]) for request in requests]
        kept = [
            ids[-(self.context - max_new_tokens) :]
            for ids, (_, max_new_tokens) in zip(whole, limits, strict=True)
        ]
        if cut := sum(map(len, whole)) - sum(map(len, kept)):
            many = sum(len(a) > len(b) for a, b in zip(whole, kept, strict=True))
            say(
                f"{many} of {len(whole)} prompts do not fit the model's context of {self.context} tokens "
                f"together with the answer: {cut} tokens were cut at their left"
            )
        for request, ids in zip(requests, kept, strict=True):
            if self.mask_id in ids:
                raise ValueError(
                    f"document {request.doc_id} of {request.task_name}: its prompt holds the mask's id "
                    f"{self.mask_id}; remove the mask's text from the document"
                )
        return [torch.tensor(ids) for ids in kept]

    def _seeds(self, requests: Sequence[Instance]) -> list[int]:
        self.tasks = list(dict.fromkeys(request.task_name for request in requests))
        repeats, seeds = Counter(), []
        for request in requests:
            number = self.number(request.task_name, request.doc_id)
            seeds.append(self.noise_seed(number, repeats[number]))
            repeats[number] += 1
        return seeds


def _is_kept(row: Mapping) -> bool:
    """Whether a row that was read holds an answer or a likelihood."""
    if "likelihood" in row:
        return is_likelihood(row["likelihood"])
    answer, names = row["answer"], {field.name for field in fields(Generation)}
    ids = answer["ids"]
    return (
        answer.keys() <= names
        and all(type(token) is int for token in ids)
        and type(answer["useful"]) is int
        and 0 <= answer["useful"] <= len(ids)
        and all(type(n) is int for name in ("forwards", "positions") for n in answer[name].values())
    )


def _key(kind: str, *asked: object) -> str:
    """By which something that was asked is kept."""
    return config_hash({"kind": kind, "asked": asked})


def checks_tasks(evaluate: Callable) -> Callable:
    """lm-eval's `evaluate`, which first lets an `UnmaskLM` check all tasks (`UnmaskLM.check_tasks`)."""

    @wraps(evaluate)
    def checked(lm, task_dict, **kwargs):
        if hasattr(lm, "check_tasks") and "tasks" in task_dict:
            lm.check_tasks(task_dict["tasks"])
        return evaluate(lm=lm, task_dict=task_dict, **kwargs)

    return checked


def say(*lines: str) -> None:
    """To stderr, for people, once."""
    for line in lines if is_first() else ():
        print(line, file=sys.stderr)
