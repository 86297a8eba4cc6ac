"""An objective with a frozen teacher: what moves, what is saved, what resumes. The seam of distillation."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import train
from unmask.models.adapters import check, merge
from unmask.training.loop import Trainer
from unmask.training.lora import Lora, add_adapter, merged

OPTIONS = ["tokens=1500", "batch_tokens=600", "threads=1", "validation_problems=0", "architecture=null"]


pytestmark = pytest.mark.usefixtures("distilled")


@pytest.fixture
def pair(fresh, build):
    """A student, and a teacher whose weights are others."""

    def pair():
        teacher = fresh("Dream")
        for parameter in teacher.parameters():
            parameter.data.mul_(1.5)
        return {"student": fresh("Dream"), "teacher": teacher}

    return pair


@pytest.fixture
def adapted(fresh):
    """A student with an adapter, whose teacher is itself without it."""

    def adapted():
        student = fresh("Dream")
        add_adapter(student, Lora(r=4, alpha=8, dropout=0.2))
        return {"student": student}

    return adapted


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def test_the_teacher_is_not_trained_and_gets_no_gradient(trainer, pair, tmp_path):
    models = pair()
    t = trainer(tmp_path, objective="distilled", models=models)
    start, taught = weights(models["student"]), weights(models["teacher"])
    losses = [t.step() for _ in range(4)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, taught[name]) for name, p in models["teacher"].named_parameters())
    assert all(p.grad is None and not p.requires_grad for p in models["teacher"].parameters())
    assert not any(torch.equal(p, start[name]) for name, p in models["student"].named_parameters())
    assert not models["teacher"].training and models["student"].training
    assert all(name.startswith("student.") for name in t.trained)
    optimized = {id(p) for o in t.optimizers for group in o.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in models["student"].parameters()}


@pytest.mark.parametrize("models", ["pair", "adapted"])
def test_resumed_training_beside_a_teacher_is_the_uninterrupted_one(trainer, models, tmp_path, request):
    """With dropout, too: its random numbers are those of the batch."""
    models = request.getfixturevalue(models)
    straight = trainer(tmp_path / "a", objective="distilled", models=models())
    losses = [straight.step() for _ in range(4)]
    first = trainer(tmp_path / "b", objective="distilled", models=models())
    again = [first.step() for _ in range(2)]
    first.save()
    torch.manual_seed(1234)
    second = trainer(tmp_path / "b", objective="distilled", models=models())
    assert second.resume()
    again += [second.step() for _ in range(2)]
    assert again == losses
    for name, parameter in straight.trained.items():
        assert torch.equal(parameter, second.trained[name])


def test_the_checkpoint_holds_what_is_trained_and_nothing_else(trainer, pair, adapted, tmp_path):
    for models in (pair, adapted):
        t = trainer(tmp_path / models.__name__, objective="distilled", models=models())
        t.save()
        state = torch.load(t.state_file, weights_only=True)
        assert set(state["trained"]) == set(t.trained)
        assert not any("teacher" in name for name in state["trained"])
    assert state["trained"] and all("lora_" in name for name in state["trained"])


def test_another_teacher_is_refused_on_resume(trainer, pair, tmp_path):
    trainer(tmp_path, objective="distilled", models=pair()).save()
    models = pair()
    next(models["teacher"].parameters()).data[0] += 1
    with pytest.raises(ValueError, match="other frozen weights"):
        trainer(tmp_path, objective="distilled", models=models).resume()


def test_a_missing_teacher_is_refused(distilled, fresh):
    with pytest.raises(ValueError, match="'teacher'"):
        distilled({"student": fresh("Dream")})


# --- adapters ---


def test_without_its_adapter_the_student_is_its_own_teacher(distilled, adapted, fresh, mixed):
    objective = distilled(adapted())
    before = fresh("Dream").eval()(mixed.ids).logits
    for name, parameter in objective.trained.items():
        torch.nn.init.normal_(parameter, std=0.5)
        assert "lora_" in name
    with objective.frozen("teacher") as teacher:
        assert torch.equal(teacher(mixed.ids).logits, before)
    assert objective.student.training and set(objective.trained) == set(distilled(adapted()).trained)
    after = objective.student.eval()(mixed.ids).logits
    assert not torch.allclose(after, before, atol=1e-2)

    whole = merged(objective.student)
    assert type(whole) is type(objective.student)
    assert set(whole.state_dict()) == set(fresh("Dream").state_dict())
    assert torch.allclose(whole(mixed.ids).logits, after, atol=1e-5)
    assert torch.equal(objective.student(mixed.ids).logits, after)  # a copy was merged


def test_an_adapter_changes_nothing_at_first_and_names_modules_that_are_not_there(fresh, mixed):
    model = fresh("llada")
    before = model.eval()(mixed.ids).logits
    with pytest.raises(ValueError, match="no linear module attn_out, ff_out; it has .*q_proj"):
        add_adapter(model, Lora(target_modules=["q_proj", "ff_out", "attn_out"]))
    add_adapter(model, Lora(target_modules=["q_proj"]))
    assert torch.equal(model.eval()(mixed.ids).logits, before)


def test_activations_that_are_computed_again_change_no_weight(trainer, adapted, tmp_path):
    weights, forwards = [], []
    for again in (False, True):
        models, count = adapted(), []
        if again:
            models["student"].activation_checkpointing_enable({"use_reentrant": False})
        layer = models["student"].model.layers[0]
        layer.self_attn.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        t = trainer(tmp_path / str(again), objective="distilled", models=models)
        losses = [t.step() for _ in range(2)]
        weights.append((losses, [p.detach().clone() for p in t.trained.values()]))
        forwards.append(len(count))
    assert weights[0][0] == weights[1][0]
    assert all(torch.equal(a, b) for a, b in zip(weights[0][1], weights[1][1], strict=True))
    assert forwards[1] > forwards[0]  # the student's, not its teacher's


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"rank": 4}, "rank.*r, alpha, dropout, target_modules"),
        ({"r": 0}, "lora: r=0"),
        ({"r": "four"}, "four"),
        ({"dropout": 1.0}, "dropout"),
        ({"target_modules": []}, "target_modules is empty"),
        (3, "lora: "),
    ],
)
def test_wrong_settings_of_an_adapter_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Lora.of(settings)


# --- train.py ---


@pytest.fixture
def command(run_command, small_chunks, parent, tmp_path):
    def command(*arguments):
        shared = ["recipe=tiny_qwen", "objective=distilled", *OPTIONS]
        folders = [f"init_from={parent}", f"folder={tmp_path / 'state'}", f"output={tmp_path / 'out'}"]
        return run_command(train, *shared, *folders, *arguments)

    return command


def test_train_command_with_a_teacher_and_an_adapter(command, parent, tmp_path, mixed):
    code, out, err = command("lora={r: 4, alpha: 16, target_modules: [q_proj, v_proj]}", "lr=0.1")
    assert code == 0, err
    assert "(224 trained)" in out
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    start = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32)
    changed = [
        name
        for name, p in made.named_parameters()
        if not torch.equal(p, start.get_parameter(name).half().float())
    ]
    assert changed == [f"model.layers.0.self_attn.{name}_proj.weight" for name in ("q", "v")]


def test_an_adapter_that_is_written_alone_is_the_merged_model(command, parent, tmp_path):
    lora = "r: 4, alpha: 16, target_modules: [q_proj, v_proj]"
    for name, whole in (("whole", "true"), ("alone", "false")):
        words = [f"lora={{{lora}, merge: {whole}}}", "lr=0.1", f"folder={tmp_path / name / 'state'}"]
        code, _, err = command(*words, f"output={tmp_path / name}")
        assert code == 0, err
    files = {"adapter_config.json", "adapter_model.safetensors", "training.json", "learning_curve.png"}
    assert {path.name for path in (tmp_path / "alone").iterdir() if path.is_file()} == files
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    start = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32)
    check(start, tmp_path / "alone")
    changed = merge(start, tmp_path / "alone")
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(changed.get_parameter(name), parameter, atol=2e-3, rtol=2e-3)
    assert json.loads((tmp_path / "alone" / "training.json").read_text())["trained_parameters"] == 224


def test_what_is_frozen_is_in_the_dtype_of_the_forwards(command, parent, tmp_path, monkeypatch):
    made = []
    real = Trainer.__post_init__
    monkeypatch.setattr(Trainer, "__post_init__", lambda self: made.append(self) or real(self))
    lora = "lora={r: 4, alpha: 16, target_modules: [q_proj, v_proj]}"
    for words in ([lora], [f"+frozen.teacher={parent}", f"folder={tmp_path / 'other'}"]):
        code, _, err = command(*words, "dtype=bfloat16", "tokens=300")
        assert code == 0, err
        kinds = {p.requires_grad: set() for p in made[-1].objective.parameters()}
        for parameter in made[-1].objective.parameters():
            kinds[parameter.requires_grad].add(parameter.dtype)
        assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}
    with_lora, without = (t.objective.student.is_activation_checkpointing for t in made)
    assert with_lora and not without


def test_train_command_takes_a_teacher_from_a_folder(command, parent, tmp_path):
    code, out, err = command(f"+frozen.teacher={parent}")
    assert code == 0 and "resumed" not in out, err
    # The copy of the start is the same model: the state goes on, but for the setting's name.
    code, _, err = command()
    assert code == 2 and "other settings (frozen)" in err


@pytest.mark.parametrize(
    "override, message",
    [
        ("+frozen.target=x", "distilled has no role target; it has teacher"),
        ("+frozen.teacher=nowhere", "frozen.teacher=nowhere"),
        ("+frozen.teacher=checkpoints/tiny_qwen", "needs a diffusion model"),
        ("lora={target_modules: [query]}", "no linear module query"),
        ("lora=3", "lora"),
    ],
)
def test_train_command_refuses(command, override, message, tmp_path):
    code, _, err = command(override)
    assert code == 2 and message in err
    assert not list(tmp_path.iterdir())
