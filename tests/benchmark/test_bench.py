"""bench.py: what it counts is what happens. No test looks at a time."""

import json

import pandas as pd
import pytest
import torch

import bench
from unmask.benchmark import profile as profiles
from unmask.benchmark.arms import Arm
from unmask.benchmark.command import arm_settings
from unmask.benchmark.given import given
from unmask.benchmark.timing import race, ratio, speed
from unmask.configuration.composition import composed
from unmask.configuration.settings import build_decoder, models_by_role, typed
from unmask.decoding import Models, Stop
from unmask.decoding.apd import APD
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.blocks import Blocks
from unmask.decoding.leftright import LeftRight
from unmask.decoding.speculative import DFlash
from unmask.decoding.transformers_generate import TransformersGenerate
from unmask.decoding.unmasking import Unmasking
from unmask.models.random_weights import parameters_of, random_config, random_model
from unmask.models.settings import RandomModel

SHAPE = {"width": 64, "depth": 2, "vocabulary": 512}


@pytest.fixture(scope="module")
def models():
    layouts = {"denoiser": "Dream", "auxiliary": "qwen2"}
    return Models(
        {
            role: random_model(RandomModel(name="random", layout=layout, **SHAPE)).eval()
            for role, layout in layouts.items()
        }
    )


@pytest.fixture(scope="module")
def target(models):
    """The causal one, as a target."""
    return Models({"target": models["auxiliary"]})


def arm(models, decoder, name="arm", batch_size=1, max_new_tokens=24, count=4):
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(500, (9 + i,), generator=generator) for i in range(count)]
    return Arm(name, decoder, models, prompts, Stop(), max_new_tokens, batch_size)


def test_a_race_takes_turns_and_counts_the_work(models):
    order = []

    class Traced(Arm):
        def answer(self, start, count):
            order.append((self.name, start, count))
            return super().answer(start, count)

    arms = [
        Traced(*vars(arm(models, APD(), name, batch_size)).values())
        for name, batch_size in (("one", 1), ("two", 2))
    ]
    rows = race(arms, rounds=2)
    assert order[:2] == [("one", 0, 3), ("two", 0, 3)]  # warm-up
    assert order[2:] == [("one", 0, 2), ("two", 0, 2), ("one", 2, 2), ("two", 2, 2)] * 2
    assert (rows.useful == 48).all() and (rows.answers == 2).all()
    answers = arms[0].answer(0, 4)
    mine = rows[rows.arm == "one"]
    for role in ("denoiser", "auxiliary"):
        assert mine[f"forwards {role}"].sum() == sum(g.forwards[role] for g in answers) * 2
        assert mine[f"positions {role}"].sum() == sum(g.positions[role] for g in answers) * 2
    # Steps and what is fed in them are those of the first role.
    assert (mine.steps == mine["forwards denoiser"]).all() and (mine.fed == mine["positions denoiser"]).all()
    assert mine.steps.sum() == sum(len(g.steps) for g in answers) * 2
    rows["seconds"] = rows.arm.map({"one": 2.0, "two": 1.0})
    assert ratio(rows, "two", "one").value == 2
    with pytest.raises(ValueError, match="multiple of the largest batch size, 3"):
        race([arm(models, APD(), batch_size=3)], 1)


def test_roles_that_an_arm_lacks_count_as_nothing(models, target):
    """And a step is a forward, whether it commits a token or not."""
    dream = arm(models, Unmasking(quota="dream"), "dream")
    rows = race([dream, arm(target, Autoregressive(), "target")], rounds=1)
    one, other = rows[rows.arm == "dream"], rows[rows.arm == "target"]
    assert (one.steps == 24).all() and (one["forwards target"] == 0).all()
    assert (other.steps == 24).all() and (other["forwards denoiser"] == 0).all()
    assert 0 in dream.answer(0, 1)[0].steps


def test_head_rows_follow_what_was_accepted_and_not_the_lookahead(models):
    lazy, eager = (arm(models, APD(temperature=1, chunk=chunk, mixture_weight=0)) for chunk in (4, None))
    assert [g.ids for g in lazy.answer(0, 4)] == [g.ids for g in eager.answer(0, 4)]
    shares, rows, _ = profiles._shares(lazy, 4)
    steps = [n for g in lazy.answer(0, 4) for n in g.steps]
    assert rows["denoiser"] <= sum(n + 4 for n in steps)
    assert rows["denoiser"] < 0.6 * profiles._shares(eager, 4)[1]["denoiser"]
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0


def test_flops_are_those_of_the_shapes(target):
    config, n = target["target"].config, 9
    width, inner, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    kv = width // config.num_attention_heads * config.num_key_value_heads
    per_token = 2 * config.num_hidden_layers * (2 * width * width + 2 * width * kv + 3 * width * inner)
    attention = 4 * config.num_hidden_layers * width * n * n
    one = arm(target, Autoregressive(), max_new_tokens=1)  # one forward: the prompt
    assert profiles._flops(one, 1) == n * per_token + attention + 2 * width * vocabulary


def test_the_ceiling_replays_every_forward_and_nothing_else(models, monkeypatch):
    seen = []
    handles = [
        m.register_forward_pre_hook(lambda module, args, kwargs: seen.append(id(module)), with_kwargs=True)
        for x in models.by_role.values()
        for m in (x.model, x.lm_head)
    ]
    racer = arm(models, APD(kv_window=4, max_lookahead=8), batch_size=4)
    racer.answer(0, 4)
    once, seen[:] = list(seen), []
    assert profiles._ceiling(racer, 4) > 0
    assert seen == once * (2 + profiles.REPEATS)  # recorded, warmed up, replayed
    for handle in handles:
        handle.remove()


def test_peak_memory_of_a_window_is_bounded(models):
    """The cache is allocated once: a windowed decoder holds little more than plain forwards do."""
    plain, window = (
        profiles._peak_memory(arm(models, APD(kv_window=w), max_new_tokens=128, count=1), 1)
        for w in (None, 8)
    )
    # Keys and values, layers, width, slots, bytes, both models (a generous bound).
    cache = 2 * 2 * 64 * (128 + 10) * 4 * 2
    assert 0 < window <= plain + cache


def test_transformers_generate_agrees_with_ours(target):
    racers = [arm(target, decoder, batch_size=4) for decoder in (TransformersGenerate(), Autoregressive())]
    theirs, ours = (racer.answer(0, 4) for racer in racers)
    assert [(g.ids, g.forwards, g.positions) for g in ours] == [
        (g.ids, g.forwards, g.positions) for g in theirs
    ]


def test_speed_is_tokens_over_seconds_and_ratios_are_paired_by_prompts():
    """As everywhere else. Rounds of the same prompts are no independent draws: they are added up first."""
    rows = [
        {"arm": arm, "round": turn, "block": block, "useful": 10, "seconds": seconds / speedup}
        for arm, speedup in (("slow", 1), ("fast", 3))
        for turn in range(2)
        for block, seconds in enumerate((1.0, 4.0, 5.0))
    ]
    rows = pd.DataFrame(rows)
    assert speed(rows, "slow").value == pytest.approx(60 / 20)
    assert speed(rows, "slow").low < 3 < speed(rows, "slow").high
    assert ratio(rows, "fast", "slow") == pytest.approx((3, 3, 3))  # however different the blocks are
    alone = rows[rows.block == 1]
    assert speed(alone, "slow") == pytest.approx((2.5, 2.5, 2.5))  # one block: the rounds


GIVEN = [  # a decoder that accepts; tokens of its steps on a canvas of 24 in blocks of 8, at 3 a step
    (Unmasking(quota="threshold", threshold=1.0, block_length=8), [3, 3, 2] * 3),
    (Unmasking(quota="threshold", threshold=1.0, block_length=8, cache="dual"), [1, 3, 3, 1] * 3),
    (Unmasking(rank="entropy", quota="threshold", threshold=0.0, block_length=24), [3] * 8),
    (Blocks(quota="dynamic", threshold=1.0, block_length=8), [3, 3, 2] * 3),
    (APD(mixture_weight=0.1), [3] * 8),
    (APD(mixture_weight=0.1, chunk=2, kv_window=4, max_lookahead=8), [3] * 8),
    (LeftRight(), [3] * 8),
]


@pytest.mark.parametrize(("decoder", "steps"), GIVEN, ids=lambda value: type(value).__name__)
def test_acceptance_can_be_given(models, decoder, steps):
    free, fixed = (arm(models, each).answer(0, 2) for each in (decoder, given(decoder, 3)))
    assert [g.steps for g in fixed] == [steps] * 2
    assert free[0].steps != steps  # what random weights accept
    assert all(g.commits == sorted(g.commits) for g in fixed)  # no gap: `tokens=` may end an answer anywhere
    # All else is done: the judge is fed every draft, and a step feeds as much as it did.
    if "auxiliary" in decoder.roles:
        assert all(g.forwards["auxiliary"] >= len(steps) for g in fixed)
    assert fixed[0].positions["denoiser"] / len(steps) <= 24 + 10


def test_a_chunk_follows_what_the_last_step_accepted(models):
    """Two chunks of 8 in the first step, then one of 11, then what is left."""
    fixed = arm(models, given(APD(mixture_weight=0.1, chunk=8), 10)).answer(0, 2)
    assert [g.steps for g in fixed] == [[10, 10, 4]] * 2
    assert [g.forwards["auxiliary"] for g in fixed] == [2 + 1 + 1] * 2


@pytest.mark.parametrize("block_length", [4, 16])
def test_acceptance_of_a_draft_can_be_given(target, block_length):
    shape = RandomModel(name="random", layout="dflash", width=64, depth=2, vocabulary=512)
    both = Models({"target": target["target"], "drafter": random_model(shape).eval()})
    for verify, temperature in (("exact", 0.0), ("sampled", 1.0)):
        decoder = DFlash(block_length=block_length, verify=verify, temperature=temperature)
        fixed = arm(both, given(decoder, 3)).answer(0, 2)
        assert [g.steps for g in fixed] == [[1, *[3] * 7, 2]] * 2  # the first step reads the prompt
        assert all(g.forwards == {"target": 9, "drafter": 8} for g in fixed)
        assert all(
            g.positions["drafter"] == sum(min(block_length, 23 - 3 * k) for k in range(8)) for g in fixed
        )


def test_a_decoder_that_accepts_nothing_is_refused():
    for decoder in (Autoregressive(), TransformersGenerate(), Unmasking(rank="random")):
        with pytest.raises(ValueError, match="acceptance=2: .* has none that could be given"):
            given(decoder, 2)


def test_the_laptop_bench_is_of_the_published_sizes():
    cfg = composed("bench", ["bench=laptop"])
    shapes = {"0.6B": 596_049_920, "0.5B": 494_032_768}
    for name, words in arm_settings(cfg).items():
        own = typed(composed("bench", ["bench=laptop", *words]))
        decoder = build_decoder(own.decoder)
        by_role = models_by_role(own, decoder)
        size = parameters_of(random_config(next(iter(by_role.values()))))
        assert size == shapes[name[:4]], name
        if own.acceptance:
            assert given(decoder, own.acceptance).acceptance == own.acceptance
        if "drafter" in by_role:
            assert by_role["drafter"].width == own.model.width and by_role["drafter"].depth == 5
        if "auxiliary" in by_role:
            assert parameters_of(random_config(by_role["auxiliary"])) == shapes["0.5B"]
        assert own.tokens <= own.task.max_new_tokens


@pytest.fixture
def run_bench(run_command):
    return lambda *arguments: run_command(bench, "threads=1", *arguments)


def test_bench_from_the_command_line(run_bench, tmp_path):
    tiny = [
        "model=random",
        "auxiliary=random_causal",
        "prompts=2",
        "rounds=2",
        "task.max_new_tokens=16",
        "prompt_length=9",
    ]
    tiny += [f"{role}.{key}={value}" for role in ("model", "auxiliary") for key, value in SHAPE.items()]
    code, out, err = run_bench(
        "bench=none", *tiny, '+arms={eager: "decoder.chunk=null", lazy: ""}', "tokens=8"
    )
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    assert list(report["arms"]) == ["eager", "lazy"] and report["arms"]["eager"]["ratio"][0] == 1
    lazy = report["arms"]["lazy"]
    assert 0 < lazy["head_rows_per_step"]["denoiser"] <= 16 and lazy["per_answer"]["positions denoiser"] > 0
    assert "everything" in out

    words = ["auxiliary=random_causal", *tiny[2:], "profile=memory", "acceptance=2", "rounds=1"]
    code, out, err = run_bench("bench=none", "model=random", *words, "+arms={apd: {}}")
    assert code == 0, err
    (apd,) = json.loads(out.splitlines()[-1])["arms"].values()
    assert apd["tokens_per_step"] == 2 and apd["peak_mb"] > 0 and "shares" not in apd and "peak MB" in out

    output = tmp_path / "growth.json"
    code, out, err = run_bench("bench=growth", *tiny, "points=[16,32]", "tokens=4", f"report={output}")
    assert code == 0, err
    assert output.with_suffix(".png").stat().st_size > 10_000 and output.with_suffix(".csv").exists()
    rows = {
        (r["arm"], r["task.max_new_tokens"]): r["positions_per_step"]
        for r in json.loads(output.read_text())["rows"]
    }
    assert rows["W = none, M = none", 32] > 1.5 * rows["W = none, M = none", 16]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["model=random", "auxiliary=random_causal", "model.width=100"], "multiple of 64"),
        (["model=random", "auxiliary=random_causal", "model.layout=gpt"], "layout=gpt must be one of"),
        (["model=random"], "auxiliary=tiny_qwen: model=random goes with auxiliary=random_causal"),
        (["bench=none"], "nothing to compare"),
        (["model=random", "auxiliary=random_causal", "acceptance=0"], "acceptance=0"),
        (["model=random", "auxiliary=random_causal", "profile=all"], "profile=all: must be"),
        (
            [
                "model=random_causal",
                "decoder=dflash",
                "drafter=random_drafter",
                "bench=none",
                "+arms={a: {}}",
            ],
            "drafter.width=512 must be the target's 256",
        ),
        (
            ["model=random_causal", "decoder=dflash", "drafter=tiny_dflash", "bench=none", "+arms={a: {}}"],
            "goes with drafter=random_drafter",
        ),
        (["sweep=batch_size"], "go together"),
        (["rounds=0"], "rounds=0"),
        (["report=README.md/x"], "report=README.md/x: must be the name of a file"),
        (["bench=none", '+arms={a: "decoder.mixture_weight=2"}'], "must lie in [0, 1]"),
    ],
)
def test_bad_input_is_one_line(run_bench, arguments, message):
    code, _, err = run_bench(*arguments)
    assert code == 2 and message in err and "Traceback" not in err
