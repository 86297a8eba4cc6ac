"""What both families promise, on the two-layer golden models: layout, attention, cache, selected logits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, DynamicCache

from dream import DreamModel
from llada import LLaDAModelLM
from unmask.models.bidirectional import published_shapes

GOLDEN = Path(__file__).parents[1] / "golden"
FAMILIES = {"dream": DreamModel, "llada": LLaDAModelLM}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family):
    return GOLDEN / family


@pytest.fixture(scope="module")
def model(family, folder):
    return FAMILIES[family].from_pretrained(folder).requires_grad_(False)


@pytest.fixture(scope="module")
def x():
    """(1, 12) ids."""
    return torch.randint(0, 318, (1, 12), generator=torch.Generator().manual_seed(0))


def crop(cache, length):
    cache.crop(length - cache.get_seq_length())


# The published layout


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_golden_logits(family, folder, attention):
    model, info = FAMILIES[family].from_pretrained(
        folder, attn_implementation=attention, output_loading_info=True
    )
    assert not any(info.values()), info
    expected = load_file(folder / "expected.safetensors")
    torch.testing.assert_close(
        model(expected["input_ids"]).logits, expected["aligned_logits"], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("shard", ["5GB", "100KB"])
def test_saving_writes_the_published_layout_and_loads_again(family, folder, model, x, tmp_path, shard):
    model(x)  # running a model must not change what it saves
    model.save_pretrained(tmp_path, max_shard_size=shard)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == (shard == "100KB")
    saved = {name: tensor for file in files for name, tensor in load_file(file).items()}
    published = load_file(folder / "model.safetensors")
    assert saved.keys() == published.keys() == published_shapes(model).keys()
    for name, tensor in published.items():
        assert torch.equal(saved[name], tensor) and published_shapes(model)[name] == tuple(tensor.shape), name
    config, wanted = (json.loads((d / "config.json").read_text()) for d in (tmp_path, folder))
    assert config.items() >= wanted.items()
    assert config.keys().isdisjoint({"rope_parameters", "dtype", "is_causal", "layer_types"})
    again = FAMILIES[family].from_pretrained(tmp_path)
    assert torch.equal(again(x).logits, model(x).logits)


def test_a_model_from_scratch_saves_the_published_names_and_ties_weights_if_told(family, folder, x, tmp_path):
    config = AutoConfig.from_pretrained(folder, tie_word_embeddings=True)
    model = FAMILIES[family](config)
    model.save_pretrained(tmp_path)
    published = load_file(folder / "model.safetensors").keys()
    (head,) = published - load_file(tmp_path / "model.safetensors").keys()
    assert head in ("lm_head.weight", "model.transformer.ff_out.weight")
    again, info = FAMILIES[family].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and torch.equal(again(x).logits, model(x).logits)


def test_auto_classes_load_a_published_folder_without_its_remote_code(family, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    name = FAMILIES[family].__name__
    config["auto_map"] = {"AutoConfig": "configuration_x.XConfig", "AutoModel": f"modeling_x.{name}"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    for auto in (AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM):
        model = auto.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert type(model) is FAMILIES[family] and model.dtype == torch.bfloat16
    assert "auto_map" not in model.config.to_diff_dict()  # a folder we write holds no code


# Attention


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_looks_right(folder, family, x, attention):
    model = FAMILIES[family].from_pretrained(folder, attn_implementation=attention)
    changed = x.clone()
    changed[0, -1] = (x[0, -1] + 1) % 318
    early = [model(ids, logits_to_keep=torch.tensor([0, 3])).logits for ids in (x, changed)]
    assert (early[0] - early[1]).abs().amax(-1).min() > 1e-3
    cache = model(x[:, :6], use_cache=True).past_key_values  # and so in a cached forward
    late = []
    for ids in (x, changed):
        late.append(model(ids[:, 6:], past_key_values=cache).logits[:, 1])
        crop(cache, 6)
    assert (late[0] - late[1]).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("cached", [0, 5])
def test_left_padded_row_equals_the_unpadded_one(folder, family, x, attention, cached):
    model = FAMILIES[family].from_pretrained(folder, attn_implementation=attention)
    short = x[:, 4:]
    batch = torch.cat((x, torch.cat((torch.full((1, 4), 318), short), 1)))
    mask = torch.ones_like(batch)
    mask[1, :4] = 0
    cache = None
    if cached:
        cache = model(batch, mask, use_cache=True).past_key_values
        crop(cache, cached)
    logits = model(batch[:, cached:], mask, past_key_values=cache).logits
    skip = model.lookback if cached else 0
    torch.testing.assert_close(logits[:1, skip:], model(x).logits[:, cached + skip :], atol=1e-4, rtol=0)
    first = max(cached + skip, 4)  # positions of the padded row that hold a token, and have a predictor
    torch.testing.assert_close(
        logits[1:, first - cached :], model(short).logits[:, first - 4 :], atol=1e-4, rtol=0
    )


def test_mask_of_the_wrong_length_is_refused(model, x):
    cache = model(x[:, :6], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="6 cached and 6 fed"):
        model(x[:, 6:], torch.ones(1, 6), past_key_values=cache)


def test_without_padding_the_kernel_gets_no_mask(model, x, monkeypatch):
    calls, kernel = [], torch.nn.functional.scaled_dot_product_attention

    def spy(*args, **kwargs):
        calls.append((kwargs["attn_mask"], kwargs["is_causal"]))
        return kernel(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    cache = model(x[:, :6], use_cache=True).past_key_values
    model(x[:, 6:], past_key_values=cache)
    assert calls == [(None, False)] * 4


def test_a_forward_never_waits_for_the_device(family, folder):
    """On the meta device reading a value is an error, as it is a wait on a GPU."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = FAMILIES[family](config)
        ids, keep = torch.zeros(2, 6, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long)
        cache = model(ids, torch.ones(2, 6), use_cache=True).past_key_values
        out = model(ids, torch.ones(2, 12), past_key_values=cache, logits_to_keep=keep)
    assert out.logits.shape == (2, 3, 320)


# Cache


def test_recomputing_everything_equals_no_cache(model, x):
    wanted = model(x)
    assert wanted.past_key_values is None
    first = model(x, use_cache=True)
    assert torch.equal(first.logits, wanted.logits) and first.past_key_values.get_seq_length() == x.shape[1]
    crop(first.past_key_values, 0)
    again = model(x, past_key_values=first.past_key_values)
    torch.testing.assert_close(again.logits, wanted.logits, atol=1e-4, rtol=0)
    own = model(x, past_key_values=DynamicCache(config=model.config))
    torch.testing.assert_close(own.logits, wanted.logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("s", [1, 5, 11])
def test_recomputing_from_s_is_exact_on_an_unchanged_sequence(model, x, s):
    """Keys and values left of s saw this very sequence, so everything with a predictor comes out the same."""
    out = model(x, use_cache=True)
    crop(out.past_key_values, s)
    logits = model(x[:, s:], past_key_values=out.past_key_values).logits[:, model.lookback :]
    torch.testing.assert_close(logits, out.logits[:, s + model.lookback :], atol=1e-4, rtol=0)


def test_recomputing_from_s_is_an_approximation_on_a_changed_sequence(model, x):
    """The kept keys and values still know the old token: what a window trades for speed, not a bug."""
    changed = x.clone()
    changed[0, -1] = (x[0, -1] + 1) % 318
    cache = model(x, use_cache=True).past_key_values
    crop(cache, 6)
    logits = model(changed[:, 6:], past_key_values=cache).logits[:, model.lookback :]
    assert (logits - model(changed).logits[:, 6 + model.lookback :]).abs().max() > 1e-3
    assert (logits - model(x).logits[:, 6 + model.lookback :]).abs().max() > 1e-3


# Logits only where asked


@pytest.mark.parametrize("form", ["all", "last", "row", "per row", "bool"])
def test_the_head_runs_on_the_wanted_positions_only(model, x, form):
    batch = torch.cat((x, x.flip(1)))
    logits = model(batch).logits
    rows, fed = torch.arange(2)[:, None], []
    if form == "all":
        keep, wanted = 0, logits
    elif form == "last":
        keep, wanted = 5, logits[:, -5:]
    elif form == "row":
        keep, wanted = torch.tensor([0, 1, 7]), logits[:, [0, 1, 7]]
    elif form == "per row":
        keep = torch.tensor([[0, 1, 7], [11, 3, 3]])
        wanted = logits[rows, keep]
    else:
        keep = torch.rand(batch.shape, generator=torch.Generator().manual_seed(1)) < 0.4
        wanted = logits[keep]
    handle = model.lm_head.register_forward_hook(lambda _, args, __: fed.append(args[0].shape[:-1]))
    got = model(batch, logits_to_keep=keep).logits
    handle.remove()
    assert got.shape == wanted.shape and fed == [wanted.shape[:-1]]
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


# Training


def test_a_few_steps_on_masked_positions_learn_and_reach_every_parameter(family, folder):
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, initializer_range=0.02)
    model = FAMILIES[family](config).train()
    pad = config.pad_token_id
    assert model.model.embed_tokens.weight[pad].std() > 0.01  # EOS is a token like any other here
    ids = torch.randint(0, 318, (4, 12))
    masked = torch.rand(ids.shape) < 0.5
    masked[:, 0] = False
    noisy = ids.masked_fill(masked, config.mask_token_id)
    noisy[:, 0] = pad
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(30):
        logits = model(noisy, logits_to_keep=masked).logits
        losses.append(torch.nn.functional.cross_entropy(logits, ids[masked]))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert 5.5 < losses[0] < 6.1 and losses[-1] < losses[0] / 2  # log(320) is 5.77
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    assert model.model.embed_tokens.weight.grad[pad].abs().max() > 0
