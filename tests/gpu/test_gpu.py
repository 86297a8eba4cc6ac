"""What a GPU breaks and a CPU does not: on a card with `pytest -m gpu`, on an emulated one in `make test`
(test_emulated.py)."""

import json
from collections import Counter
from dataclasses import replace
from itertools import chain
from operator import le
from types import SimpleNamespace

import pytest
import torch

import bench
import demo
import train
from unmask import doctor
from unmask.benchmark.profile import _parts
from unmask.decoding import Models, Stop
from unmask.decoding.apd import APD
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.cache import SlotCache
from unmask.decoding.leftright import LeftRight
from unmask.decoding.pipeline import D2F
from unmask.decoding.speculative import DFlash, Speculative
from unmask.decoding.unmasking import Unmasking
from unmask.evaluation.evaluation import Evaluation
from unmask.models import resources
from unmask.paths import ROOT
from unmask.testing import golden
from unmask.testing.small_models import frozen, small_drafter, small_dream, small_llada, small_qwen

pytestmark = pytest.mark.gpu
TRACES = ROOT / "tests" / "golden" / "traces"
CAUSAL, LLADA = {"target": small_qwen}, {"denoiser": small_llada}
DREAM, DRAFTED = {"denoiser": small_dream, "auxiliary": small_qwen}, CAUSAL | {"drafter": small_drafter}
TWICE = CAUSAL | {"drafter": small_qwen}
BLOCKWISE = {"quota": "threshold", "threshold": 0.3, "block_length": 8}
ENTROPY = {"rank": "entropy", "threshold": 1.5}


def test_golden_traces_in_float32(capsys):
    """One of each file and method, the sampled one of APD among them, whose noise is drawn on the CPU."""
    assert golden.main([str(TRACES), "--device", "cuda", "--most", "1"]) == 0
    table = capsys.readouterr().out
    assert all(method in table for method in ("apd", "dflash", "d2f", "wino"))
    sampled = golden.few(json.loads((TRACES / "dream.json").read_text())["traces"], 1)
    assert any(trace["settings"].get("temperature") for trace in sampled)


def test_the_doctor_finds_nothing_wrong(capsys):
    assert doctor.main(["--device", "cuda", "--quick"]) == 0
    said = capsys.readouterr().out
    assert "FAILED" not in said and said.endswith("all as it should be\n")
    for words in ("wino", "transformers_dflash", "bfloat16", "GB/s", "weights"):
        assert words in said
    named = {path.stem for path in (ROOT / "eval_config" / "decoder").glob("*.yaml")}
    assert named == {line.split("|")[1].strip() for line in said.splitlines() if "| " in line} & named


def test_a_demo_on_it(run_command):
    words = ("decoder=apd", "decoder.temperature=0.5", "compare=true", "task.max_new_tokens=8")
    code, out, err = run_command(demo, *words, "device=cuda")
    assert code == 0 and "denoiser forwards" in out, err


@pytest.mark.slow
def test_a_benchmark_on_it(run_command):
    """With its profile: shares, memory, arithmetic, ceiling."""
    words = [
        f"{model}.{size}"
        for model in ("model", "auxiliary")
        for size in ("width=64", "depth=2", "vocabulary=512")
    ]
    words += ["model=random", "auxiliary=random_causal", "task.max_new_tokens=4", "prompts=1", "rounds=1"]
    words += ["prompt_length=8"]
    code, out, err = run_command(bench, *words, "device=cuda", '+arms={apd: "decoder=apd"}')
    assert code == 0, err
    arm = json.loads(out.splitlines()[-1])["arms"]["apd"]
    assert arm["peak_mb"] > 0 and arm["ceiling_tokens_per_second"] > 0


@pytest.mark.slow
def test_a_training_on_it(run_command, tmp_path):
    """Of an adapter, whose base is frozen in bfloat16 and whose activations are computed again."""
    words = ["recipe=d2f_llada", f"init_from={ROOT / 'checkpoints' / 'tiny_llada'}", "lora.r=4", "canvas=16"]
    words += ["~mixture", "+mixture={drill: 1}", "tokens=300", "batch_tokens=300", "accumulate=1"]
    words += [f"folder={tmp_path / 'state'}", f"output={tmp_path / 'model'}", "validation_problems=0"]
    code, out, err = run_command(train, *words, "device=cuda")
    assert code == 0 and "1 x cuda" in out, err
    assert (tmp_path / "model" / "model.safetensors").is_file()


def decode(decoder, models, count=3, canvas=8):
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(12, (5 + 2 * i,), generator=generator) for i in range(count)]
    return decoder.decode(Models(models), prompts, canvas, Stop(frozenset({14})), list(range(count)))


def broken(model, value=float("nan")):
    """The model whose head says NaN of the last word, and so of every token."""
    model.lm_head.weight.data[13] = value
    return frozen(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_name_document_step_and_dtype(value):
    model = broken(small_llada(), value).to(torch.bfloat16).cuda()
    with pytest.raises(ValueError, match=r"step 0: logits of the denoiser are not finite .* in bfloat16"):
        decode(Unmasking(steps=4), {"denoiser": model})


def test_the_look_at_logits_waits_for_nothing():
    """A step waits for the transfer of its ids, and for nothing else."""
    emulated = pytest.importorskip("emulated")
    models = {"denoiser": small_llada().cuda()}
    decode(Unmasking(steps=8), models, count=1)
    emulated.waits.clear()
    decode(Unmasking(steps=8), models, count=1)
    assert {what for _, what in emulated.waits} == {"tolist"}


COUNTS = {  # kernels outside the models and waits, a step: of one row, and of four. They may only fall
    "autoregressive": (Autoregressive(), CAUSAL, (4, 1), (7.8, 1)),
    "K = 1, T, top-p": (LeftRight(temperature=0.5, top_p=0.9), LLADA, (22, 2), (32.5, 2.2)),
    "APD": (APD(mixture_weight=0.9), DREAM, (25, 2), (26, 1.4)),
    "APD, W, M": (APD(mixture_weight=0.9, kv_window=4, max_lookahead=8), DREAM, (18, 1), (27, 1)),
    "threshold": (Unmasking(**BLOCKWISE), LLADA, (17, 1), (22.2, 1)),
    "threshold, dual": (Unmasking(**BLOCKWISE, cache="dual"), LLADA, (18.3, 1), (24.2, 1)),
    "dParallel": (Unmasking(**BLOCKWISE | ENTROPY), LLADA, (19.6, 1), (25, 1)),
    "confidence, T, top-p": (Unmasking(steps=6, temperature=0.2, top_p=0.9), LLADA, (34.9, 2), (66, 2)),
    "D2F": (D2F(block_length=4, skip_threshold=0.3), LLADA, (15.2, 1), (17.5, 1)),
    "DFlash": (DFlash(), DRAFTED, (16, 1), (23.1, 1)),
    "speculative": (Speculative(block_length=4), TWICE, (15.5, 1), (34, 1)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_launches_and_waits_of_a_step(name, monkeypatch):
    """On a fast card launching decides how long a step takes; a wait makes it idle until the host goes on."""
    emulated = pytest.importorskip("emulated")
    decoder, roles, *most = COUNTS[name]
    models = {role: make().cuda() for role, make in roles.items()}
    inside = Counter()

    def begun(*_):
        inside["kernels"] -= emulated.counts["kernels"]

    def done(*_):
        inside["kernels"] += emulated.counts["kernels"]

    for module in _parts(SimpleNamespace(models=Models(models))):
        module.register_forward_pre_hook(begun)
        module.register_forward_hook(done)
    if isinstance(decoder, DFlash):  # whose keys and values of the context the drafter makes outside of it
        context = models["drafter"].context

        def counted(*args):
            begun()
            made = context(*args)
            done()
            return made

        monkeypatch.setattr(models["drafter"], "context", counted)
    found = []
    for rows in (1, 4):
        inside.clear()
        emulated.counts.clear()
        generations = decode(decoder, models, rows, canvas=16)
        steps = max(g.forwards[next(iter(roles))] for g in generations)
        kernels = emulated.counts["kernels"] - inside["kernels"]
        found.append((kernels / steps, emulated.counts["waits"] / steps))
    assert all(map(le, chain(*found), chain(*most))), found


BESIDE = {  # ours, transformers' loop, drafter, rows; kernels and waits a token of ours. They may only fall
    "autoregressive": ("autoregressive", "transformers", "none", 1, (199.7, 1)),
    "autoregressive, batch 4": ("autoregressive", "transformers", "none", 4, (50.9, 0.25)),
    "speculative, B = 8": ("speculative", "transformers_speculative", "tiny_qwen", 1, (146, 0.19)),
    "DFlash, B = 8": ("dflash", "transformers_dflash", "tiny_dflash", 1, (66.7, 0.19)),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * n.startswith(("spec", "autoregressive,"))) for n in BESIDE],
)
def test_fewer_launches_and_waits_a_token_than_transformers(name):
    """The models' kernels among them, of the trained tiny models (-s prints docs/performance.md's table)."""
    emulated = pytest.importorskip("emulated")
    *decoders, drafter, rows, most = BESIDE[name]
    found, ids = [], []
    for decoder in decoders:
        words = ["model=tiny_qwen_large", f"drafter={drafter}", "auxiliary=none", f"decoder={decoder}"]
        run = Evaluation.of(*words, "device=cuda", "dtype=float32", "threads=1", f"limit={rows}")
        prompts, models = run.lm.prompts(run.requests), run.lm.models
        emulated.counts.clear()
        generations = run.decoder.decode(models, prompts, 16, Stop(), [0] * rows)
        ids.append([g.ids for g in generations])
        tokens = sum(len(g.ids) for g in generations)
        found.append(tuple(round(emulated.counts[kind] / tokens, 2) for kind in ("kernels", "waits")))
    ours, theirs = found
    print(f"| {name} | {ours[0]} / {ours[1]} | {theirs[0]} / {theirs[1]} |")
    assert ids[0] == ids[1]
    assert all(map(le, ours, most)) and all(map(le, ours, theirs)), found


def test_finished_rows_leave_the_cache_without_a_second_one():
    cache = SlotCache(8, 63)
    cache.write_at(None, range(8), 8)
    for layer in range(8):
        cache.update(*torch.ones(2, 8, 2, 8, 16, device="cuda"), layer)
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    cache.keep([0, 2, 3, 4, 5, 6])
    assert torch.cuda.max_memory_allocated() < 1.1 * held
    assert cache.kept[0][0].shape == (6, 2, 64, 16)


@pytest.mark.parametrize(
    "decoder", [Unmasking(steps=4, temperature=0.5, top_p=0.9), D2F(block_length=4, temperature=0.5)]
)
def test_ranking_in_parts_changes_no_answer_and_bounds_the_memory(decoder, monkeypatch):
    models = {"denoiser": small_llada().cuda()}
    want = decode(decoder, models, 6)
    monkeypatch.setattr("unmask.decoding.board.LOGITS", 2 * 8 * 16 * 4)  # of two rows
    assert [g.ids for g in decode(decoder, models, 6)] == [g.ids for g in want]


def test_ranking_holds_what_batch_size_auto_counts(monkeypatch):
    """Dream's confidence at T = 0.2 with top-p, of many rows: the most that a decoder holds."""
    model = small_llada(vocab_size=4096).cuda()
    monkeypatch.setattr("unmask.decoding.board.LOGITS", row := 4 * 8 * 4096)
    decoder = Unmasking(temperature=0.2, top_p=0.95, steps=2)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    decode(decoder, {"denoiser": model}, 12)
    assert torch.cuda.max_memory_allocated() - before < (resources.COPIES + 1) * row


TINY = ("limit=6", "warm_up=2", "task.max_new_tokens=8", "device=cuda", "auxiliary=none")


def evaluation(folder, *words) -> Evaluation:
    return Evaluation.of(*TINY, "decoder=confidence", "decoder.steps=2", f"run_folder={folder}", *words)


def test_a_batch_that_does_not_fit_is_halved_and_what_is_on_disk_stays(tmp_path, monkeypatch, capsys):
    first = evaluation(tmp_path / "run", "batch_size=auto", "limit=2")
    with first.run:
        first.score()
    assert {s["batch_size"] for s in first.run.samples()} == {32}
    real = Unmasking.decode

    def decode(self, models, prompts, *args, **kwargs):
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return real(self, models, prompts, *args, **kwargs)

    monkeypatch.setattr(Unmasking, "decode", decode)
    monkeypatch.setattr(Evaluation, "rows_that_fit", lambda *_: 8)  # less is free now
    second = evaluation(tmp_path / "run", "batch_size=auto")
    with second.run:
        summary = second.score()
    assert second.lm.decoded == 4 and summary["n"] == 6
    assert summary["times_void"] == "documents of 2 batch sizes"
    assert [s["batch_size"] for s in second.run.samples()].count(2) == 4
    assert "batch_size=4 does not fit in the memory of cuda: 2 from here on" in capsys.readouterr().err
    third = evaluation(tmp_path / "other", "batch_size=4", "warm_up=0")
    with third.run, pytest.raises(ValueError, match="batch_size=4 does not fit .* batch_size=2 or auto"):
        third.score()


def test_a_trace_in_bfloat16_is_of_the_recorded_batch(tmp_path, monkeypatch):
    decoded, real = [], Unmasking.decode

    def decode(self, models, prompts, *args, **kwargs):
        """Another answer in every size of a batch, as rounding may give."""
        decoded.append(len(prompts))
        made = real(self, models, prompts, *args, **kwargs)
        return [replace(g, ids=[g.ids[0] + len(prompts), *g.ids[1:]]) for g in made]

    monkeypatch.setattr(Unmasking, "decode", decode)
    run = evaluation(tmp_path / "run", "batch_size=4", "trace=true")
    with run.run:
        run.score()
    assert run.identity["dtype"] == "bfloat16" and len(run.run.traces()) == 6
    assert decoded[-2:] == [4, 2]  # its two batches


def test_a_trace_that_differs_is_said_and_left_out(tmp_path, monkeypatch, capsys):
    run = evaluation(tmp_path / "run")
    with run.run:
        run.score()
    real = Unmasking.decode

    def decode(*args, **kwargs):
        return [replace(g, ids=[g.ids[0] + 1, *g.ids[1:]]) for g in real(*args, **kwargs)]

    monkeypatch.setattr(Unmasking, "decode", decode)
    again = evaluation(tmp_path / "run", "trace=true")
    with again.run:
        again.score()
    assert "decoded again in bfloat16 they differ" in capsys.readouterr().err and not again.run.traces()


def test_a_nan_in_a_run_names_its_document(tmp_path):
    run = evaluation(tmp_path / "run", "batch_size=4", "warm_up=0")
    run.lm.models["denoiser"].lm_head.weight.data[13] = float("nan")
    with run.run, pytest.raises(ValueError, match=r"document \d+ of gsm_symbolic, step 0: .* in bfloat16"):
        run.score()
    assert not run.run.done
    run.lm.models["denoiser"].lm_head.weight.data[13] = 0.0


def test_lossless_answers_are_checked_as_many_as_asked(tmp_path):
    words = [
        "model=tiny_qwen_large",
        "drafter=tiny_dflash",
        "decoder=dflash",
        f"run_folder={tmp_path / 'run'}",
    ]
    words += [*TINY, "dtype=float32", "warm_up=0"]
    run = Evaluation.of(*words, "check_lossless=2", "limit=3")
    with run.run:
        summary = run.score()
    assert summary["exact"] == [2, 2] and summary["n"] == 3
    assert "check_lossless" not in json.dumps(run.identity)
    again = Evaluation.of(*words, "limit=5")
    with again.run:
        assert again.score()["exact"] == [4, 4]  # 20 are checked on a GPU where nothing is said
