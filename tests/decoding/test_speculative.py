"""Draft and verify: the target's ids, the target's law, and the drafter's published layout and numbers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config

from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.cache import SlotCache
from unmask.decoding.speculative import DFlash, Speculative
from unmask.decoding.transformers_generate import TransformersAssisted, TransformersDFlash
from unmask.models.drafter import DFlashDraftModel, is_drafter
from unmask.testing.small_models import small_drafter

TRACES = Path(__file__).parents[1] / "golden" / "traces"
PROMPTS = [torch.tensor(ids) for ids in ([1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13, 0], [2])]
BUDGET = 13


@pytest.fixture(scope="module")
def drafter():
    """A random drafter of `qwen`, which has two layers and a width of 32."""
    return small_drafter()


@pytest.fixture(scope="module")
def narrow():
    """One that can draft six ids alone."""
    drafter = small_drafter(draft_vocab_size=6)
    drafter.draft_ids.copy_(torch.tensor([9, 2, 5, 1, 11, 3]))
    return drafter


@pytest.fixture(scope="module")
def small(lab):
    """A causal drafter that is often right: the target with its head disturbed."""

    def build(qwen):
        torch.manual_seed(6)
        model = AutoModelForCausalLM.from_config(qwen.config).eval().requires_grad_(False)
        model.load_state_dict(qwen.state_dict())
        model.lm_head.weight += 0.15 * torch.randn_like(model.lm_head.weight)
        return model

    return build


@pytest.fixture
def cast(lab, qwen, drafter, small):
    """Models for a drafting decoder."""

    def models(decoder):
        block = isinstance(decoder, DFlash | TransformersDFlash)
        other = drafter if block else small(qwen)
        return lab.Roles({"target": qwen, "drafter": other})

    return models


@pytest.mark.parametrize("block_length", [1, 2, 4, 7, 40])
@pytest.mark.parametrize("kind", [DFlash, Speculative])
def test_greedy_ids_are_the_targets_own(lab, qwen, cast, kind, block_length):
    """In a batch of several lengths, each row at its own pace, up to the canvas's end or an end token."""
    decoder = kind(block_length=block_length)
    for stop in (lab.Stop(), lab.Stop(frozenset({lab.EOS, 5}))):
        ours = decoder.decode(cast(decoder), PROMPTS, BUDGET, stop, [0] * 4)
        theirs = Autoregressive().decode(lab.Models(qwen), PROMPTS, BUDGET, stop, [0] * 4)
        for one, other in zip(ours, theirs, strict=True):
            end = other.useful + (other.finish == "stop")
            assert one.ids[:end] == other.ids[:end] and (one.useful, one.finish) == (
                other.useful,
                other.finish,
            )
            assert one.forwards["target"] <= other.forwards["target"]
        if block_length > 2 and kind is Speculative:
            assert sum(g.forwards["target"] for g in ours) < sum(g.forwards["target"] for g in theirs)


def test_a_draft_vocabulary_changes_what_is_drafted_alone(lab, qwen, cast, narrow):
    """Logits of its ids are the whole head's, no other id is drafted, and the answer is the target's."""
    hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    logits, whole = narrow.logits(hidden, qwen.lm_head), qwen.lm_head(hidden)
    torch.testing.assert_close(logits[..., narrow.draft_ids], whole[..., narrow.draft_ids])
    assert logits.shape == whole.shape and (logits > -torch.inf).sum() == 2 * 3 * 6
    decoder, drafts = DFlash(block_length=4), []
    ours = decoder.decode(
        lab.Roles({"target": qwen, "drafter": narrow}),
        PROMPTS,
        BUDGET,
        lab.Stop(),
        [0] * 4,
        observer=lambda row, *_: drafts.extend(row.drafted or []),
    )
    theirs = Autoregressive().decode(lab.Models(qwen), PROMPTS, BUDGET, lab.Stop(), [0] * 4)
    assert [g.ids for g in ours] == [g.ids for g in theirs]
    assert set(drafts) <= set(narrow.draft_ids.tolist()) and len(set(drafts)) > 1


@pytest.mark.parametrize(
    ("kind", "verify", "vocabulary"),
    [
        (DFlash, "exact", "whole"),
        (DFlash, "sampled", "whole"),
        (DFlash, "sampled", "narrow"),
        (Speculative, "exact", "whole"),
        (Speculative, "sampled", "whole"),
    ],
)
def test_samples_follow_the_targets_law(lab, qwen, cast, narrow, kind, verify, vocabulary):
    """All pairs of a second and third token after a fixed first one, against enumeration."""
    prompt, n = torch.tensor([3, 1]), 3000
    decoder = kind(block_length=3, temperature=1.3, verify=verify, top_k=3)
    models = cast(decoder) if vocabulary == "whole" else lab.Roles({"target": qwen, "drafter": narrow})
    generations = decoder.decode(models, [prompt] * n, 3, lab.Stop(), range(n))
    found: dict[tuple, int] = {}
    for generation in generations:
        found[tuple(generation.ids)] = found.get(tuple(generation.ids), 0) + 1

    def law(ids):
        scores = decoder.scores(qwen(torch.tensor([ids])).logits[0, -1].double())
        return {t: p for t, p in enumerate(scores.softmax(-1).tolist()) if p > 0}

    expected = {}
    for first, p in law([3, 1]).items():
        for second, q in law([3, 1, first]).items():
            for third, r in law([3, 1, first, second]).items():
                expected[first, second, third] = p * q * r
    assert set(found) <= set(expected)
    # Answers that are expected less than 5 times are one cell: chi-squared holds for no rarer ones.
    often = [answer for answer, share in expected.items() if n * share >= 5]
    seldom = [answer for answer in expected if answer not in often]
    cells = [[answer] for answer in often] + ([seldom] if seldom else [])
    observed = [sum(found.get(answer, 0) for answer in cell) for cell in cells]
    assert lab.law_pvalue(observed, [sum(expected[answer] for answer in cell) for cell in cells]) > 1e-4


def test_acceptance_is_what_makes_it_fast(lab, qwen):
    """A drafter that is the target itself: every block is accepted whole."""
    models = lab.Roles({"target": qwen, "drafter": qwen})
    generation, steps = lab.trace(Speculative(block_length=4), models, [1, 2, 3], 13, stop=())
    assert [len(ids) for _, ids in steps] == [1, 4, 4, 4]
    assert generation.forwards == {"target": 4, "drafter": 9}


def test_both_models_are_counted_and_the_drafters_context_is_no_forward(lab, cast):
    decoder = DFlash(block_length=4)
    models = cast(decoder)
    hooks = {role: lab.Hook(models[role]) for role in decoder.roles}
    (generation,) = decoder.decode(models, PROMPTS[:1], BUDGET, lab.Stop(), [0])
    for role, hook in hooks.items():
        hook.handle.remove()
        assert generation.forwards[role] == hook.forwards
    assert generation.forwards["drafter"] in (
        generation.forwards["target"] - 1,
        generation.forwards["target"] - 2,
    )
    assert generation.positions["target"] == hooks["target"].positions


# The drafter


@pytest.mark.parametrize("block", [4, 8])
def test_forwards_are_the_published_ones(block):
    tensors = load_file(TRACES / "dflash_forward.safetensors")
    target = AutoModelForCausalLM.from_pretrained(TRACES / "qwen3_target").eval()
    drafter = DFlashDraftModel.from_pretrained(TRACES / "dflash_drafter").eval()
    prompt = tensors[f"B{block}.prompt"].long()
    features = [tensors[f"B{block}.cycle{c}.features"] for c in (0, 1)]
    with torch.inference_mode():
        hidden = target(prompt[None], output_hidden_states=True).hidden_states
        torch.testing.assert_close(drafter.features(hidden)[0], features[0], atol=1e-4, rtol=1e-4)
        cache, start = SlotCache(1, 64), 0
        for cycle in (0, 1):
            at = {
                name: tensors[f"B{block}.cycle{cycle}.{name}"] for name in ("block", "hidden", "draft_logits")
            }
            known = start + len(features[cycle])
            columns = torch.arange(start, known)[None]
            cache.write_at(torch.arange(1), columns, 0)
            for layer, (keys, values) in enumerate(drafter.context(features[cycle][None], columns)):
                cache.update(keys, values, layer)
            behind = torch.arange(known, known + block)[None]
            assert torch.equal(
                tensors[f"B{block}.cycle{cycle}.position_ids"].long(), torch.cat((columns, behind), 1)[0]
            )
            cache.write_at(torch.arange(1), behind, known + block)
            masked = at["block"].long()[None]
            assert masked[0, 1:].tolist() == [drafter.mask_token_id] * (block - 1)
            out = drafter(masked, target.get_input_embeddings(), behind, None, cache, True)
            torch.testing.assert_close(out[0], at["hidden"], atol=1e-4, rtol=1e-4)
            logits = target.lm_head(out[0, 1:])
            torch.testing.assert_close(logits, at["draft_logits"], atol=1e-3, rtol=1e-4)
            start = known


def published(width, inner):
    """{name: shape} of z-lab/Qwen3-4B-DFlash-b16 and its 8B sister."""
    found = {"fc.weight": (width, 5 * width), "hidden_norm.weight": (width,), "norm.weight": (width,)}
    for i in range(5):
        layer = f"layers.{i}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{layer}.{name}.weight"] = (width,)
        for name, shape in (
            ("q_proj", (4096, width)),
            ("k_proj", (1024, width)),
            ("v_proj", (1024, width)),
            ("o_proj", (width, 4096)),
            ("q_norm", (128,)),
            ("k_norm", (128,)),
        ):
            found[f"{layer}.self_attn.{name}.weight"] = shape
        for name, shape in (
            ("gate_proj", (inner, width)),
            ("up_proj", (inner, width)),
            ("down_proj", (width, inner)),
        ):
            found[f"{layer}.mlp.{name}.weight"] = shape
    return found


@pytest.mark.parametrize(
    ("width", "inner", "parameters"), [(2560, 9728, 537_427_200), (4096, 12288, 1_048_626_432)]
)
def test_published_names_and_shapes(width, inner, parameters):
    config = AutoConfig.for_model(
        "qwen3",
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=5,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        architectures=["DFlashDraftModel"],
        block_size=16,
        num_target_layers=36,
        dflash_config={"mask_token_id": 151669, "target_layer_ids": [1, 9, 17, 25, 33]},
    )
    assert is_drafter(config)
    with torch.device("meta"):
        model = DFlashDraftModel(config)
    found = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    assert found == published(width, inner) and len(found) == 58
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_another_layout_is_refused():
    config = Qwen3Config(architectures=["Qwen3DSparkModel"])
    with pytest.raises(ValueError, match="Qwen3DSparkModel.*its anchor's position predicts"):
        is_drafter(config)
    assert not is_drafter(Qwen3Config())


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dflash_config": None}, "target_layer_ids"),
        ({"dflash_config": {"target_layer_ids": [-2, 1], "mask_token_id": 3}}, "target_layer_ids"),
        ({"dflash_config": {"target_layer_ids": [1], "mask_token_id": 99}}, "mask_token_id"),
        ({"block_size": None}, "block_size"),
        ({"draft_vocab_size": 0}, "draft_vocab_size"),
        ({"draft_vocab_size": 41}, "draft_vocab_size"),
        ({"layer_types": ["sliding_attention"]}, "layer_types"),
    ],
)
def test_a_config_that_makes_no_drafter_is_refused(changes, what):
    fields = {"block_size": 4, "num_target_layers": 2, "vocab_size": 40, "num_hidden_layers": 1}
    fields["dflash_config"] = {"target_layer_ids": [0, 1], "mask_token_id": 39}
    assert is_drafter(Qwen3Config(architectures=["DFlashDraftModel"], **fields))
    with pytest.raises(ValueError, match=f"{what} is missing or cannot be used"):
        is_drafter(Qwen3Config(architectures=["DFlashDraftModel"], **(fields | changes)))


# transformers' own loops


@pytest.mark.parametrize("block_length", [2, 4])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(DFlash, TransformersDFlash), (Speculative, TransformersAssisted)]
)
def test_transformers_own_loop_gives_the_same_ids(lab, qwen, cast, ours, theirs, block_length):
    """An oracle that nobody here wrote, counted by hooks."""
    for prompt in PROMPTS:
        for stop in (lab.Stop(), lab.Stop(frozenset({lab.EOS, 5}))):
            decoder, other = ours(block_length=block_length), theirs(block_length=block_length)
            (one,) = decoder.decode(cast(decoder), [prompt], BUDGET, stop, [0])
            (two,) = other.decode(cast(decoder), [prompt], BUDGET, stop, [0])
            (greedy,) = Autoregressive().decode(lab.Models(qwen), [prompt], BUDGET, stop, [0])
            end = greedy.useful + (greedy.finish == "stop")
            assert two.ids[:end] == greedy.ids[:end] == one.ids[:end]
            assert two.useful == one.useful and two.finish == one.finish
            # (Theirs drafts before it has read the prompt, and blocks do not shrink at the end.)
            assert abs(two.forwards["target"] - one.forwards["target"]) <= 2


@pytest.mark.parametrize("theirs", [TransformersDFlash, TransformersAssisted])
def test_transformers_own_loop_ends_at_a_stop_string(lab, qwen, cast, theirs):
    stop = lab.Stop(match=lambda ids, known=0: 3 if len(ids) >= 3 else None)
    decoder = theirs(block_length=2)
    (generation,) = decoder.decode(cast(decoder), PROMPTS[:1], BUDGET, stop, [0])
    assert (generation.useful, generation.finish) == (3, "stop") and len(generation.ids) <= 4


def test_a_model_that_drafts_for_its_twin_is_counted_once_for_each_role(lab, qwen):
    twin = AutoModelForCausalLM.from_config(qwen.config).eval().requires_grad_(False)
    twin.load_state_dict(qwen.state_dict())
    decoder = TransformersAssisted(block_length=4)
    models = lab.Roles({"target": qwen, "drafter": twin})
    (generation,) = decoder.decode(models, PROMPTS[:1], 12, lab.Stop(), [0])
    assert generation.forwards["target"] <= 5 and generation.forwards["drafter"] >= 9
