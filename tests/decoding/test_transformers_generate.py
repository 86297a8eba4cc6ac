"""decoder=transformers: the ids of the autoregressive decoder, and costs that are what a hook sees."""

import pytest
import torch
from transformers import GenerationConfig

from unmask.decoding import Stop
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.transformers_generate import TransformersGenerate

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
