"""Log-likelihoods against sums over all masks, all orders and all answers, on tiny vocabularies."""

from dataclasses import replace
from itertools import combinations, permutations
from math import comb, factorial, log

import pytest
import torch

from unmask.evaluation.likelihood import Denoiser, Likelihood, all_masks, causal, draw_masks, mean_of_batches
from unmask.models.layouts import LAYOUTS
from unmask.testing.oracle import Oracle, ReplaceRandom, Shuffle
from unmask.testing.small_models import (
    MASK,
    SHAPE,
    Hook,
    frozen,
    small_dream,
    small_llada,
    small_qwen,
)

CONTEXT, TEXT = [3, 1, 4, 1, 5], [9, 2, 6, 5]


def log_prob(model, context, text, hidden, column, **kwargs):
    """log p of one token of `text`, with the tokens at the indices `hidden` masked."""
    row = [*context, *(MASK if i in hidden else token for i, token in enumerate(text))]
    logits = model(input_ids=torch.tensor([row]), **kwargs).logits[0, len(context) + column]
    return logits.double().log_softmax(-1)[text[column]].item()


def over_orders(model, context, text):
    """The mean over all orders of the tokens, written one by one."""
    found = 0.0
    for order in permutations(range(len(text))):
        found += sum(log_prob(model, context, text, order[i:], column) for i, column in enumerate(order))
    return found / factorial(len(text))


@pytest.mark.parametrize("build", [small_dream, small_llada])
def test_all_masks_make_the_mean_over_all_orders(build):
    model = build()
    found = Denoiser(model, MASK).likelihood(CONTEXT, TEXT, seed=0)
    assert found.value == pytest.approx(over_orders(model, CONTEXT, TEXT), abs=1e-4)
    assert (found.error, found.samples, found.forwards) == (0.0, 15, 15)
    assert found.positions == 15 * 9 and found.tokens == 4


def test_the_sum_over_all_masks_is_the_published_formula():
    model, length = small_llada(), len(TEXT)
    wanted = 0.0
    for size in range(1, length + 1):
        for hidden in combinations(range(length), size):
            lost = sum(log_prob(model, CONTEXT, TEXT, hidden, column) for column in hidden)
            wanted += length / size * lost / (length * comb(length, size))
    assert Denoiser(model, MASK).likelihood(CONTEXT, TEXT, 0).value == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("task", "answer", "chance"),
    [
        (Shuffle(4), [2, 0, 3, 1], 1 / 24),
        (ReplaceRandom(4), [0, 5, 2, 3], 1 / 4),
    ],
)
def test_the_bound_is_the_likelihood_where_the_conditionals_are_of_one_joint(task, answer, chance):
    prompt = [0, 1, 2, 3, 5][: task.prompt_length]
    exact = Denoiser(Oracle(task, 6), 6).likelihood(prompt, answer, 0)
    assert exact.value == pytest.approx(log(chance), abs=1e-5)
    drawn = Denoiser(Oracle(task, 6), 6, samples=8, batch=2).likelihood(prompt, answer, 0)
    assert drawn.samples == 8 and drawn.error is not None
    (joint,) = causal(Oracle(task, 6, causal=True), [prompt], [answer])
    assert joint.value == pytest.approx(log(chance), abs=1e-5)


def test_intervals_of_stratified_draws_cover_the_exact_bound():
    model = small_llada()
    exact = Denoiser(model, MASK).likelihood(CONTEXT, TEXT, 0).value
    drawing = Denoiser(model, MASK, samples=14, batch=2)  # 15 masks there are: these are drawn
    found = [drawing.likelihood(CONTEXT, TEXT, seed) for seed in range(200)]
    assert {each.samples for each in found} == {14}
    covered = sum(abs(each.value - exact) <= each.error for each in found)
    assert 178 <= covered <= 199  # 95%, within four standard errors, of means that are not quite normal
    mean = sum(each.value for each in found) / len(found)
    spread = torch.tensor([each.value for each in found]).std().item() / len(found) ** 0.5
    assert abs(mean - exact) < 4 * spread
    assert drawing.likelihood(CONTEXT, TEXT, 7) == drawing.likelihood(CONTEXT, TEXT, 7)
    assert Denoiser(model, MASK, samples=8, batch=8).likelihood(CONTEXT, TEXT, 0).error is None


def test_sizes_of_a_batch_are_spaced_and_each_is_as_likely():
    generator = torch.Generator().manual_seed(0)
    for length, batch in ((8, 4), (4, 8), (7, 3)):
        counts, places = torch.zeros(length), torch.zeros(length)
        for _ in range(3000):
            masks = draw_masks(length, batch, generator)
            sizes = masks.sum(1)
            gaps = (sizes - sizes.roll(1)) % length
            assert {int(gap) for gap in gaps} <= {length // batch, -(-length // batch), 0}
            counts += torch.bincount(sizes - 1, minlength=length)
            places += masks.sum(0)
        assert (counts / counts.mean() - 1).abs().max() < 0.1
        assert (places / places.mean() - 1).abs().max() < 0.05


def test_weights_of_all_masks_are_one_mean():
    masks, weights = all_masks(5)
    assert len(masks.unique(dim=0)) == 31
    # each mask counts L / l times: with that taken out they are probabilities
    assert (weights * masks.sum(1) / 5).sum().item() == pytest.approx(1)
    assert mean_of_batches([1.0, 3.0]) == (2.0, pytest.approx(12.706, abs=1e-2))


@pytest.mark.parametrize("name", ["a2d-qwen3", "sdar", "Fast_dLLM_Qwen"])
def test_a_block_causal_models_bound_is_the_sum_of_its_blocks(name):
    """Blocks of 4, 5 tokens of context, 6 of text: blocks 5-7 and 8-10 from column 0, 5-8 and 9-10 else."""
    layout, text = LAYOUTS[name], [9, 2, 6, 5, 3, 5]
    torch.manual_seed(4)
    known = {"head_dim": 8} if name != "Fast_dLLM_Qwen" else {}
    model = frozen(layout.model(layout.config(**SHAPE, **known, mask_token_id=MASK)))
    scoring = Denoiser(model, MASK, block_length=4, blocks_from=layout.blocks_from)
    first = 0 if layout.blocks_from == "column_0" else 1
    stops = [8, 11] if first == 0 else [9, 11]
    assert [columns.stop for columns in scoring.blocks(5, 11)] == stops
    block = (torch.arange(11) - first).div(4, rounding_mode="floor")
    sees = (block[:, None] >= block[None])[None, None]
    wanted, begin = 0.0, 0
    for stop in (stop - 5 for stop in stops):
        size = stop - begin
        for count in range(1, size + 1):
            for hidden in combinations(range(begin, stop), count):
                mask = {"attention_mask": sees[..., : 5 + stop, : 5 + stop]}
                lost = sum(log_prob(model, CONTEXT, text[:stop], hidden, column, **mask) for column in hidden)
                wanted += lost / (count * comb(size, count))
        begin = stop
    found = scoring.likelihood(CONTEXT, text, 0)
    assert found.value == pytest.approx(wanted, abs=1e-4)
    assert found.samples == sum(2 ** (b - a) - 1 for a, b in zip([5, *stops], stops, strict=False))
    if first == 0:  # so a longer context has the same blocks, and the bound goes on where it ended
        left, right = text[: stops[0] - 5], text[stops[0] - 5 :]
        one = scoring.likelihood(CONTEXT, left, 0)
        other = scoring.likelihood([*CONTEXT, *left], right, 0)
        assert (one + other).value == pytest.approx(found.value, abs=1e-4)


def test_a_causal_models_are_transformers_own_whatever_the_batch(monkeypatch):
    model = small_qwen()
    texts = [TEXT, [7], [2, 2, 8, 0, 1, 3, 3]]
    contexts = [CONTEXT, [8, 1, 2, 3, 4, 5, 6, 7], [6]]
    wanted = []
    for context, text in zip(contexts, texts, strict=True):
        ids = torch.tensor([[*context, *text]])
        labels = ids.clone()
        labels[:, : len(context)] = -100
        wanted.append(-model(input_ids=ids, labels=labels).loss.item() * len(text))
    found = causal(model, contexts, texts)
    assert [each.value for each in found] == pytest.approx(wanted, abs=1e-4)
    assert [each.positions for each in found] == [8, 8, 7]
    assert all(each.error == 0 and each.samples == 0 and each.forwards == 1 for each in found)
    monkeypatch.setattr("unmask.evaluation.likelihood.CHUNK", 3)  # columns: long texts go piece by piece
    assert [each.value for each in causal(model, contexts, texts)] == pytest.approx(wanted, abs=1e-4)


def test_greedy_continuations_are_known():
    model = small_qwen()
    text = model.generate(torch.tensor([CONTEXT]), do_sample=False, max_new_tokens=3)[0, 5:].tolist()
    other = [*text[:2], (text[2] + 1) % 14]
    assert [each.greedy for each in causal(model, [CONTEXT] * 2, [text, other])] == [True, False]

    denoiser, canvas = small_llada(), [*CONTEXT, MASK, MASK, MASK]
    for _ in range(3):  # LLaDA's low-confidence order, one token a forward
        probs = denoiser(input_ids=torch.tensor([canvas])).logits[0].softmax(-1)
        open_ = [i for i, token in enumerate(canvas) if token == MASK]
        column = max(open_, key=lambda i: probs[i].max().item())
        canvas[column] = int(probs[column].argmax())
    scoring = Denoiser(denoiser, MASK, check_greedy=True)
    right = scoring.likelihood(CONTEXT, canvas[5:], 0)
    assert right.greedy is True and right.forwards == 7 + 3
    wrong = scoring.likelihood(CONTEXT, [(token + 1) % 14 for token in canvas[5:]], 0)
    assert wrong.greedy is False and wrong.forwards == 7 + 1
    assert replace(scoring, check_greedy=False).likelihood(CONTEXT, canvas[5:], 0).greedy is None
    blocks = replace(scoring, block_length=2)
    assert blocks.likelihood(CONTEXT, canvas[5:], 0).greedy in (True, False)


@pytest.mark.parametrize("samples", [128, 6])
def test_what_is_claimed_is_what_the_model_saw(samples):
    model = small_dream()
    hook = Hook(model)
    found = Denoiser(model, MASK, samples=samples, batch=3, check_greedy=True).likelihood(CONTEXT, TEXT, 0)
    assert (hook.rows, hook.positions) == (found.forwards, found.positions)


def test_one_after_the_other_adds_up():
    one, other = Likelihood(-1.0, 3.0, True, 2, 4, 4, 40), Likelihood(-2.0, 4.0, None, 1, 1, 1, 5)
    assert one + other == Likelihood(-3.0, 5.0, None, 3, 5, 5, 45)
    assert (one + replace(other, greedy=False, error=None)).greedy is False
    assert (one + replace(other, error=None)).error is None
