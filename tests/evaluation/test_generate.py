"""The plain Python function: models in hand, no configuration."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import unmask
from unmask.decoding import Stop
from unmask.decoding.apd import APD
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.leftright import LeftRight


@pytest.fixture(scope="module")
def pair(models):
    folders = [override.partition("=")[2] for override in models[:2]]
    denoiser, causal = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).eval() for f in folders)
    return denoiser, causal, AutoTokenizer.from_pretrained(folders[0])


def test_three_lines(pair):
    denoiser, causal, tokenizer = pair
    prompts = ["Tom has 5 apples.", "How many?"]
    answers = unmask.generate(
        denoiser, prompts, APD(), max_new_tokens=12, tokenizer=tokenizer, auxiliary=causal
    )
    assert [list(a.forwards) for a in answers] == [["denoiser", "auxiliary"]] * 2
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    same = unmask.generate(denoiser, ids, APD(), max_new_tokens=12, tokenizer=tokenizer, auxiliary=causal)
    assert [a.ids for a in answers] == [a.ids for a in same]


def test_answers_end_at_the_models_own_end_ids(pair):
    _, causal, tokenizer = pair
    (long,) = unmask.generate(causal, [[5, 6, 7]], Autoregressive(), max_new_tokens=6, stop=Stop())
    causal.config.eos_token_id = long.ids[2]
    (short,) = unmask.generate(causal, [[5, 6, 7]], Autoregressive(), max_new_tokens=6)
    causal.config.eos_token_id = tokenizer.eos_token_id
    assert short.ids == long.ids[: long.ids.index(long.ids[2]) + 1] and short.finish == "stop"


def test_what_is_missing_is_named(pair):
    denoiser, causal, _ = pair
    with pytest.raises(ValueError, match="auxiliary="):
        unmask.generate(denoiser, [[1]], APD())
    with pytest.raises(ValueError, match="no other models"):
        unmask.generate(denoiser, [[1]], LeftRight(), auxiliary=causal)
    with pytest.raises(ValueError, match="tokenizer="):
        unmask.generate(denoiser, ["text"], LeftRight())


def test_prompts_that_cannot_be_decoded_are_named(pair):
    denoiser, causal, tokenizer = pair
    with pytest.raises(ValueError, match="one text"):
        unmask.generate(denoiser, "Tom has 5 apples.", LeftRight(), tokenizer=tokenizer)
    mask = denoiser.config.mask_token_id
    with pytest.raises(ValueError, match=f"prompt 1 holds the mask's id {mask}"):
        unmask.generate(denoiser, [[1, 2], [1, mask]], LeftRight(), max_new_tokens=4)
    context = causal.config.max_position_embeddings
    with pytest.raises(ValueError, match=f"prompt 1.*max_new_tokens=4.*target's context of {context}"):
        unmask.generate(causal, [[1], [1] * (context - 3)], Autoregressive(), max_new_tokens=4)


def test_a_model_of_another_kind_than_its_role_is_named(pair):
    denoiser, causal, _ = pair
    with pytest.raises(ValueError, match="denoiser: Qwen2ForCausalLM is a causal model.*needs a diffusion"):
        unmask.generate(causal, [[1]], LeftRight())
    with pytest.raises(ValueError, match="target: .* is a diffusion model.*needs a causal"):
        unmask.generate(denoiser, [[1]], Autoregressive())
    with pytest.raises(ValueError, match="auxiliary: .* is a diffusion model.*needs a causal"):
        unmask.generate(denoiser, [[1]], APD(), auxiliary=denoiser)
