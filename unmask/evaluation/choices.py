"""One evaluation by likelihoods, with a record: lm-eval's multiple-choice, loglikelihood and rolling tasks.

No decoder takes part. Each text that is scored is a line of likelihoods.jsonl in the run's folder, on disk as
soon as it is known: the same command goes on where it was stopped. What is correct is lm-eval's rule, applied
to the recorded values, so scoring again computes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import lm_eval
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from omegaconf import MISSING, DictConfig

from unmask.configuration.schema import TaskConfig
from unmask.configuration.settings import machinery_of, typed
from unmask.evaluation.likelihood import Likelihood, is_likelihood
from unmask.evaluation.text_lm import ROLLING, TextLM, joined
from unmask.models.loading import Source, identity_of_model
from unmask.models.resources import check_device, check_memory, choose_device, choose_dtype
from unmask.models.settings import RandomModel
from unmask.paths import ROOT, may_be_folder
from unmask.progress import progress_bar
from unmask.records import Run, config_hash, environment
from unmask.records.documents import TASK_STRIDE, chosen
from unmask.records.environment import commit, machine
from unmask.records.identity import prompt_hash
from unmask.records.kept import Kept
from unmask.records.stats import Interval, bootstrap_ratio, wilson
from unmask.records.summary import ends
from unmask.tasks import check_task

FILE = "likelihoods.jsonl"
READ = ("name", "yaml", "prompt", "system_prompt", "num_fewshot", "limit", "subset_seed", "documents")
READ += ("max_new_tokens", "metric")  # which every task has, and which tell nothing here
RATIOS = ("perplexity", "weighted_perplexity", "bits_per_byte")  # aggregations of nats over words or bytes


class Choices:
    """A checked configuration of such a task and its record, ready to run.

    Building one loads no weights and writes nothing; whatever is wrong is a ValueError that says what to
    change.
    """

    def __init__(self, cfg: DictConfig):
        cfg = self.cfg = typed(cfg)
        check_task(cfg.task)
        _check_settings(cfg)
        self.device = choose_device(cfg.device)
        self.dtype = choose_dtype(cfg.dtype, self.device)
        self.source = Source(cfg.model)
        self.lm = TextLM(self.source, cfg, self.device, self.dtype)
        self.tasks = _tasks(cfg.task.name, cfg.task.yaml, cfg.task.num_fewshot)
        self.lm.check_likelihoods(any(task.OUTPUT_TYPE == "loglikelihood" for task in self.tasks.values()))
        every = self._requests()
        self.prompts_hash = config_hash({str(key): request.args for key, request in every.items()})
        counts = {name: len(task.eval_docs) for name, task in self.tasks.items()}
        wanted = set(chosen(counts, cfg.limit, cfg.task.subset_seed, None, cfg.task.documents))
        self.documents = len(wanted)
        self.requests = {
            (number, choice): request for (number, choice), request in every.items() if number in wanted
        }
        for request in self.requests.values():  # a text that does not fit is found now
            self.lm.pieces(request)
        check_memory([self.source], self.device, self.dtype)
        meta = environment(self.device) | {"documents": counts, "likelihoods": FILE}
        self.run = Run.open(self.folder, self.identity, meta)
        self.kept = Kept(self.folder / FILE, _key, of=self.run.seal, check=is_likelihood)
        self.scored_now = 0

    def _requests(self) -> dict[tuple[int, int], Instance]:
        """All that all documents of all tasks ask, by (document, number of the text in it)."""
        found, settings = {}, self.cfg.task
        chat = settings.prompt != "text"
        for position, task in enumerate(self.tasks.values()):
            task.build_all_requests(
                system_instruction=settings.system_prompt,
                apply_chat_template=chat,
                fewshot_as_multiturn=settings.prompt == "chat",
                chat_template=self.lm.apply_chat_template if chat else None,
                tokenizer_name=self.lm.tokenizer_name if chat else "",
            )
            for request in task.instances:
                found[position * TASK_STRIDE + request.doc_id, request.idx] = request
        return found

    # Identity

    @property
    def identity(self) -> dict:
        """All that decides a likelihood and its cost, weights and prompts included."""
        cfg = self.cfg
        task = {key: getattr(cfg.task, key) for key in ("name", "prompt", "system_prompt", "num_fewshot")}
        scoring = {"mc_samples": cfg.mc_samples, "mc_batch": cfg.mc_batch}
        scoring |= {"check_greedy": True} if cfg.check_greedy else {}
        model = identity_of_model(cfg.model) | {"weights": self.source.fingerprint}
        if cfg.model.attention == "block_causal":
            model |= {"attention": cfg.model.attention, "block_length": cfg.model.block_length}
        return {
            "models": {"model": model},
            "roles": ["model"],
            "decoder": {"name": "likelihoods"} | (scoring if self.source.kind == "diffusion" else {}),
            "task": task | {"prompts": self.prompts_hash},
            **machinery_of(cfg),
        }

    @property
    def folder(self) -> Path:
        name = f"{self.cfg.task.name}-{self.cfg.model.name}-likelihoods-{config_hash(self.identity)}"
        return Path(self.cfg.run_folder) if self.cfg.run_folder else ROOT / self.cfg.results / name

    # Running

    @property
    def missing(self) -> dict[tuple[int, int], Instance]:
        """Requests that the record lacks."""
        return {key: request for key, request in self.requests.items() if key not in self.kept.rows}

    def compute(self) -> None:
        """Compute and record what is missing, a batch of texts at a time."""
        missing = list(self.missing.items())
        if not missing:
            return
        check_device(self.device)
        self.run.claim()
        stamp = {"commit": commit(), "machine": machine(self.device)}
        size = self.lm.batch_size if isinstance(self.lm.batch_size, int) else 1
        with progress_bar() as bar:
            total = len(self.requests)
            task = bar.add_task("likelihoods", total=total, completed=total - len(missing))
            for start in range(0, len(missing), size):
                batch = missing[start : start + size]
                pieces = [self.lm.pieces(request) for _, request in batch]
                rolling = any(request.request_type == ROLLING for _, request in batch)
                found = self.lm.likelihoods([pair for pairs in pieces for pair in pairs], rolling)
                for (key, request), pairs, each in zip(batch, pieces, joined(pieces, found), strict=True):
                    self.kept.add(_row(key, request, pairs, each) | stamp)
                    self.scored_now += 1
                    bar.advance(task)

    def score(self) -> dict:
        """Compute what is missing, judge it by the task's own rule, write the summary; returns it.

        n: documents. metrics: name -> value, interval (95%, None where there is none) and, of a group,
        per_task. texts, tokens, samples, forwards, positions: totals. error: the mean half width of a text's
        own interval, in nats; 0 where nothing was sampled, None where a text has none.
        """
        self.compute()
        rows = [self.kept.rows[key] for key in self.requests]
        judged = [self._judged(position, name) for position, name in enumerate(self.tasks)]
        errors = [row["error"] for row in rows]
        summary = {
            "n": self.documents,
            "metrics": {
                metric: self._summed(metric, judged) for metric in dict.fromkeys(m for j in judged for m in j)
            },
            "texts": len(rows),
            **{
                name: sum(row[name] for row in rows)
                for name in ("tokens", "samples", "forwards", "positions")
            },
            "error": None if None in errors else float(np.mean(errors)),
        }
        self.run.update(status="finished", summary=summary)
        self.kept.close()
        self.summary = summary
        return summary

    def _judged(self, position: int, name: str) -> dict[str, list]:
        """metric -> what it says of each document of a task, in order."""
        task, documents, found = self.tasks[name], {}, {}
        for (number, choice), request in self.requests.items():
            if number // TASK_STRIDE == position:
                row = self.kept.rows[number, choice]
                documents.setdefault(number, (request.doc, []))[1].append(row)
        for doc, rows in documents.values():
            if task.OUTPUT_TYPE == ROLLING:
                results = [row["value"] for row in rows]
            else:
                results = [(row["value"], bool(row["greedy"])) for row in rows]
            for metric, value in task.process_results(doc, results).items():
                found.setdefault(metric, []).append(value)
        return found

    def _summed(self, metric: str, judged: Sequence[Mapping[str, list]]) -> dict:
        """A metric over all documents alike, as lm-eval sums up its groups; documents are what was drawn."""
        pairs = zip(self.tasks.items(), judged, strict=True)
        have = {name: (task, found[metric]) for (name, task), found in pairs if metric in found}
        task = next(task for task, _ in have.values())
        aggregate = task.aggregation()[metric]
        values = [value for _, found in have.values() for value in found]
        interval = _interval(aggregate, values)
        summed = {"value": float(aggregate(values)), "interval": interval and ends(interval)}
        if len(self.tasks) > 1:
            summed["per_task"] = {name: float(aggregate(found)) for name, (_, found) in have.items()}
        return summed

    def headline(self, summary: dict) -> dict:
        """What the last line of stdout says."""
        return {"run": str(self.folder), "scored_now": self.scored_now} | summary


def _interval(aggregate, values: Sequence) -> Interval | None:
    """The 95% interval of an aggregate over documents: Wilson's of a share, bootstrapped of a perplexity."""
    if aggregate.__name__ in RATIOS:
        weighted = isinstance(values[0], tuple)
        nats = [value[0] if weighted else value for value in values]
        weights = [value[1] if weighted else 1 for value in values]
        found = bootstrap_ratio(nats, weights)
        low, high = sorted(float(aggregate([(end, 1) if weighted else end])) for end in found[1:])
        return Interval(found.value, low, high)
    numbers = aggregate.__name__ == "mean" and all(np.isscalar(value) for value in values)
    if numbers and all(0 <= value <= 1 for value in values):
        return wilson(float(np.sum(values)), len(values))
    return None


def _row(key: tuple[int, int], request: Instance, pairs: Sequence, found: Likelihood) -> dict:
    """A line of likelihoods.jsonl."""
    ids = [token for context, text in pairs for token in [*context, -1, *text]]
    document, choice = key
    return {
        "doc_id": document,
        "choice": choice,
        "task": request.task_name,
        "text": request.args[-1],
        "prompt_hash": prompt_hash(ids),
        **asdict(found),
    }


def _key(row: Mapping) -> tuple[int, int]:
    return row["doc_id"], row["choice"]


def _check_settings(cfg) -> None:
    """ValueError for settings that have no effect here."""
    if isinstance(cfg.model, RandomModel):
        raise ValueError("random models have no tokenizer: python bench.py model=random")
    if cfg.shard or cfg.trace:
        raise ValueError("shard= and trace= are for tasks that are answered, not for likelihoods")
    plain = {field.name: field for field in fields(TaskConfig) if field.name not in READ}
    for name, field in plain.items():
        default = field.default_factory() if callable(field.default_factory) else field.default
        if default is not MISSING and getattr(cfg.task, name) != default:
            raise ValueError(
                f"task.{name}={getattr(cfg.task, name)!r}: has no effect on likelihoods, where lm-eval's own "
                "YAML tells documents and choices; remove it"
            )


def _tasks(name: str, yaml: str, num_fewshot: int) -> dict[str, Task]:
    """The tasks of a name or group in a folder of task files; ValueError where it is not there, or is
    answered in words."""
    own = Path(lm_eval.__file__).parent / "tasks"
    folders = [Path(yaml), ROOT / yaml, own / yaml]
    folder = next((path for path in folders if may_be_folder(path) and path.is_dir()), None)
    if folder is None:
        raise ValueError(f"task.yaml={yaml[:100]}: is no folder, here or among lm-eval's tasks")
    manager = TaskManager(include_path=folder, include_defaults=False)
    if name not in manager.all_tasks:
        names = ", ".join(manager.all_tasks[:10])
        raise ValueError(f"unknown task {name!r}; in task.yaml={yaml} there are {names}, ...")
    tasks = manager.load(name)["tasks"]
    for each, task in tasks.items():
        if task.OUTPUT_TYPE == "generate_until":
            raise ValueError(
                f"task {each} is answered in words and not scored by likelihoods: run it by harness.py, or "
                "take a task of this project"
            )
        if task.config.num_fewshot != 0:  # lm-eval's rule: a 0 in the YAML stays
            task.set_config("num_fewshot", num_fewshot)
        task.set_fewshot_seed(seed=1234)  # lm-eval's
    return tasks
