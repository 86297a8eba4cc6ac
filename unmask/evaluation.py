"""One evaluation: from a checked configuration to a scored record. eval.py and the main job are doors to this
room."""

from dataclasses import asdict
from pathlib import Path

import lm_eval.evaluator
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from omegaconf import DictConfig, OmegaConf

from harness import DecoderLM, text_stop
from unmask.config import ROOT, EvalConfig, ModelConfig, RandomModel
from unmask.decoding import Decoder, Models
from unmask.decoding.sampling import at_least_one
from unmask.models.loading import Source, check_vocabularies, choose_device, choose_dtype, rows_that_fit
from unmask.records import Run, config_hash, environment
from unmask.records.summary import summarise
from unmask.records.table import decoder_name, label
from unmask.tasks import prepare
from unmask.tasks.scoring import INVALID

lm_eval.evaluator.add_env_info = lambda storage: (
    None
)  # run.json says it; lm-eval runs `pip list` for it, a second each time


class Evaluation:
    """A checked configuration, ready to run.

    Building one loads no weights and writes nothing; whatever is wrong is a ValueError that says what to
    change.
    """

    @classmethod
    def of(cls, *overrides: str) -> "Evaluation":
        """The evaluation that eval.py would run with these arguments."""
        with initialize_config_dir(str(ROOT / "eval_config"), version_base=None):
            return cls(compose("eval", list(overrides)))

    def __init__(self, cfg: DictConfig):
        self.cfg: EvalConfig = OmegaConf.to_object(cfg)
        cfg = self.cfg
        cfg.auxiliary = cfg.auxiliary or None  # auxiliary=none composes to an empty dict
        at_least_one(limit=cfg.limit, threads=cfg.threads)
        if cfg.batch_size != "auto":
            at_least_one(batch_size=cfg.batch_size)
        if cfg.compile and cfg.batch_size != 1:
            raise ValueError(
                f"compile=true takes one row at a time, and batch_size={cfg.batch_size}: give up one of the two"
            )
        at_least_one(**{"task.budget": cfg.task.budget})
        if isinstance(cfg.model, RandomModel) or isinstance(cfg.auxiliary, RandomModel):
            raise ValueError(
                "random models have no tokenizer and no answers, only costs: python bench.py model=random"
            )
        self.decoder = build_decoder(cfg.decoder)
        check_pairing(cfg.model, cfg.auxiliary, self.decoder, cfg.decoder["_target_"])
        self.decoder.check(cfg.task.budget)
        self.device = choose_device(cfg.device)
        self.dtype = choose_dtype(cfg.dtype, self.device)
        self.manager, self.tasks = prepare(cfg.task.name, cfg.task.data, cfg.allow_code_execution)
        self.model = Source(cfg.model)
        self.auxiliary = Source(cfg.auxiliary) if self.decoder.needs_auxiliary else None
        if self.auxiliary:
            check_vocabularies(self.model, self.auxiliary)
        check_metric(cfg.task.metric, self.tasks)
        self.stop = text_stop(self.model.end_ids, cfg.task.stop, self.model.tokenizer)
        self.lm = DecoderLM(
            decoder=self.decoder,
            load=self._load,
            tokenizer=self.model.tokenizer,
            stop=self.stop,
            budget=cfg.task.budget,
            context=self.model.config.max_position_embeddings,
            tasks=list(self.tasks),
            seed=cfg.seed,
        )
        every = self._requests()
        prompts = {self.lm.key(r)[0]: self.lm.tok_encode(r.args[0]) for r in every}
        self.prompts_hash = config_hash(prompts)
        if cfg.batch_size == "auto":  # of all documents, so that a larger limit goes on with the same run
            longest = min(max(map(len, prompts.values())) + cfg.task.budget, self.lm.context)
            cfg.batch_size = rows_that_fit(
                self.model, self.auxiliary, longest, cfg.task.budget, self.device, self.dtype
            )
        self.lm.batch_size = cfg.batch_size
        number, count = parse_shard(cfg.shard)
        self.requests = [
            r for r in every if (cfg.limit is None or r.doc_id < cfg.limit) and r.doc_id % count == number - 1
        ]
        self.lm.prompts(self.requests)  # a prompt that is too long is found now
        self.lm.run = self.run = Run.open(self.folder, self.identity, self.circumstances)

    # -- identity
    # ------------------------------------------------------------------------------------------------------
    @property
    def identity(self) -> dict:
        """All that decides what an answer is and costs. `limit` is not among it: a larger one extends the
        same run. Nor is what only scores: prompts count as the ids that they become, whatever file, template
        or tokenizer they came from."""
        cfg = self.cfg
        task = {k: v for k, v in asdict(cfg.task).items() if k not in ("limit", "data", "metric")}
        return {
            "model": asdict(cfg.model) | {"weights": self.model.fingerprint},
            "auxiliary": self.auxiliary
            and asdict(self.auxiliary.settings) | {"weights": self.auxiliary.fingerprint},
            "decoder": cfg.decoder,
            "task": task | {"prompts": self.prompts_hash},
            "seed": cfg.seed,
            "batch_size": cfg.batch_size,
            "device": self.gpu or f"cpu, {cfg.threads} threads",
            "dtype": str(self.dtype).removeprefix("torch."),
            "compile": cfg.compile,
        }

    @property
    def folder(self) -> Path:
        name = f"{self.cfg.task.name}-{self.cfg.model.name}-{decoder_name(self.identity)}-{config_hash(self.identity)}"
        folder = Path(self.cfg.output) if self.cfg.output else ROOT / self.cfg.results / name
        return self._shards(folder) / self.cfg.shard.replace("/", "-of-") if self.cfg.shard else folder

    def _shards(self, folder: Path) -> Path:
        return folder.with_name(f"{folder.name}.shards")

    @property
    def circumstances(self) -> dict:
        """What run.json tells beyond the identity: code, versions, machine."""
        return environment() | {"threads": self.cfg.threads, "gpu": self.gpu}

    @property
    def gpu(self) -> str | None:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None

    # -- running
    # -------------------------------------------------------------------------------------------------------
    @property
    def chat(self) -> dict:
        """How lm-eval is to write a prompt."""
        return {
            "system_instruction": self.cfg.task.system_prompt,
            "apply_chat_template": True,
            "fewshot_as_multiturn": True,
        }

    def _requests(self) -> list[Instance]:
        """All documents of all tasks as lm-eval asks for them, whatever the limit."""
        for task in self.tasks.values():
            task.build_all_requests(
                chat_template=self.lm.apply_chat_template,
                tokenizer_name=self.lm.tokenizer_name,
                **self.chat,
            )
        return [request for task in self.tasks.values() for request in task.instances]

    def _load(self) -> Models:
        torch.set_num_threads(self.cfg.threads)
        auxiliary = self.auxiliary and self.auxiliary.load(self.device, self.dtype)
        models = Models(self.model.load(self.device, self.dtype), auxiliary)
        return models.compiled() if self.cfg.compile else models

    @property
    def missing(self) -> list[Instance]:
        """Requests that the record has no answer to."""
        return [r for r in self.requests if self.lm.key(r) not in self.run.done]

    def gather(self) -> int:
        """Copy what shards have decoded into this run's record; returns how many answers that were
        missing."""
        found = 0
        for info in sorted(self._shards(self.folder).glob("*/run.json")):
            shard = Run.read(info.parent)
            if config_hash(shard.config) != config_hash(self.run.config):
                raise ValueError(
                    f"{info}: is of another config; move this shard away, or choose another `output`"
                )
            for sample in shard.samples():
                if (sample["doc_id"], sample["repeat"]) not in self.run.done:
                    self.run.append(sample)
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
        """Generate what is missing, score with lm-eval, write scores and summary; returns the summary."""
        results = simple_evaluate(
            self.lm,
            tasks=[self.cfg.task.name],
            task_manager=self.manager,
            limit=self.cfg.limit,
            bootstrap_iters=0,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
            confirm_run_unsafe_code=self.cfg.allow_code_execution,
            **self.chat,
        )
        self.run.write_scores(self._scores(results["samples"]))
        wanted = {self.lm.key(request) for request in self.requests}
        self.scored = scored = self.run.scored(wanted)
        summary = summarise(scored)
        if len(self.tasks) > 1:
            parts = {name: summarise([s for s in scored if s["task"] == name]) for name in self.tasks}
            summary["accuracy_per_task"] = {name: part["accuracy"] for name, part in parts.items()}
            summary["accuracy_mean_of_tasks"] = sum(summary["accuracy_per_task"].values()) / len(parts)
        self.run.update(status="finished", summary=summary)
        self.summary = summary
        return summary

    def _scores(self, samples: dict[str, list[dict]]) -> list[dict]:
        metric, name = self.cfg.task.metric.split(",")
        offset = {task: self.lm.number(task, 0) for task in self.tasks}
        return [
            {
                "doc_id": offset[task] + sample["doc_id"],
                "repeat": 0,
                "correct": float(sample[metric]),
                "extraction_failed": sample["filtered_resps"][0] == INVALID,
                "extracted": str(sample["filtered_resps"][0]),
                "target": str(sample["target"]),
            }
            for task, rows in samples.items()
            for sample in rows
            if sample["filter"] == name
        ]

    @property
    def label(self) -> str:
        """The setting in a few words, for tables."""
        return f"{label(self.identity)} on {self.cfg.model.name}"

    def headline(self, summary: dict) -> dict:
        """What the last line of stdout says."""
        names = [
            "n",
            "accuracy",
            "accuracy_interval",
            "useful_tokens",
            "forwards",
            "tokens_per_step",
            "tokens_per_second",
        ]
        names += [name for name in ("accuracy_mean_of_tasks", "accuracy_per_task") if name in summary]
        return {"run": str(self.folder), "decoded_now": self.lm.decoded} | {
            name: summary[name] for name in names
        }


def parse_shard(shard: str | None) -> tuple[int, int]:
    """(i, n) of "i/n", (1, 1) of None; ValueError for anything else."""
    if shard is None:
        return 1, 1
    parts = shard.split("/")
    if (
        len(parts) != 2
        or not all(part.isdigit() for part in parts)
        or not 1 <= int(parts[0]) <= int(parts[1])
    ):
        raise ValueError(f"shard={shard}: must be i/n with i from 1 to n, for example shard=1/4")
    return int(parts[0]), int(parts[1])


def build_decoder(settings: dict) -> Decoder:
    """The decoder that `_target_` names, with its settings; ValueError naming the key that is wrong."""
    fields = {name: value for name, value in settings.items() if name != "_target_"}
    try:
        return get_class(settings["_target_"])(**fields)
    except TypeError as error:  # a key its dataclass does not have
        raise ValueError(f"decoder: {error}") from error


def check_metric(metric: str, tasks: dict[str, Task]) -> None:
    """ValueError unless every task computes the "metric,filter" that is to decide whether an answer is
    correct."""
    for name, task in tasks.items():
        names = [m["metric"] for m in task.config.metric_list]
        filters = [f["name"] for f in task.config.filter_list]
        known = [f"{m},{f}" for m in names for f in filters]
        if metric not in known:
            raise ValueError(f"task.metric={metric}: task {name} has {', '.join(known)}")


def check_pairing(model: ModelConfig, auxiliary: ModelConfig | None, decoder: Decoder, name: str) -> None:
    """ValueError where the decoder cannot run on this kind of model or lacks its auxiliary."""
    name = name.split(".")[2]
    if decoder.causal != (model.kind == "causal"):
        need, example = ("a causal", "tiny_qwen_large") if decoder.causal else ("a diffusion", "tiny_dream")
        raise ValueError(
            f"decoder={name} runs on {need} model, and model={model.name} is not: try model={example}, "
            f"or {'decoder=apd' if decoder.causal else 'decoder=autoregressive'}"
        )
    if decoder.needs_auxiliary and auxiliary is None:
        raise ValueError(
            f"decoder={name} needs an auxiliary: auxiliary=tiny_qwen, or auxiliary=qwen_0.5b for model=dream"
        )
    if decoder.needs_auxiliary and auxiliary.kind != "causal":
        raise ValueError(f"auxiliary={auxiliary.name} must be a causal model")
