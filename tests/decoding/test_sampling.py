"""Filters, noise and the Gumbel trick: against slow references and the law they must follow."""

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from unmask.decoding.sampling import (
    ALL,
    LARGE,
    PARTS,
    Sampling,
    at_least_one,
    exclude,
    greatest,
    step_generator,
)

CPU = torch.device("cpu")


class Drawn(Sampling):
    """It uses all three settings."""

    sampling = ALL


@pytest.fixture
def logits():
    return 2 * torch.randn(40, 23, generator=torch.Generator().manual_seed(0))


def nucleus(row, top_p):
    """Ids kept by top-p, one at a time: the most likely ones until their probabilities reach top_p."""
    probabilities, kept, total = row.double().softmax(-1), [], 0.0
    for i in sorted(range(len(row)), key=lambda i: -row[i]):
        if total >= top_p:
            break
        kept.append(i)
        total += probabilities[i].item()
    return kept


@pytest.mark.parametrize("size", [23, LARGE, LARGE + PARTS, LARGE + 1])
def test_the_greatest_of_a_large_vocabulary_is_found_in_parts(size, monkeypatch):
    """Of equal ones the first, as everywhere: few values, so that most rows have several."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(20, (3, 4, size + 1), generator=generator).float()[..., 1:]
    scores[0, 0] = -torch.inf
    scores[0, 1, size // 2 :] = torch.inf
    scores[0, 2, -1] = scores[0, 2, size // 3] = torch.nan
    ids, searched = greatest(scores), []
    assert torch.equal(ids[..., None], scores.argmax(-1, keepdim=True))
    assert ids[0, :3].tolist() == [0, size // 2, size // 3]
    monkeypatch.setattr(
        torch.Tensor, "amax", lambda *args: searched.append(args) or args[0].max(args[1]).values
    )
    assert torch.equal(greatest(scores), ids) and bool(searched) == (size >= LARGE and size % PARTS == 0)


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_top_p_keeps_the_smallest_set_that_reaches_it(logits, top_p, temperature):
    scores = Drawn(temperature=temperature, top_p=top_p).scores(logits)
    for row, tempered in zip(scores, logits / temperature, strict=True):
        kept = nucleus(tempered, top_p)
        assert row.isfinite().nonzero()[:, 0].tolist() == sorted(kept)
        assert torch.equal(row[kept], tempered[kept])
    torch.testing.assert_close(scores, TopPLogitsWarper(top_p)(None, logits / temperature))


def test_top_p_reached_exactly_adds_no_further_token():
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    assert Drawn(temperature=1.0, top_p=0.5).scores(logits).isfinite().tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert Drawn(temperature=1.0, top_p=0.75).scores(logits).isfinite().tolist() == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("top_k", [1, 3, 22, 23, 99])
def test_top_k_keeps_the_k_highest(logits, top_k):
    scores = Drawn(temperature=0.5, top_k=top_k).scores(logits)
    assert scores.isfinite().sum(-1).eq(min(top_k, 23)).all()
    torch.testing.assert_close(scores, TopKLogitsWarper(top_k)(None, logits / 0.5))


def test_filters_work_on_a_single_row_and_together_keep_what_both_keep(logits):
    both = Drawn(temperature=1.0, top_p=0.8, top_k=4).scores(logits)
    for row, single in zip(both, logits, strict=True):
        assert torch.equal(row, Drawn(temperature=1.0, top_p=0.8, top_k=4).scores(single))
        assert row.isfinite().nonzero()[:, 0].tolist() == sorted(nucleus(single, 0.8)[:4])


def test_greedy_draws_no_noise_and_filters_change_how_sure_it_looks_but_no_token(logits):
    sampling = Drawn(temperature=0.0, top_p=0.8, top_k=4)
    assert sampling.noise(step_generator(0, 0, CPU), logits.shape) is None
    assert sampling.gumbel([(0, 0)], range(1), logits) is None
    assert torch.equal(sampling.pick(logits, None), logits.argmax(-1))
    scores = sampling.scores(logits)
    assert torch.equal(scores, Drawn(temperature=1.0, top_p=0.8, top_k=4).scores(logits))
    assert torch.equal(scores.argmax(-1), logits.argmax(-1))
    assert Drawn().scores(logits) is logits


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (0.7, 0.8)])
def test_picks_follow_the_softmax(lab, temperature, top_p):
    logits = torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0, -3.0])
    sampling = Drawn(temperature=temperature, top_p=top_p)
    law = sampling.scores(logits.double()).softmax(-1)
    picks = sampling.pick(logits.expand(20_000, -1), sampling.noise(step_generator(3, 0, CPU), (20_000, 6)))
    counts = picks.bincount(minlength=6)
    assert counts[law == 0].sum() == 0
    assert lab.law_pvalue(counts[law > 0], law[law > 0]) > 1e-3


def test_noise_is_finite_and_standard_gumbel():
    noise = Drawn(temperature=1.0).noise(step_generator(1, 1, CPU), (2_000, 1_000))
    assert noise.dtype == torch.float32 and noise.isfinite().all()
    assert noise.mean() == pytest.approx(0.5772, abs=5e-3) and noise.var() == pytest.approx(1.6449, abs=2e-2)


def test_noise_depends_on_seed_and_step_alone():
    def draw(seed, step):
        return Drawn(temperature=1.0).noise(step_generator(seed, step, CPU), (8,))

    assert torch.equal(draw(5, 3), draw(5, 3))
    seeds = (0, 1, 2, -1, 2**32, 2**32 + 1, 2**40)  # a CPU generator reads 32 bits of its seed
    draws = {tuple(draw(seed, step).tolist()) for seed in seeds for step in range(20)}
    assert len(draws) == 20 * len(seeds)


def test_noise_does_not_depend_on_threads_and_more_rows_leave_the_first_as_they_are():
    sampling, threads = Drawn(temperature=1.0), torch.get_num_threads()
    one = sampling.noise(step_generator(0, 0, CPU), (300, 1_000))
    try:
        torch.set_num_threads(2)
        assert torch.equal(one, sampling.noise(step_generator(0, 0, CPU), (300, 1_000)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one[:7], sampling.noise(step_generator(0, 0, CPU), (7, 1_000)))


def test_an_excluded_token_never_wins():
    logits = torch.zeros(2, 4, dtype=torch.bfloat16)
    without = exclude(logits, 3)
    assert without.dtype == torch.float32
    assert without.isinf().tolist() == [[False, False, False, True]] * 2
    assert exclude(logits, None).isfinite().all()
    assert exclude(logits, 9).isfinite().all()  # an id past a cut vocabulary


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, "a", True])
def test_at_least_one(value):
    with pytest.raises(ValueError, match="tokens"):
        at_least_one(other=3, tokens=value)
    at_least_one(tokens=None, other=1)


def test_picks_without_sorting_are_those_of_the_filtered_scores():
    generator = torch.Generator().manual_seed(7)
    for settings in ({"top_p": 0.3}, {"top_p": 0.9}, {"top_k": 2}, {"top_p": 0.6, "top_k": 5}):
        sampling = Drawn(temperature=1.5, **settings)
        logits = torch.randn(2_000, 40, generator=generator)
        noise = sampling.noise(generator, logits.shape)
        assert torch.equal(sampling.pick(logits, noise), (sampling.scores(logits) + noise).argmax(-1))


def test_a_position_has_numbers_of_its_own():
    sampling, logits = Drawn(temperature=1.0), torch.zeros(1, 50)
    every = sampling.gumbel([(3, 0), (3, 1), (4, 0)], range(8), logits)
    assert torch.equal(sampling.gumbel([(3, 1)], range(5, 8), logits)[0], every[1, 5:])
    assert len({tuple(row) for row in every.flatten(0, 1).tolist()}) == 24


@pytest.mark.parametrize("setting", [{"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}])
def test_a_setting_that_is_not_declared_is_refused_unless_it_does_nothing(setting):
    (name,) = setting
    Sampling(temperature=0.0, top_p=1.0, top_k=None)
    with pytest.raises(ValueError, match=f"{name}=.*Sampling does not use {name}"):
        Sampling(**setting)

    class Declares(Sampling):
        sampling = (name,)

    assert getattr(Declares(**setting), name) == setting[name]


def test_the_lowest_temperature_is_greedy_as_far_as_float32_tells(logits):
    sampling = Drawn(temperature=1e-6)
    noise = sampling.noise(step_generator(0, 0, CPU), logits.shape)
    assert torch.equal(sampling.pick(logits, noise), logits.argmax(-1))
    assert sampling.scores(logits).softmax(-1).isfinite().all()
    with pytest.raises(ValueError, match=r"temperature=1e-300 is too low to compute with: 0 \(greedy\)"):
        Drawn(temperature=1e-300)
