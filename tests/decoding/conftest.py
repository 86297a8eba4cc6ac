"""Models whose logits are written down in the tests, small random real ones, and helpers to trace a decode.

All share a vocabulary of 16 ids: 0-13 are words, EOS is 14, MASK is 15.
"""

from types import SimpleNamespace

import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from transformers import Qwen2Config
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep

from dream import DreamConfig, DreamModel
from unmask.decoding import Board, Decoder, Models, Row, Stop
from unmask.decoding.visibility import attended
from unmask.testing.small_models import (
    EOS,
    MASK,
    SHAPE,
    VOCABULARY,
    Hook,
    frozen,
    small_dream,
    small_llada,
    small_qwen,
)


class Scripted(nn.Module):
    """A model whose logits are `script(ids) -> (len(ids), V)`, ids being all that it can see of one row,
    cached and fed.

    A denoiser's row i predicts token i, a causal model's the token after i. The ids seen so far are kept in
    the KV cache that it is handed, so a wrong cache shows. `seen` holds, per call and row, the ids that the
    row can see.
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, script, mask_token_id=None, vocab_size=VOCABULARY, lookback=0):
        super().__init__()
        self.script, self.lookback, self.seen = script, lookback, []
        self.config = Qwen2Config(vocab_size=vocab_size, num_hidden_layers=1)
        if mask_token_id is not None:
            self.config.mask_token_id, self.config.is_causal = mask_token_id, False

    def forward(
        self,
        input_ids,
        past_key_values=None,
        use_cache=False,
        attention_mask=None,
        position_ids=None,
        logits_to_keep=0,
    ):
        assert use_cache == (past_key_values is not None)
        ids = input_ids
        if past_key_values is not None:
            history = ids[:, None, :, None].float()
            ids = past_key_values.update(history, history, 0)[0][:, 0, :, 0].long()
        real = (
            torch.ones_like(ids, dtype=torch.bool)
            if attention_mask is None
            else attended(attention_mask).any(-2)[:, 0]
        )
        logits = torch.zeros(*input_ids.shape, self.config.vocab_size)
        for i, row in enumerate(ids):
            visible = row[real[i]].tolist()  # a row's columns from the left, in order
            self.seen.append(visible)
            columns = (
                torch.arange(len(visible))[-input_ids.size(1) :] if position_ids is None else position_ids[i]
            )
            inside = columns < len(visible)  # the rest is padding
            logits[i, inside] = self.script(visible)[columns[inside]]
        if logits_to_keep is None:
            return CausalLMOutputWithPast(hidden_states=(logits,))
        return CausalLMOutputWithPast(logits=slice_logits_to_keep(logits, logits_to_keep))

    def lm_head(self, hidden):
        return hidden


class CausalDenoiser(nn.Module):
    """A Dream under a causal mask: what a causal Qwen2 of the same weights is, in a denoiser's clothes."""

    lookback, device, dtype = 1, torch.device("cpu"), torch.float32

    def __init__(self, dream):
        super().__init__()
        self.dream, self.config, self.lm_head = dream, dream.config, dream.lm_head

    def forward(self, input_ids, attention_mask=None, position_ids=None, **kwargs):
        if position_ids is None:
            position_ids = torch.arange(input_ids.size(1)).expand_as(input_ids)
        if attention_mask is None:
            attention_mask = torch.ones(len(input_ids), 1, 1, int(position_ids.max()) + 1, dtype=torch.bool)
        causal = torch.arange(attention_mask.size(-1)) <= position_ids[:, None, :, None]
        return self.dream(input_ids, attended(attention_mask) & causal, position_ids, **kwargs)


@pytest.fixture(scope="session")
def dream():
    return small_dream()


@pytest.fixture(scope="session")
def llada():
    return small_llada()


@pytest.fixture(scope="session")
def qwen():
    return small_qwen()


@pytest.fixture(scope="session")
def causal_denoiser(qwen):
    """The denoiser that has the weights of `qwen` and its causal mask."""
    dream = DreamModel(DreamConfig(**SHAPE, mask_token_id=MASK))
    dream.load_state_dict(qwen.state_dict())
    return CausalDenoiser(frozen(dream))


@pytest.fixture(scope="session", params=["dream", "llada"])
def denoiser(request):
    return request.getfixturevalue(request.param)


def by_role(main, auxiliary=None):
    """A denoiser or a causal model, told apart by its mask id, as the model of the first role; and an
    auxiliary."""
    if getattr(main.config, "mask_token_id", None) is None:
        return Models({"target": main})
    return Models({"denoiser": main} | ({"auxiliary": auxiliary} if auxiliary is not None else {}))


def models_for(decoder: Decoder, denoiser, causal):
    """What a decoder's roles ask for."""
    kinds = {"diffusion": denoiser, "causal": causal}
    return Models({role: kinds[kind] for role, kind in decoder.roles.items()})


def board(models, *prompts, max_new_tokens=8):
    """A board of rows that have not begun."""
    rows = [
        Row.fresh(i, list(prompt), max_new_tokens, i, list(models.by_role))
        for i, prompt in enumerate(prompts)
    ]
    return Board(rows, models)


def favourites(*tokens, strength=5.0, vocab_size=VOCABULARY):
    """Logits (len(tokens), V) with one clear winner a row."""
    logits = torch.zeros(len(tokens), vocab_size)
    logits[range(len(tokens)), list(tokens)] = strength
    return logits


def on_canvas(logits, prompt=2):
    """A denoiser's script: fixed logits (n, V) of its canvas, whatever it holds, after `prompt` ids."""

    def script(ids):
        n = len(ids) - prompt
        return torch.cat((torch.zeros(prompt, logits.size(-1)), logits[:n]))

    return script


def trace(decoder, models, prompt, max_new_tokens, stop=(EOS,), seed=0, **kwargs):
    """(generation, [(positions, ids) of every step]) of one prompt."""
    steps = []
    stop = stop if isinstance(stop, Stop) else Stop(frozenset(stop))
    (generation,) = decoder.decode(
        models,
        [torch.tensor(prompt)],
        max_new_tokens,
        stop,
        [seed],
        lambda row, *step: steps.append(step),
        **kwargs,
    )
    return generation, steps


def law_pvalue(counts, law):
    """Of counts against a law, by chi-squared.

    In float64 and normalised: probabilities from float32 logits do not add up to scipy's tolerance of 1.5e-8
    on every processor.
    """
    counts = torch.as_tensor(counts, dtype=torch.float64)
    law = torch.as_tensor(law, dtype=torch.float64)
    return chisquare(counts, counts.sum() * law / law.sum()).pvalue


def essence(generation):
    """All of a generation but the clock."""
    return {**vars(generation), "seconds": None}


@pytest.fixture(scope="session")
def lab():
    """Everything above, for the tests (importlib mode has no module to import it from)."""
    return SimpleNamespace(
        V=VOCABULARY,
        EOS=EOS,
        MASK=MASK,
        Scripted=Scripted,
        Hook=Hook,
        CausalDenoiser=CausalDenoiser,
        Models=by_role,
        Roles=Models,
        models_for=models_for,
        board=board,
        Stop=Stop,
        favourites=favourites,
        on_canvas=on_canvas,
        trace=trace,
        essence=essence,
        law_pvalue=law_pvalue,
    )
