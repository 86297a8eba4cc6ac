"""One loop: exact resume, a curve, a limit of tokens, a schedule, signals."""

import signal
from itertools import pairwise

import pandas as pd
import pytest
import torch

from unmask.report.learning import learning_curve
from unmask.training.muon import orthogonalise
from unmask.training.optimization import Schedule, optimizers
from unmask.training.validation import Validation


@pytest.mark.parametrize("layout, objective", [("qwen2", "autoregressive"), ("Dream", "masked_diffusion")])
def test_resumed_training_is_the_uninterrupted_one(trainer, tmp_path, layout, objective):
    straight = trainer(tmp_path / "a", layout, objective)
    losses = [straight.step() for _ in range(6)]
    first = trainer(tmp_path / "b", layout, objective)
    again = [first.step() for _ in range(3)]
    first.save()
    second = trainer(tmp_path / "b", layout, objective)
    assert second.resume()
    again += [second.step() for _ in range(3)]
    assert again == losses
    assert second.seen == straight.seen and second.rate == straight.rate
    for name, parameter in straight.trained.items():
        assert torch.equal(parameter, second.trained[name])


def test_state_of_other_settings_is_refused(trainer, tmp_path):
    trainer(tmp_path, settings={"lr": 1, "seed": 0}).save()
    with pytest.raises(ValueError, match=r"other settings \(lr\)"):
        trainer(tmp_path, settings={"lr": 2, "seed": 0}).resume()


@pytest.mark.parametrize("content", [b"", b"no state", None])
def test_a_state_that_cannot_be_read_is_refused_by_name(trainer, tmp_path, content):
    t = trainer(tmp_path)
    t.save()
    whole = t.state_file.read_bytes()
    t.state_file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match="state.pt.*delete it to start again"):
        trainer(tmp_path).resume()


def test_a_state_of_another_version_is_refused(trainer, tmp_path):
    torch.save({"model": {}, "settings": {}}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="another version"):
        trainer(tmp_path).resume()


def test_a_state_of_another_model_is_refused(trainer, tmp_path):
    trainer(tmp_path, "Dream", "masked_diffusion").save()
    with pytest.raises(ValueError, match="weights of another model"):
        trainer(tmp_path, "llada", "masked_diffusion").resume()


def test_run_ends_at_its_tokens_and_writes_the_curve(trainer, tmp_path):
    t = trainer(tmp_path, tokens=2000)
    t.run(log_every=1)
    assert t.seen >= 2000 and t.steps < 8
    assert (tmp_path / "curve.csv").read_text().startswith("step,tokens,seconds,loss,lr,accuracy")
    rates = [row["lr"] for row in t.curve]
    assert all(rate > 0 for rate in rates)


def test_a_loss_that_is_not_finite_changes_nothing(trainer, tmp_path):
    t = trainer(tmp_path)
    t.step()
    before = {name: p.detach().clone() for name, p in t.trained.items()}
    real = t.loss
    t.loss = lambda *args: real(*args) * float("nan")
    with pytest.raises(ValueError, match="loss is nan at step 1: lower `lr`"):
        t.step()
    assert all(torch.equal(p, before[name]) for name, p in t.trained.items()) and t.steps == 1


def test_validation_is_measured_when_due_and_does_not_change_the_training(trainer, tokenizer, tmp_path):
    losses = []
    for validation in (None, Validation(tokenizer, count=3, max_new_tokens=4, every=1500)):
        folder = tmp_path / str(validation is None)
        t = trainer(folder, "Dream", "masked_diffusion", validation=validation)
        t.run(log_every=1)
        losses.append([row["loss"] for row in t.curve])
    assert losses[0] == losses[1]
    measured = [row["accuracy"] is not None for row in t.curve]
    before = [0, *(row["tokens"] for row in t.curve)]
    due = [b // 1500 > a // 1500 for a, b in pairwise(before)]
    assert measured[:-1] == due[:-1] and measured[-1] and not all(measured)


def test_the_curve_has_a_column_for_each_decoder(trainer, tmp_path):
    """Also where a later start watches more decoders than the first."""

    class Measured:
        every = 1

        def __init__(self, **columns):
            self.columns = columns

        def __call__(self, objective):
            return self.columns

    first = trainer(tmp_path, tokens=1500, validation=Measured(accuracy=0.25))
    first.run(log_every=1)
    second = trainer(tmp_path, tokens=3000, validation=Measured(accuracy=0.5, accuracy_random=0.75))
    assert second.resume()
    second.run(log_every=1)
    curve = pd.read_csv(tmp_path / "curve.csv")
    assert list(curve)[-2:] == ["accuracy", "accuracy_random"]
    assert set(curve.accuracy) == {0.25, 0.5} and curve.accuracy_random.isna().any()
    assert curve.accuracy_random.dropna().eq(0.75).all()
    learning_curve(pd.read_csv(tmp_path / "curve.csv"), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_stopped_training_saves_goes_on_exactly_and_gives_the_signals_back(trainer, tmp_path):
    straight = trainer(tmp_path / "a")
    straight.run(log_every=3)
    stopped, steps = trainer(tmp_path / "b"), []
    real = stopped.step

    def step():
        steps.append(real())
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return steps[-1]

    stopped.step = step
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="the same command"):
        stopped.run(log_every=3)
    assert len(steps) == 2 and signal.getsignal(signal.SIGINT) is handler
    again = trainer(tmp_path / "b")
    assert again.resume()
    again.run(log_every=3)
    keys = ("step", "tokens", "loss", "lr")
    assert [[row[k] for k in keys] for row in again.curve] == [
        [row[k] for k in keys] for row in straight.curve
    ]
    assert [s["from_step"] for s in again.sessions] == [0, 2]


# --- optimization ---


def test_the_rate_rises_stays_and_falls():
    s = Schedule(peak=1.0, warmup=0.1, decay=0.5)
    steps = [(0, 0.05), (0.05, 0.1), (0.1, 0.15), (0.4, 0.45), (0.75, 0.8), (0.9, 0.95)]
    assert [round(s(*step), 3) for step in steps] == [0.5, 1, 1, 1, 0.5, 0.2]


@pytest.mark.parametrize("warmup, decay", [(0.02, 0.3), (0, 0), (1, 1), (0.5, 1)])
def test_no_step_has_a_rate_of_zero(warmup, decay):
    """The first one had: its gradient was computed for nothing. Nor has the last, which runs over the end."""
    s = Schedule(0.01, warmup, decay)
    assert s(0, 0.001) > 0 and s(0.999, 1.002) > 0
    assert max(s(i / 100, (i + 1) / 100) for i in range(100)) <= 0.01


def test_a_first_step_changes_the_weights(trainer, tmp_path):
    t = trainer(tmp_path)
    before = {name: p.detach().clone() for name, p in t.trained.items()}
    t.step()
    assert not any(torch.equal(p, before[name]) for name, p in t.trained.items())


@pytest.mark.parametrize("settings", [{"peak": 0.0}, {"peak": 1.0, "warmup": 2}, {"peak": 1.0, "decay": -1}])
def test_a_schedule_that_is_none_is_refused(settings):
    with pytest.raises(ValueError, match=list(settings)[-1].replace("peak", "lr")):
        Schedule(**settings)


def test_matrices_of_layers_go_to_muon_and_the_rest_to_adamw(fresh):
    named = dict(fresh("Dream").named_parameters())
    muon, adamw = optimizers(named, weight_decay=0.01)
    names = {id(p): name for name, p in named.items()}
    chosen = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert chosen and all("layers" in name and "norm" not in name and "bias" not in name for name in chosen)
    assert len(chosen) + sum(len(group["params"]) for group in adamw.param_groups) == len(named)


def test_orthogonalise_makes_singular_values_one():
    x = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(x, steps=8))
    assert values.min() > 0.6 and values.max() < 1.3
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    assert torch.allclose((left @ right * orthogonalise(x)).sum((1, 2)) / 8, torch.ones(3), atol=0.3)
