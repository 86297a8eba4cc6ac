import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import dream  # noqa: F401
import llada  # noqa: F401
import train
from unmask.paths import ROOT
from unmask.training import data, sources
from unmask.training.data import Batch, Stream
from unmask.training.loop import Trainer
from unmask.training.objectives import OBJECTIVES, Objective
from unmask.training.optimization import Schedule

MASK = 39  # in the vocabulary of `build`
QWEN = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32}
SHAPES = {
    "qwen2": QWEN,
    "Dream": QWEN,
    "llada": {"d_model": 16, "n_heads": 2, "n_kv_heads": 1, "mlp_hidden_size": 32},
}


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "checkpoints" / "tiny_qwen_large")


@pytest.fixture(scope="session")
def build():
    """build(layout, layers) -> a random model of 40 tokens, so uneven that every leak is seen."""

    def build(layout, layers=1):
        torch.manual_seed(0)
        special = {"pad_token_id": 0, "eos_token_id": 0, "bos_token_id": 0}
        special |= {} if layout == "qwen2" else {"mask_token_id": MASK}
        depth = {"n_layers" if layout == "llada" else "num_hidden_layers": layers}
        config = AutoConfig.for_model(layout, vocab_size=40, **SHAPES[layout], **depth, **special)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        return model

    return build


@pytest.fixture(scope="session")
def mixed():
    """Six rows of 24 ids: four problems of several lengths with end padding (of none to many), two drills."""
    ids = torch.randint(1, MASK, (6, 24), generator=torch.Generator().manual_seed(7))
    column = torch.arange(24)
    starts = torch.tensor([3, 5, 8, 2, 0, 0])[:, None]
    ends = torch.tensor([20, 24, 13, 7, 18, 24])[:, None]
    drill = torch.tensor([False, False, False, False, True, True])
    answer = (column >= starts) & (column < ends)
    answer[4:] &= column % 4 > 1
    end_padding = (column >= ends) & ~drill[:, None]
    ids[column >= ends] = 0
    return Batch(ids, answer, end_padding, drill)


@pytest.fixture(scope="session")
def fresh(tokenizer):
    """fresh(layout) -> a freshly initialised model of one layer with the tiny family's vocabulary."""

    def fresh(layout):
        torch.manual_seed(0)
        special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        special |= {} if layout == "qwen2" else {"mask_token_id": tokenizer.mask_token_id}
        depth = {"n_layers" if layout == "llada" else "num_hidden_layers": 1}
        shape = SHAPES[layout] | depth | {"vocab_size": len(tokenizer), "bos_token_id": None}
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(layout, **shape, **special))

    return fresh


@pytest.fixture
def small_chunks(monkeypatch):
    """Streams that are made in a twentieth of the time."""
    monkeypatch.setattr(data, "CHUNK_TOKENS", 10_000)
    monkeypatch.setattr(sources, "PROBLEMS", 50)


@pytest.fixture
def trainer(tokenizer, fresh, small_chunks):
    """trainer(folder, layout, objective, ...) -> a Trainer of a fresh model on a mixture that moves."""

    def trainer(folder, layout="qwen2", objective="autoregressive", tokens=4000, models=None, **kwargs):
        mixture = {"gsm_symbolic": 0.5, "chain_sum": 0.2, "drill": 0.3}
        stream = Stream(tokenizer, mixture, 600, final_mixture={"gsm_symbolic": 1.0})
        module = OBJECTIVES[objective](models or {"student": fresh(layout)})
        return Trainer(module, stream, folder, tokens, Schedule(0.01), **kwargs)

    return trainer


@pytest.fixture(scope="session")
def parent(fresh, tokenizer, tmp_path_factory):
    """A model folder to start from, as train.py writes them."""
    folder = tmp_path_factory.mktemp("parent")
    fresh("Dream").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Distilled(Objective):
    """The teacher's distribution of masked answer tokens, learned by a student under the same masks."""

    roles: ClassVar = {"student": "diffusion", "teacher": "diffusion"}

    @dataclass(frozen=True)
    class Options:
        masked: float = 0.5

    def forward(self, batch, generator):
        masked = batch.answer & (torch.rand(batch.ids.shape, generator=generator) < self.options.masked)
        noisy = torch.where(masked, self.student.config.mask_token_id, batch.ids)
        with self.frozen("teacher") as teacher:
            assert not teacher.training
            wanted = teacher(noisy, logits_to_keep=masked).logits.softmax(-1)
        assert self.student.training
        return cross_entropy(self.student(noisy, logits_to_keep=masked).logits, wanted)


@pytest.fixture
def distilled(monkeypatch):
    """An objective with a frozen teacher, registered as `distilled`."""
    monkeypatch.setitem(OBJECTIVES, "distilled", Distilled)
    return Distilled


@pytest.fixture
def trained_adapter(run_command, tmp_path, monkeypatch):
    """trained_adapter(recipe, method, column) -> (record, names of the tensors that changed).

    A published recipe at tiny scale: its settings on the tiny model that stands for its base, and a data set
    in a folder, with answers in that column.
    """

    def train_adapter(recipe, method, column):
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        (tmp_path / "set").mkdir()
        rows = [{"question": f"{n} + 1?", column: f"It is {n + 1}."} for n in range(40)]
        (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        parent = ROOT / "checkpoints" / recipe.replace(method, "tiny")
        code, _, err = run_command(
            train,
            f"recipe={recipe}",
            f"init_from={parent}",
            "~mixture",
            f"+mixture={{hub\\:{tmp_path / 'set'}: 1}}",
            "canvas=16",
            "tokens=2000",
            "batch_tokens=400",
            "accumulate=1",
            "lora.r=4",
            "threads=1",
            f"folder={tmp_path / 'state'}",
            f"output={tmp_path / 'model'}",
        )
        assert code == 0, err
        record = json.loads((tmp_path / "model" / "training.json").read_text())
        assert 0 < record["trained_parameters"] < record["parameters"] / 10
        before, after = (
            AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (parent, tmp_path / "model")
        )
        return record, {name for name in before if not torch.equal(before[name], after[name])}

    return train_adapter
