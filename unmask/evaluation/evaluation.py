"""One evaluation: from a checked configuration to a scored record."""

import sys
from collections import defaultdict
from itertools import product
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from omegaconf import DictConfig

from unmask.configuration.composition import composed
from unmask.configuration.settings import machinery_of, typed
from unmask.evaluation.lm import text_stop
from unmask.evaluation.prompts import PromptBuilder
from unmask.evaluation.recorded_lm import RecordedLM
from unmask.evaluation.setup import Setup
from unmask.models.resources import ACCELERATORS, SIZES, choose_device, choose_dtype
from unmask.paths import ROOT
from unmask.records import Run, config_hash, environment
from unmask.records.documents import chosen
from unmask.records.environment import accelerator
from unmask.records.naming import label
from unmask.records.summary import summarise
from unmask.records.trace import agrees
from unmask.tasks import check_task, metrics_of, prepare, score_answers

TRACED = 12  # documents whose steps trace=true records


class Evaluation(Setup):
    """A checked configuration with its task and its record, ready to run.

    Building one loads no weights and writes nothing; whatever is wrong is a ValueError that says what to
    change. With `show` it has no record, only prompts.
    """

    @classmethod
    def of(cls, *overrides: str) -> "Evaluation":
        """The evaluation that eval.py would run with these arguments."""
        return cls(composed("eval", overrides))

    def __init__(self, cfg: DictConfig):
        cfg = typed(cfg)
        check_task(cfg.task)
        super().__init__(cfg)
        number, count = parse_shard(cfg.shard)
        task, layout = cfg.task, self.main.layout
        if layout and layout.tasks and task.name not in layout.tasks:
            raise ValueError(
                f"model={cfg.model.name} answers no {task.name}: set task=parallelbench, and task.name to "
                f"one of {', '.join(layout.tasks)}"
            )
        runs_code = cfg.allow_code_execution or cfg.show is not None  # what is shown has no answers to run
        _, self.tasks = prepare(task.name, task.data, runs_code, task.split, task.num_fewshot, task.shots)
        self.metrics = metrics_of(next(iter(self.tasks.values())))
        for name, each in self.tasks.items():
            if task.metric not in (None, *metrics_of(each)):
                known = ", ".join(metrics_of(each)) or "no score: set it to null"
                raise ValueError(f"task.metric={task.metric}: task {name} has {known}")
        self.decoder.check(task.max_new_tokens, self.main.text_config.vocab_size)
        self.stop = text_stop(self.main.end_ids, task.stop, self.main.tokenizer)
        self.lm = RecordedLM(self, list(self.tasks), self.stop, task.max_new_tokens, warm_up=cfg.warm_up)
        every = self._requests()
        prompts = {self.lm.key(r)[0]: self.lm.tok_encode(r.args[0]) for r in every}
        self.prompts_hash = config_hash(prompts)
        # of all documents, so that a larger limit goes on with the same run
        longest = min(max(map(len, prompts.values())) + task.max_new_tokens, self.lm.context)
        self._settle(longest)
        self.documents = {name: len(each.eval_docs) for name, each in self.tasks.items()}
        self.templates = {
            name: list(each.eval_docs["template"])
            for name, each in self.tasks.items()
            if "template" in each.features
        }
        wanted = chosen(self.documents, cfg.limit, task.subset_seed, self.templates, task.documents)
        self._by_number = {self.lm.key(r)[0]: r for r in every}
        self.requests = [self._by_number[i] for i in wanted[number - 1 :: count]]
        self._check_turns()
        self.lm.prompts(self.requests)  # a prompt that is too long is found now
        if cfg.show:
            return  # a record is named by its weights, and these are not read
        self.check_memory()
        self.lm.run = self.run = Run.open(self.folder, self.identity, self.circumstances)
        if cfg.shard and (joined := Run.find(self.whole)):  # what is there is not decoded again
            self.requests = [r for r in self.requests if self.lm.key(r) not in joined.done]

    def _settle(self, longest: int) -> None:
        """Decide what auto means, for a device and a batch size.

        A run or a shard that is there decides first: of this machine's kind of device, or else of another
        one, since what a GPU decoded is joined and scored anywhere; and of any batch size, since the memory
        that is free changes. longest: columns of the longest row.
        """
        cfg, here, auto = self.cfg, self.device.type, self.cfg.batch_size == "auto"
        kinds = [here, *ACCELERATORS] if cfg.device == "auto" and here == "cpu" else [cfg.device]
        sizes = SIZES if auto else [cfg.batch_size]
        if cfg.show is None and len(kinds) * len(sizes) > 1:
            asked, identity = (cfg.device, cfg.batch_size), self.identity
            for cfg.device, cfg.batch_size in [*product(kinds, sizes), asked]:
                if cfg.batch_size != "auto" and self._begun(identity | machinery_of(cfg)):
                    break
        self.device = choose_device(cfg.device)
        self.dtype = choose_dtype(cfg.dtype, self.device)
        if cfg.batch_size == "auto" and cfg.show is None:
            cfg.batch_size = self.rows_that_fit(longest, cfg.task.max_new_tokens)
        self.lm.batch_size, self.lm.may_halve = cfg.batch_size, auto

    def _begun(self, identity: dict) -> bool:
        """Whether there is a run of this identity, or a shard of it."""
        whole = self._whole(identity)
        folders = [whole, *(info.parent for info in _shards(whole).glob("*/run.json"))]
        found = filter(None, map(Run.find, folders))
        return any(config_hash(run.config) == config_hash(identity) for run in found)

    # Identity

    @property
    def identity(self) -> dict:
        """All that decides what an answer is and costs, weights and prompts included.

        Prompts count as the ids that they become, whatever file, template or tokenizer they came from.
        """
        found = super().identity
        return found | {"task": found["task"] | {"prompts": self.prompts_hash}}

    @property
    def folder(self) -> Path:
        return self.shards / self.cfg.shard.replace("/", "-of-") if self.cfg.shard else self.whole

    @property
    def whole(self) -> Path:
        """Where the shards join."""
        return self._whole(self.identity)

    def _whole(self, identity: dict) -> Path:
        if self.cfg.run_folder:
            return Path(self.cfg.run_folder)
        name = f"{self.cfg.task.name}-{self.cfg.model.name}-{self.cfg.decoder['name']}"
        return ROOT / self.cfg.results / f"{name}-{config_hash(identity)}"

    @property
    def shards(self) -> Path:
        return _shards(self.whole)

    @property
    def circumstances(self) -> dict:
        """What run.json tells beyond the identity: code, versions, machine, and what summaries need."""
        return environment(self.device) | {
            "gpu": self.gpu,
            "documents": self.documents,
            "templates": self.templates,
            "metric": self.cfg.task.metric,
            "shapes": {role: source.shape for role, source in self.sources.items()},
        }

    @property
    def gpu(self) -> str | None:
        return accelerator(self.device)

    @property
    def label(self) -> str:
        """The setting in a few words, for tables."""
        return f"{label(self.identity)} on {self.cfg.model.name}"

    # Running

    def _requests(self) -> list[Instance]:
        """All documents of all tasks, whatever the limit."""
        builder = PromptBuilder(self.cfg.task, self.main.tokenizer, self.cfg.model.chat_options)
        self.lm.prompt_of = {name: builder.prompts(task) for name, task in self.tasks.items()}
        return [request for task in self.tasks.values() for request in builder.requests(task)]

    def _check_turns(self) -> None:
        """ValueError where a later turn of a conversation is asked without the ones before it."""
        asked = {self.lm.key(request)[0] for request in self.requests}
        for request in self.requests:
            number, turns = self.lm.key(request)[0], len(request.doc.get("earlier", ()))
            if not asked.issuperset(range(number - turns, number)):
                raise ValueError(
                    f"document {number} of {request.task_name} is asked after the answer to document "
                    f"{number - 1}, which is not asked here: take both, and no shard"
                )

    @property
    def missing(self) -> list[Instance]:
        """Requests that the record has no answer to."""
        return [r for r in self.requests if self.lm.key(r) not in self.run.done]

    def gather(self) -> int:
        """Copy what shards have decoded into this run's record, unless it is one itself; returns how many
        answers that were missing."""
        found = 0
        shards = [] if self.cfg.shard else sorted(self.shards.glob("*/run.json"))
        for info in shards:
            shard = Run.read(info.parent)
            if config_hash(shard.config) != config_hash(self.run.config):
                raise ValueError(
                    f"{info}: is of another config; move this shard away, or choose another run_folder"
                )
            offset = self.run.next_batch
            for sample in shard.samples():
                if (sample["doc_id"], sample["repeat"]) not in self.run.done:
                    self.run.append(sample | {"batch": sample["batch"] + offset})  # two shards share no clock
                    found += 1
        return found

    def decode(self) -> dict:
        """Generate what is missing and leave the scoring to whoever joins the shards; returns how far it
        is."""
        self.lm.generate(self.requests)
        self.run.update(status="decoded")
        return {
            "run": str(self.folder),
            "shard": self.cfg.shard,
            "documents": len(self.requests),
            "decoded_now": self.lm.decoded,
        }

    def score(self) -> dict:
        """Generate what is missing, score it by the task's own filters, write scores and summary.

        Returns the summary (records.summary.summarise).
        """
        self.lm.generate(self.requests)
        wanted = {self.lm.key(request) for request in self.requests}
        texts = {(s["doc_id"], s["repeat"]): s["text"] for s in self.run.samples()}
        answers: dict[str, dict[int, str]] = {name: {} for name in self.tasks}
        for request in self.requests:
            answers[request.task_name][request.doc_id] = texts[self.lm.key(request)]
        self.run.write_scores(
            row | {"doc_id": self.lm.number(name, row["doc_id"]), "repeat": 0}
            for name, task in self.tasks.items()
            for row in score_answers(task, answers[name])
        )
        metric = self.cfg.task.metric
        self.scored = self.run.scored(metric, wanted)
        counts = self._counts()
        summary = summarise(self.scored, self.run.info.get("shapes"), counts)
        if len(self.metrics) > 1:
            others = {m: summarise(self.run.scored(m, wanted))["accuracy"] for m in self.metrics}
            summary["accuracy_per_metric"] = others
        self.run.update(status="finished", metric=metric, counts=counts, summary=summary)
        if self.cfg.trace:
            self.trace()
        self.summary = summary
        return summary

    def _counts(self) -> dict:
        """What published counts need of the tokenizer (`summary.summarise`), for run.json."""
        tokens = {
            f"{s['doc_id']}/{s['repeat']}": len(self.lm.tok_encode(s["text"])) for s in self.run.samples()
        }
        return {"eos_id": self.main.tokenizer.eos_token_id, "retokenised": tokens}

    def trace(self) -> None:
        """Decode the first documents once more, off the clock, and record each step (records.trace).

        In the batches that the record names: below float32 an answer may depend on its batch. One that comes
        out otherwise all the same, as on another machine, has no trace, and a line on stderr says so;
        AssertionError in float32.
        """
        found = self.run.traces()
        samples = {(s["doc_id"], s["repeat"]): s for s in self.run.samples()}
        first = [self.lm.key(request) for request in self.requests[:TRACED]]
        wanted = [key for key in first if not (key in found and agrees(found[key], samples[key]))]
        batches = defaultdict(list)
        for key in self.run.done:  # in the order in which they were recorded
            batches[samples[key]["batch"]].append(key)
        differ = []
        for batch in dict.fromkeys(samples[key]["batch"] for key in wanted):
            for key, trace, ids in self._traced(batches[batch]):
                if key in wanted and ids == samples[key]["ids"]:
                    found[key] = trace
                elif key in wanted:
                    differ.append(key[0])
        if differ and self.dtype == torch.float32:
            raise AssertionError(f"documents {differ} decoded for their traces gave other ids than recorded")
        if differ:
            numbers = ", ".join(map(str, differ))
            print(
                f"no trace of documents {numbers}: decoded again in {self.identity['dtype']} they differ",
                file=sys.stderr,
            )
        self.run.write_traces(found[key] for key in sorted(found))

    def _traced(self, keys: list[tuple[int, int]]) -> list[tuple[tuple[int, int], dict, list[int]]]:
        """Decode a batch and watch its steps: key, trace and ids of each of its documents."""
        requests = [self._by_number[number] for number, _ in keys]
        steps: list[list[tuple[list[int], int, str, dict[str, int]]]] = [[] for _ in keys]

        def observe(row, positions, ids):
            states = self.decoder.block_states(row)
            steps[row.index].append((list(row.drafted), row.accepted, states, dict(row.forwards)))

        generations = self.decoder.decode(
            self.lm.models,
            self.lm.prompts(requests),
            self.cfg.task.max_new_tokens,
            self.stop,
            list(map(self.lm.seed_of, requests)),
            observe,
        )
        found = []
        for key, request, mine, again in zip(keys, requests, steps, generations, strict=True):
            drafted, accepted, blocks, forwards = map(list, zip(*mine, strict=True))
            trace = {
                "doc_id": key[0],
                "repeat": key[1],
                "question": request.doc.get("question"),
                "drafted": drafted,
                "accepted": accepted,
                "blocks": blocks,
                "forwards": {role: [counts[role] for counts in forwards] for role in again.forwards},
            }
            found.append((key, trace, again.ids))
        return found

    def headline(self, summary: dict) -> dict:
        """What the last line of stdout says."""
        names = ["n", "accuracy", "accuracy_interval", "useful_tokens", "forwards", "tokens_per_step"]
        names += ["tokens_per_second", "exact", "accuracy_per_task", "accuracy_per_metric"]
        found = {name: summary[name] for name in names if summary.get(name) is not None}
        return {"run": str(self.folder), "decoded_now": self.lm.decoded} | found


def _shards(whole: Path) -> Path:
    """Where the shards of a run lie."""
    return whole.with_name(f"{whole.name}.shards")


def parse_shard(shard: str | None) -> tuple[int, int]:
    """(i, n) of "i/n", (1, 1) of None; ValueError for anything else."""
    if shard is None:
        return 1, 1
    parts = str(shard).split("/")
    digits = len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts)
    if not digits or not 1 <= int(parts[0]) <= int(parts[1]):
        raise ValueError(f"shard={shard}: must be i/n with i from 1 to n, for example shard=1/4")
    return int(parts[0]), int(parts[1])
