"""Our lm-eval tasks: YAML files found by `TaskManager(include_path=...)`, their documents and their scoring.

| task | documents | result key (per document: the same metric and filter in `samples`) |
|---|---|---|
| gsm_symbolic, chain_sum | generated, see problems.py | exact_match,flexible-extract (and strict-match) |
| gsm8k | Hub or file | exact_match,flexible-extract (and strict-match) |
| math (a group of seven `math_*`) | Hub or file | exact_match,boxed; the group: the unweighted mean of the subjects |
| gpqa | Hub or file | exact_match,last-letter |
| humaneval | Hub or file | pass@1,create_test |

Every filter of every task writes `scoring.INVALID` ("[invalid]") where it finds no answer, so an extraction
failure is `sample["filtered_resps"][0] == INVALID`, and it always scores 0.

    manager, tasks = prepare("gsm8k", data="gsm8k_test.jsonl")  # before any model is loaded: ValueError if it
    cannot work simple_evaluate(lm, tasks=["gsm8k"], task_manager=manager, gen_kwargs={"until": stop,
    "max_gen_toks": budget}, ...)
"""

from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from unmask.config import ROOT


def prepare(
    name: str, data: str | None = None, allow_code_execution: bool = False
) -> tuple[TaskManager, dict[str, Task]]:
    """The task manager to hand to `simple_evaluate`, and its tasks by name.

    ValueError that says what to change unless the task or group `name` exists, its documents can be read from
    `data` (None: the Hub, or the generator), and its scorer may run code if it must.
    """
    # lm-eval's own tasks stay out: ours are named like some of them, and indexing thousands of files takes
    # seconds.
    manager = TaskManager(
        include_path=ROOT / "eval_config" / "tasks", include_defaults=False, metadata={"data": data}
    )
    if name not in manager.all_tasks:
        raise ValueError(f"unknown task {name!r}; there are {', '.join(manager.all_tasks)}")
    if manager.task_index[name].cfg.get("unsafe_code") and not allow_code_execution:
        raise ValueError(
            f"task {name} runs code that a model wrote, in a subprocess with limits on time and memory, which is no "
            "sandbox: set allow_code_execution=true on a machine where that is acceptable"
        )
    return manager, manager.load(name)["tasks"]
