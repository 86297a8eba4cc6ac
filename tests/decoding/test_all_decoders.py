"""What every decoder promises, whatever it does: stops, counts, batches, seeds, settings."""

from dataclasses import replace

import pytest
import torch

from unmask.decoding.apd import APD
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.blocks import Blocks
from unmask.decoding.leftright import LeftRight
from unmask.decoding.memory import Credit, Klass
from unmask.decoding.pc_sampler import PCSampler
from unmask.decoding.pipeline import D2F, MultiBlock, Pipeline
from unmask.decoding.prophet import Prophet
from unmask.decoding.slowfast import SlowFast
from unmask.decoding.speculative import DFlash, Speculative
from unmask.decoding.unmasking import Unmasking
from unmask.testing.check import check_decoder

BUDGET = 12
DECODERS = {
    "autoregressive": Autoregressive(),
    "leftright": LeftRight(),
    "leftright-3": LeftRight(tokens_per_step=3, max_lookahead=7),
    "leftright-window": LeftRight(tokens_per_step=2, kv_window=3),
    "apd": APD(mixture_weight=0.8),
    "apd-window": APD(mixture_weight=0.8, kv_window=2, max_lookahead=5),
    "apd-published": APD(mixture_weight=0.8, coupling="argmax"),
    "random": Unmasking(rank="random", steps=5),
    "random-dream": Unmasking(rank="random", quota="dream"),
    "random-origin": Unmasking(rank="random", quota="origin", block_length=6),
    "confidence": Unmasking(block_length=4, steps=7),
    "margin": Unmasking(rank="margin", rank_tempered=False),
    "entropy-dream": Unmasking(rank="entropy", quota="dream", steps=8),
    "threshold": Unmasking(quota="threshold", threshold=0.7, block_length=6),
    "factor": Unmasking(quota="factor", factor=0.6),
    "dparallel": Unmasking(rank="entropy", quota="threshold", threshold=1.0, block_length=4),
    "entropy-bound": Unmasking(rank="entropy", quota="entropy_bound", bound=2.0, block_length=6),
    "hierarchy": Unmasking(quota="hierarchy", threshold=0.8, low_threshold=0.2, block_length=6),
    "credit": Credit(threshold=0.7, block_length=6),
    "credit-dual": Credit(threshold=0.7, block_length=4, cache="dual"),
    "klass": Klass(threshold=0.2, kl_threshold=0.5),
    "dkv": Unmasking(block_length=6, steps=9, cache="decoded", refresh_interval=4),
    "prefix": Unmasking(quota="threshold", threshold=0.6, block_length=4, cache="prefix"),
    "dual": Unmasking(rank="entropy", quota="dream", steps=9, block_length=4, cache="dual"),
    "d2f": D2F(block_length=4, skip_threshold=0.6, block_add_threshold=0.25, decoded_token_threshold=0.5),
    "d2f-uncached": D2F(block_length=5, skip_threshold=0.6, cache="off", fallback="margin"),
    "blocks": Blocks(block_length=4, steps_per_block=3),
    "multiblock": MultiBlock(block_length=4, entropy_max=1.0),
    "multiblock-delayed": MultiBlock(block_length=3, entropy_max=1.0, cache="delayed", refresh_interval=4),
    "random-dual": Unmasking(rank="random", steps=9, block_length=6, cache="dual"),
}
BESIDES = {  # whose forwards do more than those of the others: check_decoder is for them, too
    "klass-blocks": Klass(threshold=0.2, kl_threshold=2.0, history_length=1, block_length=4, steps=6),
    "prophet": Prophet(answer_start=3, early=2.5, mid=2.0, late=1.5, block_length=6),
    "prophet-constraints": Prophet(
        answer_start=8, early=3.0, constraints=[[5, 6], [3, 4]], steps=8, block_length=4, empty_steps=True
    ),
    "slowfast": SlowFast(exploration_steps=2, cycle_confidence=0.3, high_confidence=0.5),
    "slowfast-blocks": SlowFast(block_length=6, high_confidence=0.3, window=1, whole_exploration=True),
    "pc_sampler": PCSampler(frequencies="checkpoints/token_counts.json", block_length=6, steps=8),
    "decoded-threshold": Unmasking(
        quota="threshold", threshold=0.5, block_length=6, cache="decoded", refresh_interval=3
    ),
    "dual-renewed": Unmasking(block_length=6, cache="dual", refresh_interval=2),
    "klass-calmest": Klass(threshold=0.2, kl_threshold=2.0, unmask_strategy="min_kl", block_length=6),
}
DRAFTING = {
    "speculative": Speculative(block_length=3),
    "speculative-sampled": Speculative(verify="sampled"),
    "dflash": DFlash(block_length=4),
    "dflash-sampled": DFlash(verify="sampled"),
}


@pytest.mark.parametrize("name", [*DECODERS, *BESIDES, *DRAFTING])
def test_it_keeps_what_every_decoder_promises(name):
    """Seeds, batches, counts, commits, stops, masks, sampling settings, losslessness."""
    check_decoder((DECODERS | BESIDES | DRAFTING)[name], BUDGET)


@pytest.fixture(params=DECODERS)
def decoder(request):
    return DECODERS[request.param]


@pytest.fixture(params=[0.0, 0.7])
def temperature(request):
    return request.param


def may_commit_nothing(decoder):
    """Whether its schedule has forwards that commit no token."""
    if isinstance(decoder, MultiBlock):  # what stood right of an end token may have been all of a step
        return True
    return isinstance(decoder, Unmasking) and decoder.quota in ("dream", "origin")


@pytest.fixture
def models(lab, decoder, denoiser, qwen):
    """Small random models: Dream or LLaDA, and Qwen2."""
    return lab.models_for(decoder, denoiser, qwen)


@pytest.fixture
def write(lab, decoder):
    """Models that write these tokens, whatever the prompt of two: write(tokens)."""

    def build(*tokens, strength=5.0):
        logits = lab.favourites(*tokens, strength=strength)

        def causal(ids):
            following = torch.arange(len(ids)) - 1  # row i predicts token i + 1, canvas position i - 1
            return logits[following.clamp(0, len(tokens) - 1)]

        denoiser = lab.Scripted(lab.on_canvas(logits), lab.MASK)
        return lab.models_for(decoder, denoiser, lab.Scripted(causal))

    return build


def check_totals(decoder, generation, max_new_tokens):
    assert list(generation.forwards) == list(generation.positions) == list(decoder.roles)
    assert len(generation.ids) == sum(step >= 0 for step in generation.commits) <= max_new_tokens
    assert len(generation.commits) <= max_new_tokens and (not generation.ids or generation.commits[-1] >= 0)
    assert 0 <= generation.useful <= len(generation.ids)
    for role, forwards in generation.forwards.items():
        assert forwards <= max_new_tokens and forwards <= generation.positions[role]
    # The first role's forwards are the steps, and the last one of them ended the answer.
    steps = generation.steps
    assert next(iter(generation.forwards.values())) == len(steps) == max(generation.commits) + 1
    assert sum(steps) == len(generation.ids) and (all(steps) or may_commit_nothing(decoder))
    assert generation.seconds > 0


def test_commits_are_what_the_observer_sees(lab, decoder, models, temperature):
    decoder = replace(decoder, temperature=temperature)
    generation, steps = lab.trace(decoder, models, [1, 2, 3], BUDGET, stop=(lab.EOS, 5), seed=3)
    commits, canvas = [-1] * BUDGET, {}
    for number, (positions, ids) in enumerate(steps):
        for position, token in zip(positions, ids, strict=True):
            assert position not in canvas or (isinstance(decoder, MultiBlock) and token in (lab.EOS, 5))
            commits[position], canvas[position] = number, token
    assert generation.commits == commits[: max(canvas) + 1]
    assert generation.ids == [canvas[position] for position in sorted(canvas)]
    if not isinstance(decoder, MultiBlock):  # which may write a position again
        assert generation.steps == [len(positions) for positions, _ in steps]
    check_totals(decoder, generation, BUDGET)


def test_a_stop_id_in_the_prompt_changes_nothing(lab, decoder, write):
    without, steps = lab.trace(decoder, write(*range(BUDGET)), [0, 1], BUDGET)
    within, same = lab.trace(decoder, write(*range(BUDGET)), [lab.EOS, lab.EOS], BUDGET)
    assert lab.essence(within) == lab.essence(without) and steps == same
    assert within.ids == list(range(BUDGET)) and within.finish == "length" and within.useful == BUDGET


@pytest.mark.parametrize("at", [0, 5, BUDGET - 1])
def test_decoding_ends_when_all_left_of_a_stop_is_committed(lab, decoder, write, at):
    tokens = list(range(BUDGET))
    tokens[at] = lab.EOS
    generation, steps = lab.trace(decoder, write(*tokens), [0, 1], BUDGET)
    assert (generation.finish, generation.useful) == ("stop", at)
    assert generation.ids[: at + 1] == tokens[: at + 1]
    needed = set(range(at + 1))
    for positions, _ in steps:
        assert needed  # the step was necessary
        needed -= set(positions)
    assert not needed
    check_totals(decoder, generation, BUDGET)


def test_a_text_stop_ends_decoding_as_an_id_does(lab, decoder, models, temperature):
    decoder = replace(decoder, temperature=temperature)
    full, all_steps = lab.trace(decoder, models, [1, 2, 3], BUDGET, stop=(), seed=5)
    needle = full.ids[4:6]

    def match(ids, known=0):
        return next((i for i in range(len(ids) - 1) if list(ids[i : i + 2]) == needle), None)

    generation, steps = lab.trace(decoder, models, [1, 2, 3], BUDGET, stop=lab.Stop(match=match), seed=5)
    assert (generation.finish, generation.useful) == ("stop", match(full.ids))
    assert steps == all_steps[: len(steps)]
    needed = set(range(generation.useful + 2))
    for positions, _ in steps:
        assert needed
        needed -= set(positions)
    assert not needed


def test_only_wanted_positions_go_through_the_head(lab, decoder, models):
    rows = []
    handle = models.main.lm_head.register_forward_pre_hook(
        lambda _, args: rows.append(args[0].shape[:-1].numel())
    )
    _, steps = lab.trace(decoder, models, [1, 2, 3], BUDGET, stop=())
    handle.remove()
    committed = [len(positions) for positions, _ in steps]
    if isinstance(decoder, Autoregressive | LeftRight) or getattr(decoder, "rank", None) == "random":
        assert rows == [n for n in committed if n]
    else:  # all masks that compete for this step, none of the prompt or of what is committed
        left = [BUDGET - sum(committed[:i]) for i in range(len(committed))]
        if isinstance(decoder, APD):  # chunk by chunk
            assert sum(rows) <= sum(
                min(most, n + decoder.chunk) for most, n in zip(left, committed, strict=True)
            )
        elif isinstance(decoder, Pipeline):  # those of begun blocks
            assert all(most >= n >= done for most, n, done in zip(left, rows, committed, strict=True))
            assert rows[0] == min(decoder.block_length, BUDGET)
        else:
            block = decoder.block_length or BUDGET
            wanted = [n - (n - 1) // block * block for n in left]
            # A block's first token, alone.
            if decoder.cache in ("prefix", "dual") and models.main.lookback:
                wanted = [1 if n % block == 0 else most for n, most in zip(left, wanted, strict=True)]
            assert rows == wanted


# Settings

NUMBERS = {  # setting -> values that it must refuse
    "tokens_per_step": (0, -3, 1.5, "a", True),
    "max_lookahead": (0, -1, 2.5, "8", True),
    "kv_window": (0, -1, 0.5, "8", True),
    "chunk": (0, -1, 1.5, "a", True),
    "mixture_weight": (-0.1, 1.1, float("nan"), "a", None, True),
    "coupling": ("gumble", None, 1),
    "rank": ("sure", None),
    "quota": ("origins", None, "confidence"),
    "steps": (0, -1, 1.5, "a", True),
    "block_length": (0, -1, 1.5, "a", True),
    "rank_tempered": (None, 1, "false"),
    "cache": (None, "both", True),
    "after_end": (None, "stop", False),
    "end_rule": (None, "first", True),
    "block_add_threshold": (-0.1, 1.1, float("nan"), "a", None, True),
    "decoded_token_threshold": (-0.1, 1.1, float("nan"), "a", None, True),
    "skip_threshold": (-0.1, 1.1, float("nan"), "a", None, True),
    "fallback": ("entropy", None),
    "entropy_max": (-0.1, float("nan"), float("inf"), "a", None, True),
    "rule": ("fast", 1),
    "cache_delay_iter": (0, 1.5, "a", True),
    "refresh_interval": (0, 1.5, "a", True),
    "published_shift": (None, 1, "false"),
    "low_threshold": (-0.1, 1.1, float("nan"), "a", True),
    "alpha": (-0.1, float("inf"), "a", None, True),
    "beta": (-0.1, float("nan"), "a", None, True),
    "gamma": (-0.1, float("nan"), "a", None, True),
    "kl_threshold": (-0.1, float("nan"), "a", None, True),
    "history_length": (0, -1, 1.5, "a", None, True),
    "unmask_strategy": ("some", None),
    "answer_start": (-1, 1.5, "a", True),
    "early": (float("nan"), float("inf"), "a", None, True),
    "mid": (float("nan"), "a", None, True),
    "late": (float("nan"), "a", None, True),
    "empty_steps": (None, 1, "false"),
    "exploration_steps": (0, 1.5, "a", None, True),
    "cycle_confidence": (-0.1, 1.1, float("nan"), "a", None, True),
    "high_confidence": (-0.1, 1.1, float("nan"), "a", None, True),
    "window": (0, 1.5, "a", None, True),
    "std_dev": (-0.1, float("nan"), "a", None, True),
    "whole_exploration": (None, 1, "false"),
    "temperature": (1e-300, -0.1, float("nan"), float("inf"), "a", None, True),
    "top_p": (0.0, 1.1, -1.0, float("nan"), "a", None, True),
    "top_k": (0, 2.5, "a", True),
}


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (cls, name, value)
        for cls in (
            *(Autoregressive, LeftRight, APD, Unmasking, D2F, MultiBlock),
            *(Credit, Klass, Prophet, SlowFast),
        )
        for name, values in NUMBERS.items()
        if name in cls.__dataclass_fields__
        for value in values
    ],
)
def test_a_bad_setting_is_named(cls, name, value):
    with pytest.raises(ValueError, match=name):
        cls(**{name: value})


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "a", True])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("threshold", {"quota": "threshold"}),
        ("factor", {"quota": "factor"}),
        ("bound", {"quota": "entropy_bound", "rank": "entropy"}),
    ],
)
def test_a_bad_limit_is_named(name, settings, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        Unmasking(**settings, **{name: value})


def test_a_threshold_has_the_range_of_its_rank():
    for rank in ("confidence", "margin"):
        Unmasking(rank=rank, quota="threshold", threshold=1).check(8)
        with pytest.raises(ValueError, match="threshold=1.01.*from 0 to 1"):
            Unmasking(rank=rank, quota="threshold", threshold=1.01)
    nats = Unmasking(rank="entropy", quota="threshold", threshold=2.8)
    nats.check(8, vocabulary=17)
    with pytest.raises(ValueError, match=r"threshold=2.8.*over 16 tokens is above 2\.77"):
        nats.check(8, vocabulary=16)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"quota": "threshold"}, "threshold=None"),
        ({"quota": "factor"}, "factor=None"),
        ({"threshold": 0.9}, "threshold=0.9"),
        ({"factor": 1.0}, "factor=1.0"),
        ({"quota": "factor", "factor": 1.0, "threshold": 0.9}, "threshold=0.9"),
        ({"quota": "factor", "factor": 1.0, "rank": "entropy"}, "rank=confidence"),
        ({"quota": "published_factor", "factor": 1.0, "rank": "margin"}, "rank=confidence"),
        ({"quota": "entropy_bound", "bound": 1.0}, "rank=entropy"),
        ({"quota": "entropy_bound", "rank": "entropy"}, "bound=None"),
        ({"quota": "threshold", "threshold": 0.9, "rank": "random"}, "rank=random"),
        ({"quota": "threshold", "threshold": 0.9, "steps": 4}, "steps=4"),
        ({"quota": "origin"}, "rank=random"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        Unmasking(**settings)


@pytest.mark.parametrize("rank", ["confidence", "margin", "entropy", "random"])
def test_a_setting_that_does_not_fit_the_budget_is_named(lab, dream, rank):
    for settings, name in (
        ({"block_length": 5}, "block_length"),
        ({"block_length": 24}, "block_length"),
        ({"block_length": 3, "steps": 3}, "steps"),
    ):
        decoder = Unmasking(rank=rank, **settings)
        with pytest.raises(ValueError, match=name):
            decoder.check(BUDGET)
        with pytest.raises(ValueError, match=name):
            lab.trace(decoder, lab.Models(dream), [1, 2], BUDGET)
    Unmasking(rank=rank, block_length=3, steps=4).check(BUDGET)


def test_a_causal_model_needs_a_prompt(lab, dream, qwen):
    for decoder, models in ((Autoregressive(), lab.Models(qwen)), (APD(), lab.Models(dream, qwen))):
        prompts = [torch.tensor([1]), torch.tensor([], dtype=torch.long)]
        with pytest.raises(ValueError, match="prompt"):
            decoder.decode(models, prompts, 4, lab.Stop(), [0, 0])


def test_a_denoiser_starts_from_an_empty_prompt(lab, denoiser):
    # Without a prompt all masks are equally sure, and rounding would choose among them: blocks of one token.
    unmasking = Unmasking(block_length=1)
    for decoder in (LeftRight(), LeftRight(tokens_per_step=2), LeftRight(kv_window=1), unmasking):
        prompts = [torch.tensor([], dtype=torch.long), torch.tensor([1, 2])]
        both = decoder.decode(lab.Models(denoiser), prompts, 6, lab.Stop(), [0, 0])
        (alone,) = decoder.decode(lab.Models(denoiser), prompts[:1], 6, lab.Stop(), [0])
        assert lab.essence(both[0]) == lab.essence(alone) and len(alone.ids) == 6
