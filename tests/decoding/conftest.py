"""Models whose logits are written down in the tests, small random real ones, and helpers to trace a decode.

All share a vocabulary of 16 ids: 0-13 are words, EOS is 14, MASK is 15.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep

from decoding import Models, Stop
from dream import DreamConfig, DreamModel
from llada import LLaDAConfig, LLaDAModelLM

VOCABULARY, EOS, MASK = 16, 14, 15


class Scripted(nn.Module):
    """A model whose logits are `script(ids) -> (len(ids), V)`, ids being all that it can see of one row, cached and fed.

    A denoiser's row i predicts token i, a causal model's the token after i. The ids seen so far are kept in the KV cache that
    it is handed, so a wrongly cropped cache shows. `seen` holds, per call and row, the ids that the row can see.
    """

    device = torch.device("cpu")

    def __init__(self, script, mask_token_id=None, vocab_size=VOCABULARY, lookback=0):
        super().__init__()
        self.script, self.lookback, self.seen = script, lookback, []
        self.config = Qwen2Config(vocab_size=vocab_size, num_hidden_layers=1)
        if mask_token_id is not None:
            self.config.mask_token_id = mask_token_id

    def forward(self, input_ids, past_key_values=None, use_cache=False, attention_mask=None, position_ids=None,
                logits_to_keep=0):  # fmt: skip
        assert use_cache == (past_key_values is not None)
        ids = input_ids
        if past_key_values is not None:
            history = ids[:, None, :, None].float()
            ids = past_key_values.update(history, history, 0)[0][:, 0, :, 0].long()
        if attention_mask is None:
            attention_mask = torch.ones_like(ids)
        assert attention_mask.shape == ids.shape
        logits = torch.zeros(*ids.shape, self.config.vocab_size)
        for row, real, out in zip(ids, attention_mask.bool(), logits, strict=True):
            self.seen.append(row[real].tolist())
            out[real] = self.script(row[real].tolist())
        return CausalLMOutputWithPast(logits=slice_logits_to_keep(logits[:, -input_ids.size(1) :], logits_to_keep))


class CausalDenoiser(nn.Module):
    """A Dream under a causal mask: what a causal Qwen2 of the same weights is, in a denoiser's clothes."""

    lookback, device = 1, torch.device("cpu")

    def __init__(self, dream):
        super().__init__()
        self.dream, self.config = dream, dream.config

    def forward(self, input_ids, past_key_values=None, attention_mask=None, **kwargs):
        (batch, fed), cached = input_ids.shape, 0
        if past_key_values is not None:
            cached = past_key_values.get_seq_length()
        causal = torch.ones(fed, cached + fed, dtype=torch.bool).tril(cached).expand(batch, 1, -1, -1)
        if attention_mask is not None:  # as the model counts them; pads see themselves, so that no row is empty
            kwargs["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, cached:]
            causal = causal & attention_mask[:, None, None].bool() | torch.eye(cached + fed, dtype=torch.bool)[cached:]
        return self.dream(input_ids, causal, past_key_values=past_key_values, **kwargs)


class Hook:
    """Counts what a model really does: forwards, rows of all forwards, and positions fed that are not padding."""

    def __init__(self, model):
        self.forwards = self.rows = self.positions = 0
        self.fed = []
        self.handle = model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, model, args, kwargs):
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        fed = ids.numel() if mask is None else int(mask[:, -ids.size(1) :].sum())
        self.forwards, self.rows, self.positions = self.forwards + 1, self.rows + len(ids), self.positions + fed
        self.fed.append(fed)


def shape(**kwargs):
    return {"vocab_size": VOCABULARY, "pad_token_id": None, "initializer_range": 0.4, **kwargs}


def qwen_shape(**kwargs):
    return shape(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, rope_parameters={"rope_theta": 1e4, "rope_type": "default"}, **kwargs)  # fmt: skip


def frozen(model):
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def dream():
    torch.manual_seed(1)
    return frozen(DreamModel(DreamConfig(**qwen_shape(mask_token_id=MASK))))


@pytest.fixture(scope="session")
def llada():
    torch.manual_seed(2)
    sizes = {"d_model": 32, "n_layers": 2, "n_heads": 4, "mlp_hidden_size": 48, "init_std": 0.4}
    ids = {"vocab_size": VOCABULARY, "mask_token_id": MASK, "eos_token_id": EOS, "pad_token_id": None}
    return frozen(LLaDAModelLM(LLaDAConfig(**ids, **sizes)))


@pytest.fixture(scope="session")
def qwen():
    torch.manual_seed(3)
    model = frozen(Qwen2ForCausalLM(Qwen2Config(**qwen_shape())))
    model.lm_head.weight[MASK] = model.lm_head.weight[:MASK].mean(0)  # a mean never wins: no causal model writes masks
    return model


@pytest.fixture(scope="session")
def causal_denoiser(qwen):
    """The denoiser that has the weights of `qwen` and its causal mask."""
    dream = DreamModel(DreamConfig(**qwen_shape(mask_token_id=MASK)))
    dream.load_state_dict(qwen.state_dict())
    return CausalDenoiser(frozen(dream))


@pytest.fixture(scope="session", params=["dream", "llada"])
def denoiser(request):
    return request.getfixturevalue(request.param)


def favourites(*tokens, strength=5.0, vocab_size=VOCABULARY):
    """Logits (len(tokens), V) with one clear winner a row."""
    logits = torch.zeros(len(tokens), vocab_size)
    logits[range(len(tokens)), list(tokens)] = strength
    return logits


def on_canvas(logits, prompt=2):
    """A denoiser's script: fixed logits (budget, V) of the canvas, whatever it holds, after `prompt` ids."""

    def script(ids):
        n = len(ids) - prompt
        return torch.cat((torch.zeros(prompt, logits.size(-1)), logits[:n]))

    return script


def trace(decoder, models, prompt, budget, stop=(EOS,), seed=0, **kwargs):
    """(generation, [(positions, ids) of every step]) of one prompt."""
    steps = []
    stop = stop if isinstance(stop, Stop) else Stop(frozenset(stop))
    (generation,) = decoder.decode(
        models, [torch.tensor(prompt)], budget, stop, [seed], lambda row, *step: steps.append(step), **kwargs
    )
    return generation, steps


def essence(generation):
    """All of a generation but the clock."""
    return {**vars(generation), "seconds": None}


@pytest.fixture(scope="session")
def lab():
    """Everything above, for the tests (importlib mode has no module to import it from)."""
    return SimpleNamespace(
        V=VOCABULARY, EOS=EOS, MASK=MASK, Scripted=Scripted, Hook=Hook, CausalDenoiser=CausalDenoiser, Models=Models,
        Stop=Stop, DynamicCache=DynamicCache, favourites=favourites, on_canvas=on_canvas, trace=trace, essence=essence,
    )  # fmt: skip
