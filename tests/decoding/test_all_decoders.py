"""What every decoder promises, whatever it does: stops, counts, batches, seeds, settings."""

from dataclasses import replace

import pytest
import torch

from unmask.decoding.apd import APD
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.confidence import Confidence
from unmask.decoding.entropy import Entropy
from unmask.decoding.leftright import LeftRight
from unmask.decoding.margin import Margin
from unmask.decoding.random_order import RandomOrder

BUDGET = 12
DECODERS = {
    "autoregressive": Autoregressive(),
    "leftright": LeftRight(),
    "leftright-3": LeftRight(tokens_per_step=3, max_lookahead=7),
    "leftright-window": LeftRight(tokens_per_step=2, kv_window=2),
    "apd": APD(mixture_weight=0.8),
    "apd-window": APD(mixture_weight=0.8, kv_window=1, max_lookahead=5),
    "apd-published": APD(mixture_weight=0.8, coupling="argmax"),
    "random-even": RandomOrder(steps=5),
    "random-origin": RandomOrder(schedule_kind="origin"),
    "confidence": Confidence(block_length=4, steps=7),
    "margin": Margin(),
    "entropy": Entropy(steps=8),
}
PROMPTS = [
    torch.tensor(ids) for ids in ([1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13, 0], [3, 1, 4, 1], [2, 2])
]
SEEDS = [11, 12, 13, 14, 15]


@pytest.fixture(params=DECODERS)
def decoder(request):
    return DECODERS[request.param]


@pytest.fixture(params=[0.0, 0.7])
def temperature(request):
    return request.param


def models_for(lab, decoder, denoiser, causal):
    return (
        lab.Models(causal)
        if decoder.causal
        else lab.Models(denoiser, causal if decoder.needs_auxiliary else None)
    )


@pytest.fixture
def models(lab, decoder, denoiser, qwen):
    """Small random models: Dream or LLaDA, and Qwen2."""
    return models_for(lab, decoder, denoiser, qwen)


@pytest.fixture
def write(lab, decoder):
    """Models that write these tokens, whatever the prompt of two: write(tokens)."""

    def build(*tokens, strength=5.0):
        logits = lab.favourites(*tokens, strength=strength)

        def causal(ids):
            following = torch.arange(len(ids)) - 1  # row i predicts token i + 1, canvas position i - 1
            return logits[following.clamp(0, len(tokens) - 1)]

        denoiser = lab.Scripted(lab.on_canvas(logits), lab.MASK)
        return models_for(lab, decoder, denoiser, lab.Scripted(causal))

    return build


def check_totals(lab, generation, budget):
    assert sum(generation.steps) == len(generation.ids) <= budget
    assert all(generation.steps)
    assert 0 <= generation.useful <= len(generation.ids)
    for role, forwards in generation.forwards.items():
        assert forwards <= budget and forwards <= generation.positions[role]
    main = generation.forwards.get("denoiser", generation.forwards.get("autoregressive"))
    assert main == len(generation.steps)
    assert generation.seconds > 0


def test_masks_never_come_out(lab, decoder, temperature, write):
    if decoder.causal:
        pytest.skip("a causal model has no mask")
    models = write(*[lab.MASK] * BUDGET, strength=50.0)
    decoder = replace(decoder, temperature=temperature)
    generation, _ = lab.trace(decoder, models, [0, 1], BUDGET, stop=())
    assert len(generation.ids) == BUDGET and lab.MASK not in generation.ids
    check_totals(lab, generation, BUDGET)


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
    check_totals(lab, generation, BUDGET)


def test_a_text_stop_ends_decoding_as_an_id_does(lab, decoder, models, temperature):
    decoder = replace(decoder, temperature=temperature)
    full, all_steps = lab.trace(decoder, models, [1, 2, 3], BUDGET, stop=(), seed=5)
    needle = full.ids[4:6]

    def match(ids):
        return next((i for i in range(len(ids) - 1) if list(ids[i : i + 2]) == needle), None)

    generation, steps = lab.trace(decoder, models, [1, 2, 3], BUDGET, stop=lab.Stop(match=match), seed=5)
    assert (generation.finish, generation.useful) == ("stop", match(full.ids))
    assert steps == all_steps[: len(steps)]
    needed = set(range(generation.useful + 2))
    for positions, _ in steps:
        assert needed
        needed -= set(positions)
    assert not needed


def test_a_row_does_not_know_its_neighbours(lab, decoder, models, temperature):
    decoder, stop = replace(decoder, temperature=temperature), lab.Stop(frozenset({lab.EOS, 5, 7}))
    alone = [
        lab.essence(decoder.decode(models, [prompt], BUDGET, stop, [seed])[0])
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    for shuffled in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1], [1, 4]):  # the last two are of one length: no padding
        prompts, seeds = [PROMPTS[i] for i in shuffled], [SEEDS[i] for i in shuffled]
        together = decoder.decode(models, prompts, BUDGET, stop, seeds)
        assert [lab.essence(g) for g in together] == [alone[i] for i in shuffled]
    assert len({str(g["ids"]) for g in alone}) >= 4
    if isinstance(decoder, Autoregressive | LeftRight) and temperature:
        assert len({len(g["steps"]) for g in alone}) > 1  # some leave the batch early


def test_seeds(lab, decoder, models):
    def decode(seed, **settings):
        return lab.essence(
            lab.trace(replace(decoder, **settings), models, [1, 2, 3], BUDGET, stop=(), seed=seed)[0]
        )

    assert decode(1, temperature=1.0) == decode(1, temperature=1.0)
    assert len({str(decode(seed, temperature=1.5)["ids"]) for seed in range(5)}) == 5
    if not isinstance(decoder, RandomOrder):
        assert decode(1) == decode(2)


def test_claimed_work_is_what_a_hook_sees(lab, decoder, models, temperature):
    decoder, stop = replace(decoder, temperature=temperature), lab.Stop(frozenset({lab.EOS}))
    roles = {"autoregressive" if decoder.causal else "denoiser": models.main}
    if decoder.needs_auxiliary:
        roles["auxiliary"] = models.auxiliary
    for n in (1, 5):
        hooks = {role: lab.Hook(model) for role, model in roles.items()}
        generations = decoder.decode(models, PROMPTS[:n], BUDGET, stop, SEEDS[:n])
        for hook in hooks.values():
            hook.handle.remove()
        for role, hook in hooks.items():
            assert sum(g.forwards.get(role, 0) for g in generations) == hook.rows
            assert sum(g.positions.get(role, 0) for g in generations) == hook.positions
            if n == 1:
                assert generations[0].forwards.get(role, 0) == hook.forwards
        assert not {role for g in generations for role in g.forwards} - set(roles)
        for generation in generations:
            check_totals(lab, generation, BUDGET)


def test_only_wanted_positions_go_through_the_head(lab, decoder, models):
    rows = []
    handle = models.main.lm_head.register_forward_pre_hook(
        lambda _, args: rows.append(args[0].shape[:-1].numel())
    )
    _, steps = lab.trace(decoder, models, [1, 2, 3], BUDGET, stop=())
    handle.remove()
    committed = [len(positions) for positions, _ in steps]
    if isinstance(decoder, Autoregressive | LeftRight | RandomOrder):
        assert rows == committed
    else:  # all masks that compete for this step, none of the prompt or of what is committed
        left = [BUDGET - sum(committed[:i]) for i in range(len(committed))]
        if isinstance(decoder, APD):  # chunk by chunk
            assert sum(rows) <= sum(
                min(most, n + decoder.chunk) for most, n in zip(left, committed, strict=True)
            )
        else:
            assert all(n <= most for n, most in zip(rows, left, strict=True))


# Settings


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        *((APD, "mixture_weight", value) for value in (-0.1, 1.1, float("nan"))),
        *((APD, "coupling", value) for value in ("gumble", None)),
        *((RandomOrder, "schedule_kind", value) for value in ("origins", None)),
        *((LeftRight, "tokens_per_step", value) for value in (0, -3, 1.5, "a")),
        *((cls, "max_lookahead", value) for cls in (LeftRight, APD) for value in (0, -1, 2.5, "8")),
        *((cls, "kv_window", value) for cls in (LeftRight, APD) for value in (-1, 0.5, "8")),
        *(
            (cls, name, value)
            for cls in (Confidence, Margin, Entropy, RandomOrder)
            for name in ("steps", "block_length")
            for value in (0, -1, 1.5, "a")
        ),
        *(
            (cls, name, value)
            for cls in (Autoregressive, LeftRight, APD, Confidence, Margin, Entropy, RandomOrder)
            for name, value in (
                ("temperature", -0.1),
                ("temperature", float("nan")),
                ("temperature", float("inf")),
                ("top_p", 0.0),
                ("top_p", 1.1),
                ("top_p", -1.0),
                ("top_k", 0),
                ("top_k", 2.5),
            )
        ),
    ],
)
def test_a_bad_setting_is_named(cls, name, value):
    with pytest.raises(ValueError, match=name):
        cls(**{name: value})


@pytest.mark.parametrize("cls", [Confidence, Margin, Entropy, RandomOrder])
def test_a_setting_that_does_not_fit_the_budget_is_named(lab, dream, cls):
    for settings, name in (
        ({"block_length": 5}, "block_length"),
        ({"block_length": 24}, "block_length"),
        ({"block_length": 3, "steps": 3}, "steps"),
    ):
        decoder = cls(**settings)
        with pytest.raises(ValueError, match=name):
            decoder.check(BUDGET)
        with pytest.raises(ValueError, match=name):
            lab.trace(decoder, lab.Models(dream), [1, 2], BUDGET)
    cls(block_length=3, steps=4).check(BUDGET)


def test_a_causal_model_needs_a_prompt(lab, dream, qwen):
    for decoder, models in ((Autoregressive(), lab.Models(qwen)), (APD(), lab.Models(dream, qwen))):
        with pytest.raises(ValueError, match="prompt"):
            decoder.decode(
                models, [torch.tensor([1]), torch.tensor([], dtype=torch.long)], 4, lab.Stop(), [0, 0]
            )


def test_a_denoiser_starts_from_nothing(lab, denoiser):
    for decoder in (LeftRight(), LeftRight(tokens_per_step=2), LeftRight(kv_window=0)):
        prompts = [torch.tensor([], dtype=torch.long), torch.tensor([1, 2])]
        both = decoder.decode(lab.Models(denoiser), prompts, 6, lab.Stop(), [0, 0])
        (alone,) = decoder.decode(lab.Models(denoiser), prompts[:1], 6, lab.Stop(), [0])
        assert lab.essence(both[0]) == lab.essence(alone) and len(alone.ids) == 6
