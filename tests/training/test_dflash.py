"""What a drafter learns: from where, what it may see, and that it drafts as it was trained."""

import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config

import train
from unmask.decoding.cache import SlotCache
from unmask.models.drafter import DFlashDraftModel
from unmask.models.loading import Source
from unmask.models.settings import ModelConfig
from unmask.paths import ROOT
from unmask.training import objectives
from unmask.training.checking import check
from unmask.training.data import Batch, Stream
from unmask.training.models import build_drafter
from unmask.training.objectives import STUDENT
from unmask.training.objectives.dflash import DFlash, chosen_anchors
from unmask.training.recipe import TrainConfig

MASK, BLOCK = 39, 4
ANSWER = torch.tensor([[0] * 4 + [1] * 9 + [0], [0] * 2 + [1] * 5 + [0] * 7]).bool()


@pytest.fixture(scope="module")
def pair():
    """A random target of three layers and a drafter that reads two of them."""
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    shape |= {"intermediate_size": 32, "pad_token_id": None, "initializer_range": 0.5}
    target = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", num_hidden_layers=3, **shape))
    config = Qwen3Config(num_hidden_layers=2, head_dim=8, **shape)
    config.block_size, config.num_target_layers = BLOCK, 3
    config.dflash_config = {"target_layer_ids": [0, 2], "mask_token_id": MASK}
    return {STUDENT: DFlashDraftModel(config), "target": target.eval()}


@pytest.fixture(scope="module")
def data():
    ids = torch.randint(0, 39, ANSWER.shape, generator=torch.Generator().manual_seed(1))
    return Batch(ids, ANSWER, torch.zeros_like(ANSWER), torch.zeros(2).bool())


def loss_of(pair, data, seed=0, **options):
    objective = DFlash(pair, block_length=BLOCK, **options)
    return objective(data, torch.Generator().manual_seed(seed)), objective


def by_hand(pair, data, anchors, gamma):
    """Every block alone, as it is drafted: context in a slot cache, one forward for the block."""
    drafter, target = pair[STUDENT], pair["target"]
    total, weights = 0.0, 0.0
    for row, anchor in anchors:
        hidden = target.model(data.ids[row : row + 1], output_hidden_states=True).hidden_states
        context = drafter.features(hidden)[:, :anchor]
        cache = SlotCache(1, 40)
        if anchor:
            columns = torch.arange(anchor)[None]
            cache.write_at(torch.arange(1), columns, 0)
            for layer, (keys, values) in enumerate(drafter.context(context, columns)):
                cache.update(keys, values, layer)
        places = torch.arange(anchor, anchor + BLOCK)[None]
        block = torch.full((1, BLOCK), MASK)
        block[0, 0] = data.ids[row, anchor]
        cache.write_at(torch.arange(1), places, anchor + BLOCK)
        sees = torch.ones(1, 1, BLOCK, anchor + BLOCK, dtype=torch.bool)
        out = drafter(block, target.get_input_embeddings(), places, sees, cache, True)
        logits = target.lm_head(out[0])
        for k in range(1, BLOCK):
            if anchor + k < data.ids.size(1) and data.answer[row, anchor + k]:
                weight = math.exp(-(k - 1) / gamma)
                total += weight * cross_entropy(logits[k], data.ids[row, anchor + k])
                weights += weight
    return total / weights


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 4.0},
        {"gamma": math.inf},
        {"anchor_positions": "fixed", "gamma": 4.0},
    ],
)
def test_many_blocks_in_one_forward_are_those_that_it_drafts(pair, data, options):
    with torch.no_grad():
        loss, objective = loss_of(pair, data, **options)
        places, real = chosen_anchors(data.answer, objective.options, torch.Generator().manual_seed(0))
        anchors = [
            (r, int(a)) for r in range(2) for a, is_one in zip(places[r], real[r], strict=True) if is_one
        ]
        assert len(anchors) == (2 + 1 if "anchor_positions" in options else 8 + 4)
        expected = by_hand(pair, data, anchors, options["gamma"])
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_drawn_negatives_stand_for_the_whole_vocabulary(pair, data):
    """All of them are the whole softmax; a few have its sum on average."""
    with torch.no_grad():
        expected, _ = loss_of(pair, data)
        torch.testing.assert_close(loss_of(pair, data, negatives=40)[0], expected)
        _, objective = loss_of(pair, data, negatives=8)
        hidden = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
        wanted = torch.tensor([3, 7, 3, 20, 39])
        whole = pair["target"].lm_head(hidden)
        draws = [objective.logits(hidden, wanted, torch.Generator().manual_seed(i)) for i in range(3000)]
    for logits, labels in draws[:20]:
        assert logits.size(1) < 4 + 8 + 1
        torch.testing.assert_close(
            logits.gather(1, labels[:, None]), whole.gather(1, wanted[:, None]), atol=1e-5, rtol=1e-5
        )
    mean = torch.stack([logits.exp().sum(-1) for logits, _ in draws]).mean(0)
    torch.testing.assert_close(mean, whole.exp().sum(-1), rtol=0.05, atol=0)


def test_kept_features_are_those_of_the_target_and_it_runs_once_a_text(pair, data):
    with torch.no_grad():
        expected, _ = loss_of(pair, data)
        objective = DFlash(pair, block_length=BLOCK, keep_features=True)
        calls = []
        hook = pair["target"].model.register_forward_hook(lambda *_: calls.append(1))
        for _ in range(2):
            loss = objective(data, torch.Generator().manual_seed(0))
            torch.testing.assert_close(loss, expected)
        hook.remove()
    assert len(calls) == 1 and len(objective.kept) == 2


def test_the_target_gets_no_gradient_and_every_weight_of_the_drafter_does(pair, data):
    loss, objective = loss_of(pair, data)
    loss.backward()
    assert all(p.grad is not None for p in pair[STUDENT].parameters())
    assert all(p.grad is None for p in pair["target"].parameters())
    assert {name.split(".")[0] for name in objective.trained} == {STUDENT}
    pair[STUDENT].zero_grad()


def test_anchors_are_answer_tokens_that_another_follows(data):
    options = DFlash.Options(block_length=BLOCK, anchors=3)
    for seed in range(20):
        places, real = chosen_anchors(data.answer, options, torch.Generator().manual_seed(seed))
        assert places.shape == (2, 3) and real.all()
        for row, end in ((0, 12), (1, 6)):
            assert len(set(places[row].tolist())) == 3
            assert all(data.answer[row, a] and a < end for a in places[row].tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_length": 1}, "block_length=1 must be at least 2"),
        ({"anchors": 0}, "anchors=0"),
        ({"negatives": 0}, "negatives=0"),
        ({"anchor_positions": "best"}, "anchor_positions='best'"),
        ({"gamma": 0.0}, "gamma=0.0"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        objectives.typed("dflash", options)


@pytest.mark.parametrize("size", [0, 41, 2.5])
def test_a_draft_vocabulary_is_part_of_the_targets(size):
    architecture = {"model_type": "qwen3", "target_layer_ids": [0], "mask_token_id": MASK}
    cfg = TrainConfig(objective="dflash", architecture=architecture | {"draft_vocab_size": size})
    target = AutoConfig.for_model("qwen2", vocab_size=40)
    with pytest.raises(ValueError, match=f"draft_vocab_size={size}: must be from 1 to the 40 ids"):
        build_drafter(cfg, SimpleNamespace(mask_token_id=None), target)


@pytest.mark.parametrize("ids", [None, [3, 3, 5], [3, 4, 40]])
def test_a_draft_vocabulary_that_is_none_is_refused(pair, tmp_path, ids):
    """Of weights without it, too: transformers would leave it as memory was."""
    drafter = pair[STUDENT]
    weights = dict(drafter.state_dict()) | ({} if ids is None else {"draft_ids": torch.tensor(ids)})
    config = copy.deepcopy(drafter.config)
    config.draft_vocab_size = 3
    config.save_pretrained(tmp_path)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="draft_ids"):
        DFlashDraftModel.from_pretrained(tmp_path)


def test_a_drafter_that_goes_on_keeps_the_ids_that_it_drafts():
    cfg = TrainConfig(objective="dflash", init_from="checkpoints/tiny_dflash", architecture={})
    assert build_drafter(cfg, None, None).draft_ids is None
    cfg.architecture = {"draft_vocab_size": 8}
    with pytest.raises(ValueError, match="draft_vocab_size=8: init_from=checkpoints/tiny_dflash keeps"):
        build_drafter(cfg, None, None)


def test_train_command_makes_a_drafter_that_loads(run_command, tmp_path, tokenizer, small_chunks):
    code, _, err = run_command(
        train,
        "recipe=tiny_dflash",
        "~mixture",
        "+mixture={gsm_symbolic: 1}",
        "++architecture.draft_vocab_size=64",
        "tokens=3000",
        "batch_tokens=600",
        "threads=1",
        "validation_problems=2",
        "max_new_tokens=12",
        f"folder={tmp_path / 'state'}",
        f"output={tmp_path / 'model'}",
    )
    assert code == 0, err
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["DFlashDraftModel"] and config["block_size"] == 8
    assert config["dflash_config"]["target_layer_ids"] == [1, 2, 3] and config["num_target_layers"] == 5
    assert not (tmp_path / "model" / "tokenizer.json").exists()  # it is the target's
    settings = ModelConfig(name="x", path=str(tmp_path / "model"), kind="drafter")
    drafter = Source(settings).load(torch.device("cpu"), torch.float32)
    assert isinstance(drafter, DFlashDraftModel) and drafter.config.block_size == 8
    ids = drafter.draft_ids.tolist()  # whole numbers, though weights are float16 on disk
    assert ids == Stream(tokenizer, {"gsm_symbolic": 1.0}, 600).frequent(64)
    assert Source(settings).shape["head_parameters"] == 64 * drafter.config.hidden_size
    curve = (tmp_path / "state" / "curve.csv").read_text().splitlines()
    assert "tokens_per_step" in curve[0]


def test_layer_minus_one_is_the_embedding_of_the_text(pair, data):
    """A drafter that reads it alone knows nothing of what the target made (the ablation of features)."""
    drafter, target = pair[STUDENT], pair["target"]
    drafter.config.dflash_config["target_layer_ids"], kept = [-1], drafter.feature_layers
    try:
        hidden = target.model(data.ids, output_hidden_states=True).hidden_states
        assert torch.equal(drafter.features(hidden), target.get_input_embeddings()(data.ids))
    finally:
        drafter.config.dflash_config["target_layer_ids"] = kept


def test_the_published_recipe_makes_the_published_drafter():
    recipe = OmegaConf.load(ROOT / "eval_config" / "recipe" / "dflash_qwen3_4b.yaml")
    cfg = TrainConfig(**OmegaConf.to_container(recipe))
    check(cfg)
    wide = {"hidden_size": 2560, "vocab_size": 151936, "rope_theta": 1e6}
    target = AutoConfig.for_model("qwen3", num_hidden_layers=36, **wide)
    with torch.device("meta"):
        drafter = build_drafter(cfg, SimpleNamespace(mask_token_id=None), target)
    assert len(drafter.state_dict()) == 58
    assert sum(p.numel() for p in drafter.parameters()) == 537_427_200  # as the published folder has
    assert (drafter.config.block_size, drafter.mask_token_id) == (16, 151669)
