"""eval.py on lm-eval's multiple-choice, loglikelihood and rolling tasks, with a record of likelihoods."""

import json
from math import exp

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

import eval as eval_door
from harness import UnmaskLM
from unmask.configuration.composition import composed
from unmask.evaluation.choices import FILE, Choices
from unmask.evaluation.likelihood import Denoiser
from unmask.records import Run, find_runs
from unmask.records.collection import everything
from unmask.records.kept import Kept

NAMES = ["Ann", "Bo", "Cy", "Di", "Ed"]
YAML = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}, train: {file}}}
output_type: {kind}
test_split: test
fewshot_split: train
fewshot_config: {{sampler: first_n}}
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_target: {target}
metric_list:
"""
CHOICE = 'doc_to_choice: ["one pen", "three pens and a book", "none"]\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """lm-eval task files: choices (multiple choice), pages (rolling), last_word (loglikelihood), words."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [
        {"question": f"{name} has a pen. How many has {name}?", "gold": i % 3} for i, name in enumerate(NAMES)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind, target, metrics, more in (
        ("choices", "multiple_choice", "gold", ["acc", "acc_norm"], CHOICE),
        ("pages", "loglikelihood_rolling", "question", ["word_perplexity", "bits_per_byte"], ""),
        ("last_word", "loglikelihood", "question", ["acc", "perplexity"], ""),
        ("words", "generate_until", "gold", ["exact_match"], ""),
    ):
        text = YAML.format(name=name, file=tmp_path / "rows.jsonl", kind=kind, target=target)
        text += "".join(f"  - metric: {metric}\n" for metric in metrics) + more
        (tmp_path / "yaml").mkdir(exist_ok=True)
        (tmp_path / "yaml" / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def words(models, folder):
    """Arguments of eval.py for a task of the folder."""

    def given(name, *more):
        own = [word for word in models if not word.startswith("task.")]
        task = ["task=lm_eval", f"task.name={name}", f"task.yaml={folder / 'yaml'}"]
        return [*own, *task, f"results={folder / 'results'}", "mc_samples=8", "mc_batch=4", *more]

    return given


def theirs(models, folder, name, **settings):
    """lm-eval's own results of the same model on the same task."""
    paths = dict(word.split("=", 1) for word in models if ".path=" in word)
    lm = UnmaskLM(
        pretrained="tiny_dream",
        decoder="apd",
        auxiliary="tiny_qwen",
        threads=1,
        mc_samples=8,
        mc_batch=4,
        **paths,
        **settings,
    )
    manager = TaskManager(include_path=folder / "yaml", include_defaults=False)
    return lm_eval.simple_evaluate(lm, tasks=[name], task_manager=manager, num_fewshot=1)["results"][name]


def test_a_multiple_choice_task_is_lm_evals_own(words, models, folder):
    evaluation = Choices(composed("eval", words("choices", "task.num_fewshot=1")))
    summary = evaluation.score()
    found = theirs(models, folder, "choices")
    for metric in ("acc", "acc_norm"):
        assert summary["metrics"][metric]["value"] == found[f"{metric},none"]
        low, high = summary["metrics"][metric]["interval"]
        assert 0 <= low <= summary["metrics"][metric]["value"] <= high <= 1 and high - low > 0.3
    kept = Kept(evaluation.folder / FILE, lambda row: (row["doc_id"], row["choice"]), of=evaluation.run.seal)
    rows = list(kept.rows.values())
    assert [(row["doc_id"], row["choice"]) for row in rows] == [(d, c) for d in range(5) for c in range(3)]
    assert summary["texts"] == 15 and summary["forwards"] == sum(row["forwards"] for row in rows)
    assert {row["text"] for row in rows} == {" one pen", " three pens and a book", " none"}
    assert all(row["value"] < 0 and row["error"] >= 0 and row["machine"] for row in rows)
    assert {row["samples"] for row in rows} <= {1, 3, 7, 8}


def test_a_stopped_run_goes_on_and_a_finished_one_computes_nothing(words, run_command, monkeypatch):
    calls, likelihood = [], Denoiser.likelihood

    def scored(self, *args):
        calls.append(args)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return likelihood(self, *args)

    monkeypatch.setattr(Denoiser, "likelihood", scored)
    given = words("choices")
    assert run_command(eval_door, *given)[0] == 130
    code, out, err = run_command(eval_door, *given)
    assert code == 0 and len(calls) == 8 + 15 - 7, err
    headline = json.loads(out.splitlines()[-1])
    assert headline["scored_now"] == 8 and set(headline["metrics"]) == {"acc", "acc_norm"}
    code, out, _ = run_command(eval_door, *given)
    assert code == 0 and len(calls) == 16 and "nothing to compute" in out
    assert json.loads(out.splitlines()[-1])["metrics"] == headline["metrics"]
    evaluation = Choices(composed("eval", [*given, "limit=2"]))  # another limit is the same run
    assert evaluation.score()["n"] == 2 and len(calls) == 16
    assert Run.read(evaluation.folder).info["status"] == "finished"
    runs, problems = find_runs(evaluation.folder.parent)
    assert len(runs) == 1 and not problems
    assert [why.split(": ")[-1] for _, why in everything(runs).missing] == [
        "holds likelihoods and no answers"
    ]


def test_rolling_and_loglikelihood_tasks(words, models, folder):
    pages = Choices(composed("eval", words("pages", "task.num_fewshot=1"))).score()
    found = theirs(models, folder, "pages")
    for metric in ("word_perplexity", "bits_per_byte"):
        assert pages["metrics"][metric]["value"] == pytest.approx(found[f"{metric},none"])
        low, high = pages["metrics"][metric]["interval"]
        assert low < pages["metrics"][metric]["value"] < high
    evaluation = Choices(composed("eval", words("last_word", "check_greedy=true")))
    summary = evaluation.score()
    values = [row["value"] for row in evaluation.kept.rows.values()]
    assert summary["metrics"]["perplexity"]["value"] == pytest.approx(exp(-sum(values) / 5))
    assert all(row["greedy"] in (True, False) for row in evaluation.kept.rows.values())


def test_causal_models_need_no_samples(words, models, folder):
    path = next(word.split("=", 1)[1] for word in models if word.startswith("auxiliary.path="))
    own = [
        word for word in words("choices") if "auxiliary" not in word and not word.startswith("model.path=")
    ]
    evaluation = Choices(composed("eval", [*own, "model=tiny_qwen", f"model.path={path}", "batch_size=4"]))
    summary = evaluation.score()
    assert summary["samples"] == 0 and summary["forwards"] == 15 and summary["error"] == 0


REFUSED = {
    "unknown name": (["task.name=nothing"], "unknown task 'nothing'; in task.yaml="),
    "a path that is too long": (["task.yaml=" + "x" * 5000], "is no folder, here or among"),
    "no folder": (["task.yaml=no_such_folder"], "task.yaml=no_such_folder: is no folder"),
    "answered in words": (["task.name=words"], "task words is answered in words"),
    "greedy": (["task.name=last_word"], "check_greedy=true"),
    "no effect": (["task.suffix=hm"], "task.suffix='hm': has no effect on likelihoods"),
    "shards": (["shard=1/2"], "shard= and trace= are for tasks that are answered"),
    "batches": (["mc_samples=9"], "mc_samples=9 must be a multiple of mc_batch=4"),
    "no samples": (["mc_samples=0"], "mc_samples=0 must be a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_loaded(case, words, run_command, folder, monkeypatch):
    monkeypatch.setattr("unmask.models.loading.Source.load", lambda *_: pytest.fail("weights were loaded"))
    more, message = REFUSED[case]
    code, _, err = run_command(eval_door, *words("choices"), *more)
    assert code == 2 and message in err, err
    assert not (folder / "results").exists()


def test_a_sweep_is_of_one_kind_of_task(words, run_command):
    given = [word for word in words("choices") if not word.startswith("task")]
    code, _, err = run_command(eval_door, *given, "task=lm_eval,gsm_symbolic")
    assert code == 2 and "not both" in err


def test_a_sweep_of_settings(words, run_command):
    code, out, err = run_command(eval_door, *words("choices", "limit=1", "seed=0,1"))
    assert code == 0, err
    assert len(json.loads(out.splitlines()[-1])) == 2 and "acc_norm" in out
