"""transformers' own loops: the ids of the autoregressive decoder, and costs that are what a hook sees."""

import pytest
import torch
from transformers import GenerationConfig

from unmask.decoding import Stop
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.transformers_generate import TransformersDiffusion, TransformersGenerate
from unmask.models.layouts import LAYOUTS
from unmask.paths import ROOT

PROMPTS = [torch.tensor(ids) for ids in ([1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13, 0], [3, 1, 4, 1])]
BUDGET = 12


class Fed:
    """What transformers feeds: forwards, and per row the positions that are not padding."""

    def __init__(self, model):
        self.forwards, self.positions = 0, 0
        self.handle = model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, model, args, kwargs):
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        self.forwards += 1
        self.positions += (torch.ones_like(ids) if mask is None else mask[:, -ids.size(1) :]).sum(1)


@pytest.fixture
def stop(lab, qwen):
    """End ids that end the rows at different positions."""
    stop = lab.Stop(frozenset({5, 8, 10}))
    useful = [g.useful for g in Autoregressive().decode(lab.Models(qwen), PROMPTS, BUDGET, stop, range(4))]
    assert len(set(useful)) > 2
    return stop


@pytest.mark.parametrize("n", [1, 4])
def test_claimed_work_is_what_a_hook_sees(lab, qwen, stop, n):
    hook = Fed(qwen)
    generations = TransformersGenerate().decode(lab.Models(qwen), PROMPTS[:n], BUDGET, stop, range(n))
    hook.handle.remove()
    assert [g.forwards for g in generations] == [{"target": hook.forwards}] * n
    assert [g.positions["target"] for g in generations] == hook.positions.tolist()
    # A row that has ended is fed padding until the last one has: its forwards count, and commit nothing.
    assert hook.forwards == max(len(g.ids) for g in generations)
    for generation in generations:
        assert generation.commits == list(range(len(generation.ids)))
        assert generation.steps == [1] * len(generation.ids) + [0] * (hook.forwards - len(generation.ids))


def test_ids_are_those_of_the_autoregressive_decoder(lab, qwen, stop):
    """A batch, and each row alone; alone, the costs are the same as well."""
    models, essences = lab.Models(qwen), []
    ours = Autoregressive().decode(models, PROMPTS, BUDGET, stop, range(4))
    theirs = TransformersGenerate().decode(models, PROMPTS, BUDGET, stop, range(4))
    for ours_row, theirs_row in zip(ours, theirs, strict=True):
        for name in ("ids", "commits", "useful", "finish"):
            assert getattr(ours_row, name) == getattr(theirs_row, name)
    for prompt in PROMPTS:
        essences += [
            lab.essence(decoder.decode(models, [prompt], BUDGET, stop, [0])[0])
            for decoder in (Autoregressive(), TransformersGenerate())
        ]
    assert essences[::2] == essences[1::2]
    assert TransformersGenerate.lossless and not Autoregressive.lossless


def test_the_models_own_generation_config_changes_nothing(lab, qwen, stop, monkeypatch):
    """Published checkpoints bring penalties, filters and end ids of their own."""
    own = GenerationConfig(
        repetition_penalty=1.5, do_sample=True, temperature=0.3, eos_token_id=[6, 7], min_new_tokens=6
    )
    monkeypatch.setattr(qwen, "generation_config", own)
    for some in (stop, Stop()):
        ours, theirs = (
            decoder.decode(lab.Models(qwen), PROMPTS, BUDGET, some, range(4))
            for decoder in (Autoregressive(), TransformersGenerate())
        )
        assert [g.ids for g in theirs] == [g.ids for g in ours]
    assert qwen.generation_config is own and own.repetition_penalty == 1.5


def test_a_text_stop_ends_generate(lab, qwen):
    models, prompt = lab.Models(qwen), [1, 2, 3]
    whole, _ = lab.trace(TransformersGenerate(), models, prompt, BUDGET, stop=())
    stop = Stop(match=lambda ids, known: 3 if len(ids) >= 5 else None)
    generation, steps = lab.trace(TransformersGenerate(), models, prompt, BUDGET, stop=stop)
    assert (generation.useful, generation.finish, generation.ids) == (3, "stop", whole.ids[:5])
    assert generation.forwards == {"target": 5} and whole.forwards == {"target": BUDGET}
    assert steps == [([i], [token]) for i, token in enumerate(whole.ids[:5])]


# DiffusionGemma (its published traces: tests/decoding/test_blocks.py)


@pytest.fixture(scope="module")
def gemma():
    """Canvases of 8."""
    folder = ROOT / "tests" / "golden" / "block_models" / "diffusion_gemma"
    return LAYOUTS["diffusion_gemma"].model.from_pretrained(folder).eval()


QUICK = {"max_denoising_steps": 4, "entropy_bound": 1.0}


def test_diffusion_gemmas_work_is_what_hooks_see(lab, gemma):
    fed = {"encoder": [], "decoder": []}
    hooks = [
        gemma.model.encoder.register_forward_pre_hook(
            lambda module, args, kwargs: fed["encoder"].append(kwargs["input_ids"].size(1)), with_kwargs=True
        ),
        gemma.model.decoder.register_forward_pre_hook(
            lambda module, args, kwargs: fed["decoder"].append(kwargs["decoder_input_ids"].size(1)),
            with_kwargs=True,
        ),
    ]
    models = lab.Roles({"denoiser": gemma})
    (generation,) = TransformersDiffusion(**QUICK).decode(models, PROMPTS[:1], 20, Stop(), [7])
    for hook in hooks:
        hook.remove()
    assert fed["encoder"] == [5, 8, 8] and set(fed["decoder"]) == {8}
    assert generation.forwards == {"denoiser": 3 + len(fed["decoder"])}
    assert generation.positions == {"denoiser": sum(fed["encoder"] + fed["decoder"])}
    # A canvas is filed under its last forward, and the last one is cut.
    assert len(generation.ids) == generation.useful == 20 and generation.finish == "length"
    assert [n for n in generation.steps if n] == [8, 8, 4]
    assert generation.commits[-1] == generation.forwards["denoiser"] - 1


def test_diffusion_gemmas_answer_depends_on_prompt_and_seed_alone(lab, gemma):
    decoder, models, own = (
        TransformersDiffusion(**QUICK),
        lab.Roles({"denoiser": gemma}),
        gemma.generation_config,
    )
    state = torch.get_rng_state()
    alone = [
        decoder.decode(models, [p], 16, Stop(), [s])[0].ids for p, s in zip(PROMPTS, range(4), strict=True)
    ]
    together = decoder.decode(models, PROMPTS, 16, Stop(), range(4))
    assert [g.ids for g in together] == alone
    assert decoder.decode(models, PROMPTS[:1], 16, Stop(), [9])[0].ids != alone[0]
    assert torch.equal(torch.get_rng_state(), state) and gemma.generation_config is own


def test_diffusion_gemma_stops_at_ids_and_texts(lab, gemma):
    decoder, models = TransformersDiffusion(**QUICK), lab.Roles({"denoiser": gemma})
    (whole,) = decoder.decode(models, PROMPTS[:1], 24, Stop(), [7])
    end = whole.ids[10]
    assert end not in whole.ids[:10]
    (cut,) = decoder.decode(models, PROMPTS[:1], 24, Stop(frozenset({end})), [7])
    assert cut.finish == "stop" and cut.useful == 10 and cut.ids == whole.ids[:16]
    text = Stop(match=lambda ids, known: ids.index(end) if end in ids else None)
    (cut,) = decoder.decode(models, PROMPTS[:1], 24, text, [7])
    assert cut.finish == "stop" and cut.useful == 10 and cut.ids == whole.ids[:16]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_denoising_steps": 0}, "max_denoising_steps=0"),
        ({"entropy_bound": 0}, "entropy_bound=0 must be a number above 0"),
        ({"confidence_threshold": True}, "confidence_threshold=True"),
        ({"stability_threshold": -1}, "stability_threshold=-1"),
        ({"t_min": 0.8}, "t_min=0.8 must be 0 or more, and below t_max=0.8"),
    ],
)
def test_settings_of_diffusion_gemma_are_refused_in_words(fields, message):
    with pytest.raises(ValueError, match=message):
        TransformersDiffusion(**fields)
