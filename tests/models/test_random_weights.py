"""Random models: the published shapes at any width, and nothing that does not fit is begun."""

import pytest
import torch

from unmask.models.drafter import DFlashDraftModel
from unmask.models.layouts import LAYOUTS
from unmask.models.random_weights import CAUSAL, parameters_of, random_config, random_model
from unmask.models.settings import RandomModel


def settings(**fields):
    return RandomModel(name="random", kind="diffusion", **fields)


RANDOM = [*CAUSAL, *(name for name, layout in LAYOUTS.items() if layout.proportions)]


@pytest.mark.parametrize("layout", RANDOM)
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_every_layout_has_random_models(layout, depth):
    wanted = settings(layout=layout, width=128, depth=depth, vocabulary=64)
    model = random_model(wanted)
    assert model(torch.arange(5)[None]).logits.shape == (1, 5, 64)
    assert sum(p.numel() for p in model.parameters()) == parameters_of(random_config(wanted))


@pytest.mark.parametrize(
    "layout, width, depth, parameters",
    [
        ("a2d-qwen3", 1024, 28, 596_049_920),
        ("a2d-qwen2", 896, 24, 494_032_768),
        ("qwen2", 896, 24, 494_032_768),
        ("qwen2", 3584, 28, 7_615_616_512),
        ("Dream", 3584, 28, 7_615_616_512),
        ("llada", 4096, 32, 8_015_581_184),
        ("qwen3", 1024, 28, 596_049_920),
    ],
)
def test_a_published_width_gives_the_published_model(layout, width, depth, parameters):
    assert parameters_of(random_config(settings(layout=layout, width=width, depth=depth))) == parameters


def test_a_random_drafter_is_dflashs():
    """Qwen3's blocks without embedding and head, and a projection of its target's features."""
    wanted = settings(layout="dflash", width=128, depth=3, vocabulary=64)
    model = random_model(wanted)
    assert isinstance(model, DFlashDraftModel) and model.config.block_size == 16
    queries, keys, inner = 256, 128, 384
    block = 128 * (2 * queries + 2 * keys + 3 * inner) + 2 * 128 + 2 * 128  # two norms, of layer and of heads
    count = sum(p.numel() for p in model.parameters())
    assert count == 3 * block + 3 * 128 * 128 + 2 * 128 == parameters_of(random_config(wanted))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"width": 0}, "width=0 must be from 64"),
        ({"width": -64}, "width=-64 must be from 64"),
        ({"width": 10**9}, "width=1000000000 must be from 64"),
        ({"width": 100}, "width=100 must be a multiple of 64"),
        ({"width": 192, "layout": "sdar"}, "width=192 must be a multiple of 128"),
        ({"depth": 0}, "depth=0 must be from 1"),
        ({"depth": 10**9}, "depth=1000000000 must be from 1"),
        ({"vocabulary": 0}, "vocabulary=0 must be from 2"),
        ({"width": 65_536, "depth": 1024}, "GB of weights"),
        ({"layout": "nope"}, "layout=nope must be one of Dream, llada"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused_before_memory_is_taken(fields, message):
    with pytest.raises(ValueError, match=message):
        random_model(settings(**fields))
