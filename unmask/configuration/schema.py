"""The configuration that eval.py composes with Hydra: typed, documented, unknown keys refused.

A decoder's settings are its own dataclass in unmask/decoding/; the YAML in eval_config/decoder/ names it with
`_target_`.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from unmask.models.settings import ModelConfig, RandomModel


@dataclass
class TaskConfig:
    """Task name, prompt and generation limits."""

    name: str = MISSING  # task or group in eval_config/tasks
    metric: str | None = (
        MISSING  # "metric,filter": what decides whether an answer is correct; null = unscored
    )
    max_new_tokens: int = MISSING  # new tokens
    # chat: worked examples are turns | one_turn: they stand in the user's turn | text: no chat template
    prompt: str = "chat"
    system_prompt: str | None = None
    bos: bool = False  # put the tokenizer's start token in front, whether or not the template writes one
    suffix: str = ""  # appended to the question
    # how the answer begins, a template over the document's columns; null = as the task's YAML says
    gen_prefix: str | None = None
    num_fewshot: int = 0  # worked examples before the question
    # first: of the train split, or the task's own | drawn: anew for every document, lm-eval's rule |
    # drawn_twice: every document draws twice and takes the second (lm-eval's chats of one turn, to 0.4.9)
    shots: str = "first"
    shot_processes: int = 1  # of the run that is repeated: document i of the split has draw i // this
    split: str = "test"  # test | validation | train
    limit: int | None = None  # documents (per task of a group); null = all
    subset_seed: int | None = None  # a limit takes documents drawn with this seed; null = the first ones
    # document numbers, in this order; or "permutation": the order of datasets.shuffle(seed=subset_seed)
    documents: Any = None
    stop: list[str] = field(default_factory=list)  # strings that end an answer
    # local file instead of the Hub, a folder with a file per split, or a folder of several data sets:
    # gsm8k/test.jsonl, math500.jsonl, ... (docs/papers.md)
    data: str | None = None
    # folder of lm-eval task files, looked up among lm-eval's own too, of a task that is scored by likelihoods
    yaml: str | None = None


@dataclass
class EvalConfig:
    """One evaluation. What changes an answer or its cost is part of the run's identity; the last group is
    not."""

    model: ModelConfig = MISSING  # of the decoder's first role
    # of its other roles, each under the role's name: auxiliary=NAME, drafter=NAME, or a role of your own
    models: dict[str, Any] = field(default_factory=dict)
    decoder: Any = MISSING  # _target_, name and the decoder's settings
    task: TaskConfig = MISSING
    seed: int = 0  # of the noise of all answers, where a decoder samples
    batch_size: int | str = 1  # auto: as large a power of two, up to 32, as fits in memory
    device: str = "auto"  # auto | cpu | cuda | cuda:N | xpu | mps
    # auto: bfloat16 on a GPU, float32 on a CPU | fastest: bfloat16 on a CPU with AMX, too (lscpu: amx_bf16)
    dtype: str = "auto"
    threads: int = 2  # of torch on a CPU
    compile: bool = False  # models under torch.compile with CUDA graphs; for a GPU
    mc_samples: int = 128  # masked copies of a continuation that give its likelihood under a diffusion model
    mc_batch: int = 32  # how many of them at once: the batches of its interval
    check_greedy: bool = False  # is a continuation the greedy one? A diffusion model writes it token by token
    # not part of the identity
    limit: int | None = "${task.limit}"  # type: ignore[assignment]  # documents to evaluate
    results: str = "results"  # where run folders are made; relative to the project
    run_folder: str | None = None  # this run's own folder; None = <results>/<run id>
    force: bool = False  # run a decoder on a model that was trained with another attention
    allow_code_execution: bool = False  # humaneval runs programs that a model wrote
    trace: bool = False  # record how the first 12 answers came about, for the page (report.py page=true)
    # prompt: print the first three prompts and their ids, and end; no weights are read, nothing is written
    show: str | None = None
    warm_up: int = 5  # documents decoded before the clock starts, and again under it: the ids must repeat
    # answers of a lossless decoder that the baseline decodes too, off the clock, to compare their ids; null:
    # all on a CPU, 20 on a GPU
    check_lossless: int | None = None
    # i/n: decode every n-th document only, from the i-th; the same command without it joins and scores
    shard: str | None = None
    # all, or how many: a process for each card answers a shard; joined and scored at the end
    gpus: Any = None
    # a figure: its settings are those of each arm (name -> settings; a list is swept), times a grid
    arms: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)  # key -> list of values
    arm: str | None = None  # of a figure, these arms alone: arm=one,apd
    setting: str | None = None  # one setting of a sweep, as its launcher hands it to a job
    # the settings of a figure answer in turns, so that their tokens/s can be compared
    interleave: bool = False
    draw: Any = None  # how report.py draws it


@dataclass
class ReportConfig(EvalConfig):
    """What to draw: the settings of eval.py that made the runs, and these. Reads records and runs no
    model."""

    published: bool = True  # the papers' points in panels of their own
    pictures: str | None = None  # folder for figures and tables; None = <results>/figures
    # report.py compare: answers that became right, and wrong, that are shown; None = all
    changed: int | None = 3
    document: int | None = None  # report.py race: which; None = one that the runs do not all have right
    page: bool = False  # one HTML page of all finished runs, in <pictures>/page, in place of figures


@dataclass
class BenchConfig(EvalConfig):
    """A comparison of speeds: the settings of eval.py for all arms, and what each arm changes."""

    # `arms` are timed in turns; ratios are to the first
    prompts: int = 16  # that every arm answers: a multiple of the largest batch size
    prompt_length: int = 100  # tokens, of random prompts
    rounds: int = 5  # how often every arm answers them
    tokens: int | None = None  # end every answer after so many tokens; None = where it ends
    # tokens that every step commits, whatever the models accept: for costs at a given acceptance
    acceptance: int | None = None
    profile: Any = True  # shares of the time, memory, arithmetic, ceiling; memory = that alone; false
    # a setting of which the costs are drawn as curves: task.max_new_tokens | batch_size
    sweep: str | None = None
    points: list[int] = field(default_factory=list)  # its values
    report: str | None = None  # JSON file (PNG and CSV beside it) for what the terminal shows


@dataclass
class DemoConfig(EvalConfig):
    """One answer, live: the settings of eval.py and these."""

    prompt: str | None = None  # what is asked; None = a held-out problem of the task
    document: int = 0  # which one
    # true: one token a step beside it; settings, as in 'compare="decoder=leftright"', or a list of them
    compare: Any = False
    slow: float = 1.0  # times slower than it is, on a terminal
    save: str | None = None  # PNG of the finished answers, tokens coloured by step


for _name, _schema in (
    ("eval", EvalConfig),
    ("report", ReportConfig),
    ("bench", BenchConfig),
    ("demo", DemoConfig),
):
    ConfigStore.instance().store(f"{_name}_schema", _schema)
for _name, _schema in (("model", ModelConfig), ("random", RandomModel), ("task", TaskConfig)):
    ConfigStore.instance().store(_name, _schema, group="schema")
