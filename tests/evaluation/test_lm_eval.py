"""lm-eval's own command and `simple_evaluate` with our decoders, on its stock gsm8k from files."""

import json
import subprocess
import sys
from pathlib import Path

import lm_eval
import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import harness
from harness import UnmaskLM
from unmask.decoding import Decoder
from unmask.evaluation.likelihood import Denoiser
from unmask.paths import ROOT

STOCK = Path(lm_eval.__file__).parent / "tasks" / "gsm8k"  # indexing all of lm-eval's tasks takes seconds
ROWS = [
    {"question": f"Ann has {n} pens and finds {n}. How many has she?", "answer": f"{n}+{n}\n#### {2 * n}"}
    for n in range(2, 8)
]


@pytest.fixture(scope="module")
def args(models):
    """Model_args of the random models."""
    paths = dict(override.split("=", 1) for override in models if ".path=" in override)
    return {"pretrained": "tiny_dream", "decoder": "apd", "auxiliary": "tiny_qwen", "threads": 1, **paths}


@pytest.fixture(scope="module")
def lm(args):
    return UnmaskLM(**args, max_gen_toks=24)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with gsm8k's splits, and gsm8k_local.yaml, which is docs/lm_eval.md's."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    files = {"test": ROWS[:4], "train": ROWS[4:]}
    for split, rows in files.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (ROOT / "docs" / "lm_eval.md").read_text()
    task = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    (gsm8k,) = task["task"]
    gsm8k["dataset_kwargs"]["data_files"] = {split: str(tmp_path / f"{split}.jsonl") for split in files}
    gsm8k["fewshot_config"] = {"sampler": "first_n"}  # eval.py's examples; lm-eval draws them
    (tmp_path / "gsm8k_local.yaml").write_text(yaml.safe_dump(task))
    return tmp_path


@pytest.fixture
def command(run_command, monkeypatch, args, data):
    """command(flag, ..., setting=value) -> (exit code, stdout, stderr) of `python harness.py`."""
    monkeypatch.setattr(TaskManager.__init__, "__defaults__", (None, None, False, None))
    monkeypatch.setattr("lm_eval.__main__.setup_logging", lambda: None)  # it would outlive the test
    kept = {"results": data / "kept"}

    def run(*flags, tasks=("gsm8k_local",), **settings):
        given = ",".join(f"{key}={value}" for key, value in (args | kept | settings).items())
        files = ",".join(str(data / f"{name}.yaml") for name in tasks)
        task = ("--tasks", files, "--include_path", str(STOCK))
        return run_command(harness, "--model", "unmask", "--model_args", given, *task, *flags)

    return run


def asked(text="Ann has 3 pens.", document=0, **gen_kwargs):
    return Instance("generate_until", {}, (text, gen_kwargs), 0, ("gsm8k", document, 1))


def test_a_stock_task_has_the_ids_and_costs_of_eval_py(args, data, evaluate):
    lm = UnmaskLM(**args, max_gen_toks=24, temperature=0.7, seed=3, batch_size=3)
    manager = TaskManager(include_path=[STOCK, data], include_defaults=False)
    chat = {"apply_chat_template": True, "system_instruction": "Be brief.", "num_fewshot": 2}
    found = lm_eval.simple_evaluate(lm, tasks=["gsm8k_local"], task_manager=manager, **chat)
    ours = evaluate(
        *("task=gsm8k", f"task.data={data}", "task.num_fewshot=2", "task.system_prompt=Be brief."),
        *("task.stop=['Question:', '</s>', '<|im_end|>']", "decoder.temperature=0.7", "seed=3"),
    )
    summary = ours.score()
    assert [g.ids for g in lm.generations] == [sample["ids"] for sample in ours.run.samples()]
    assert len(lm.generations) == 4 and lm.costs["useful_tokens"] > 0
    assert lm.costs == {key: summary[key] for key in lm.costs}
    assert found["config"]["unmask"]["models"] == ours.identity["models"]


def test_the_command_writes_lm_evals_own_results(command, data):
    flags = ["--apply_chat_template", "--system_instruction", "Be brief.", "--num_fewshot", "1"]
    flags += ["--gen_kwargs", "max_gen_toks=9", "--output_path", str(data / "out"), "--log_samples"]
    code, out, err = command(*flags, "--limit", "2", mixture_weight=0.1)
    assert code == 0, err
    assert "exact_match" in out and "tokens per step" in err
    (results,) = (data / "out").rglob("results*.json")
    costs = json.loads(results.read_text())["config"]["unmask"]
    assert costs["samples"] == 2 and costs["useful_tokens"] <= 18
    assert costs["decoder"]["mixture_weight"] == 0.1
    (samples,) = (data / "out").rglob("samples*.jsonl")
    arguments = json.loads(samples.read_text().splitlines()[0])["arguments"]["gen_args_0"]
    turns = [turn.split("\n")[0] for turn in arguments["arg_0"].split("<|im_start|>")[1:]]
    assert turns == ["system", "user", "assistant", "user", "assistant"]
    assert ROWS[4]["answer"] in arguments["arg_0"] and arguments["arg_1"]["max_gen_toks"] == 9


@pytest.mark.slow
def test_processes_of_torchrun_divide_the_documents_and_the_first_one_prints(command, args, data):
    """The same scores and costs as alone; three documents for two processes, so that lm-eval repeats one."""
    flags = ["--limit", "3", "--num_fewshot", "1", "--gen_kwargs", "max_gen_toks=9", "--output_path"]
    code, _, err = command(*flags, str(data / "alone"))
    assert code == 0, err
    given = ",".join(f"{key}={value}" for key, value in (args | {"results": data / "shared"}).items())
    own = ["--model", "unmask", "--model_args", given, "--tasks", str(data / "gsm8k_local.yaml")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*torchrun, "harness.py", *own, "--include_path", str(STOCK), *flags, str(data / "two")]
    done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("exact_match") == 2 and done.stderr.count("tokens per step") == 1
    found = [next((data / name).rglob("results*.json")) for name in ("alone", "two")]
    alone, two = (json.loads(file.read_text()) for file in found)
    assert two["results"]["gsm8k"] == alone["results"]["gsm8k"]
    for name in ("samples", "useful_tokens", "forwards", "positions"):
        assert two["config"]["unmask"][name] == alone["config"]["unmask"][name]
    assert len(list((data / "shared" / "lm_eval").iterdir())) == 2


def test_what_other_processes_keep_is_read_too(args, tmp_path):
    request = asked(max_gen_toks=3)
    first = UnmaskLM(keep=True, **args, results=str(tmp_path))
    want = first.generate_until([request], disable_tqdm=True)
    first.kept.close()
    (file,) = (tmp_path / "lm_eval").iterdir()
    file.rename(file.with_suffix(".1.jsonl"))  # as process 1 keeps its own
    again = UnmaskLM(keep=True, **args, results=str(tmp_path))
    again.setup.load = lambda: pytest.fail("what is kept is not decoded again")
    assert again.generate_until([request], disable_tqdm=True) == want


def test_an_unknown_setting_is_refused_with_those_that_there_are(command, data, monkeypatch):
    monkeypatch.setattr(
        "unmask.evaluation.setup.Setup.load", lambda setup: pytest.fail("weights were loaded")
    )
    code, _, err = command("--output_path", str(data / "out"), mixture_wieght=0.1)
    assert code == 2
    assert "unknown mixture_wieght; decoder=apd takes pretrained, decoder, auxiliary, mixture_weight" in err
    assert "Traceback" not in err and not (data / "out").exists()


def test_every_request_has_its_own_stop_strings_and_budget(lm):
    lm.generate_until([asked(until=[])], disable_tqdm=True)
    (free,) = lm.generations
    word = lm.tokenizer.decode(free.ids[5:7])
    requests = [asked(until=word), asked(max_gen_toks=7), asked(until=["", word]), asked()]
    texts = lm.generate_until(requests, disable_tqdm=True)
    stopped, short, listed, again = lm.generations
    assert again.ids == free.ids and len(free.ids) == 24
    assert len(short.ids) == 7 and short.finish == "length"
    assert 0 < stopped.useful <= 5 and stopped.finish == "stop" and word not in texts[0]
    assert listed.ids == stopped.ids and texts[2] == texts[0]
    assert texts[3].startswith(texts[0] + word)


def test_repeats_and_documents_have_noise_of_their_own(args):
    lm = UnmaskLM(**args, max_gen_toks=24, temperature=1, batch_size=2)
    lm.generate_until([asked(), asked(), asked(document=1)], disable_tqdm=True)
    assert len({tuple(g.ids) for g in lm.generations}) == 3


def test_a_long_prompt_loses_its_left_end(lm, capsys):
    ids = lm.tok_encode("Ann has 3 pens. " * 200)[-(lm.context - 24) :]
    cut = lm.tokenizer.decode(ids)
    assert lm.tok_encode(cut) == ids
    lm.generate_until([asked("Ann has 3 pens. " * 200), asked(cut)])
    whole, kept = lm.generations
    assert whole.ids == kept.ids
    assert "1 of 2 prompts do not fit" in capsys.readouterr().err


def test_flags_give_way_to_model_args(args):
    given = ",".join(f"{key}={value}" for key, value in args.items())
    flags = {"batch_size": "2", "max_batch_size": None, "device": "cuda:0"}  # the device is lm-eval's default
    assert UnmaskLM.create_from_arg_string(given, flags).batch_size == 2
    lm = UnmaskLM.create_from_arg_obj(args | {"batch_size": 4, "device": "cpu"}, flags)
    assert lm.batch_size == 4 and lm.setup.device.type == "cpu"


REFUSED = {
    "no decoder": ({"pretrained": "tiny_dream"}, "decoder= is missing; there are apd"),
    "another path": ({"pretrained": "my/model", "decoder": "apd"}, "model.path=my/model"),
    "a role that the decoder has not": (
        {"pretrained": "tiny_dream", "decoder": "leftright", "auxiliary": "tiny_qwen"},
        "unknown auxiliary",
    ),
    "a role that is missing": (
        {"pretrained": "checkpoints/tiny_dream", "decoder": "apd"},
        "decoder=apd needs a causal model as auxiliary",
    ),
    "a setting without effect": (
        {"pretrained": "tiny_qwen_large", "decoder": "autoregressive", "mc_samples": 64},
        "mc_samples=64: has no effect",
    ),
    "a temperature that the decoder does not take over": (
        {"pretrained": "tiny_d2f_dream", "decoder": "d2f", "model.temperature": 0.5},
        "model.temperature=0.5: has no effect",
    ),
    "a word for a number": ({"pretrained": "tiny_dream", "decoder": "leftright", "seed": "one"}, "seed=one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_are_refused_in_words(case):
    given, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        UnmaskLM(**given)


@pytest.mark.parametrize(
    ("gen_kwargs", "message"),
    [
        ({"temperature": 0.7, "do_sample": True}, "temperature': 0.7.*set temperature.*in model_args"),
        ({"num_beams": 4}, "num_beams: unknown"),
        ({"max_gen_toks": 512}, "max_gen_toks=512: the model's context is 512"),
    ],
)
def test_requests_are_refused_in_words(lm, gen_kwargs, message):
    with pytest.raises(ValueError, match=message):
        lm.generate_until([asked(**gen_kwargs)])


def test_greedy_as_tasks_say_it_is_accepted(lm):
    asks = asked(do_sample=False, temperature=0.0, top_p=0.95, num_beams=1, max_gen_toks=2)
    assert lm.generate_until([asks], disable_tqdm=True)


CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
output_type: {kind}
test_split: test
num_fewshot: 0
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_target: {target}
doc_to_choice: ["four", "six", "eight"]
metric_list:
  - metric: {metric}
"""


@pytest.fixture
def choices(data):
    """Beside gsm8k_local: choices.yaml (multiple choice), pages.yaml (rolling), last_word.yaml (greedy)."""
    kinds = {
        "choices": ("multiple_choice", "0", "acc"),
        "pages": ("loglikelihood_rolling", "question", "word_perplexity"),
        "last_word": ("loglikelihood", "question", "acc"),
    }
    for name, (kind, target, metric) in kinds.items():
        text = CHOICES.format(name=name, file=data / "test.jsonl", kind=kind, target=target, metric=metric)
        if kind != "multiple_choice":
            text = "\n".join(line for line in text.splitlines() if not line.startswith("doc_to_choice"))
        (data / f"{name}.yaml").write_text(text)
    return data


def results_of(folder):
    (file,) = folder.rglob("results*.json")
    return json.loads(file.read_text())


def test_a_mixed_run_that_is_stopped_goes_on_where_it_was(command, choices, monkeypatch):
    tasks = {"tasks": ("gsm8k_local", "choices", "pages"), "mc_samples": 8, "mc_batch": 4}
    flags = ["--limit", "3", "--num_fewshot", "1", "--gen_kwargs", "max_gen_toks=8", "--output_path"]
    code, _, err = command(*flags, str(choices / "whole"), **tasks, results=choices / "elsewhere")
    assert code == 0, err
    whole = results_of(choices / "whole")
    assert whole["config"]["unmask"]["likelihoods"]["texts"] == 3 * 3 + 3

    calls = {"answers": 0, "texts": 0}
    decode, likelihood = Decoder.decode, Denoiser.likelihood

    def decoded(self, models, prompts, *args):
        calls["answers"] += len(prompts)
        return decode(self, models, prompts, *args)

    def scored(self, *args):
        calls["texts"] += 1
        if calls["texts"] == 5:
            raise KeyboardInterrupt
        return likelihood(self, *args)

    monkeypatch.setattr(Decoder, "decode", decoded)
    monkeypatch.setattr(Denoiser, "likelihood", scored)
    code, _, err = command(*flags, str(choices / "resumed"), **tasks)
    assert code == 130 and "what was finished is kept" in err
    assert calls == {"answers": 3, "texts": 5} and not list((choices / "resumed").rglob("results*"))
    (kept,) = (choices / "kept" / "lm_eval").glob("*.jsonl")
    assert len(kept.read_text().splitlines()) == 3 + 4
    with kept.open("ab") as file:
        file.write(b'{"key": "a torn li')

    code, _, err = command(*flags, str(choices / "resumed"), **tasks)
    assert code == 0, err
    assert calls["answers"] == 3 and calls["texts"] == 5 + (3 * 3 - 4) + 3
    resumed = results_of(choices / "resumed")
    assert resumed["results"] == whole["results"]
    assert resumed["config"]["unmask"] == whole["config"]["unmask"]
    # and another setting shares nothing with it
    assert command(*flags, str(choices / "other"), **tasks, mixture_weight=0.9)[0] == 0
    assert calls["answers"] == 6


def test_what_a_run_wants_is_checked_before_anything_is_decoded(command, choices, monkeypatch):
    monkeypatch.setattr(
        "unmask.evaluation.setup.Setup.load", lambda setup: pytest.fail("weights were loaded")
    )
    code, _, err = command("--limit", "1", tasks=("gsm8k_local", "last_word"))
    assert code == 2 and "task last_word: " in err and "check_greedy=true" in err
    code, _, err = command("--limit", "1", "--gen_kwargs", "num_beams=3", tasks=("choices", "gsm8k_local"))
    assert code == 2 and "num_beams: unknown" in err
    assert not (choices / "kept").exists()


def test_a_causal_models_likelihoods_are_lm_evals_own(models):
    path = next(o.split("=", 1)[1] for o in models if o.startswith("auxiliary.path="))
    settings = {"pretrained": "tiny_qwen", "model.path": path, "decoder": "autoregressive"}
    ours = UnmaskLM(**settings, threads=1, batch_size=2)
    theirs = HFLM(pretrained=path, device="cpu", batch_size=2, dtype="float32", max_length=512)
    texts = [("Ann has 3 pens.", " She has"), ("", "Two and two"), ("A pen ", "costs 4."), ("x" * 900, "yy")]
    asks = [Instance("loglikelihood", {}, pair, 0, ("t", i, 1)) for i, pair in enumerate(texts)]
    wanted = theirs.loglikelihood(asks, disable_tqdm=True)
    found = ours.loglikelihood(asks, disable_tqdm=True)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    pages = ["Ann has 3 pens. " * 120, "Two.", ""]  # the first is longer than the context
    asks = [Instance("loglikelihood_rolling", {}, (page,), 0, ("t", i, 1)) for i, page in enumerate(pages)]
    assert len(ours.pieces(asks[0])) > 1
    rolled = theirs.loglikelihood_rolling(asks, disable_tqdm=True)
    assert ours.loglikelihood_rolling(asks, disable_tqdm=True) == pytest.approx(rolled, rel=1e-5)


def test_windows_of_a_diffusion_model_fit_its_context(lm):
    ask = Instance("loglikelihood_rolling", {}, ("Ann has 3 pens. " * 120,), 0, ("t", 0, 1))
    windows = lm.pieces(ask)
    assert all(len(context) + len(text) <= lm.context for context, text in windows)
    assert [token for _, text in windows for token in text] == lm.tok_encode(ask.args[0])
    ((context, text),) = lm.pieces(Instance("loglikelihood", {}, ("x" * 900, "yy"), 0, ("t", 0, 1)))
    assert len(context) + len(text) == lm.context and lm.tok_encode("x" * 900)[-9:] == context[-9:]
    with pytest.raises(ValueError, match="document 4 of t: a continuation of 0 tokens"):
        lm.loglikelihood([Instance("loglikelihood", {}, ("x", ""), 0, ("t", 4, 1))])
