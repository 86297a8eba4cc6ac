"""Unmasking in any order, rank x quota: which positions each step commits."""

import math

import pytest
import torch
from scipy.stats import binom

from unmask.decoding.ranks import RANKS
from unmask.decoding.unmasking import Unmasking


def certain(lab, *strengths):
    """A denoiser that is the surer of position i (token i) the higher strengths[i]; all three rankings agree
    on it."""
    logits = lab.favourites(*range(len(strengths)))
    logits[range(len(strengths)), range(len(strengths))] = torch.tensor(strengths, dtype=torch.float)
    return lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))


def order(decoder, lab, *strengths, **kwargs):
    """Canvas positions committed by each step; the tokens are checked."""
    _, steps = lab.trace(decoder, certain(lab, *strengths), [0, 1], len(strengths), **kwargs)
    assert all(positions == ids for positions, ids in steps)
    return [positions for positions, _ in steps]


@pytest.mark.parametrize("rank", RANKS)
def test_surest_first(lab, rank):
    strengths = (1, 5, 3, 2, 6, 4)
    assert order(Unmasking(rank=rank), lab, *strengths) == [[4], [1], [5], [2], [3], [0]]
    assert order(Unmasking(rank=rank, steps=3), lab, *strengths) == [[4, 1], [5, 2], [3, 0]]
    assert order(Unmasking(rank=rank, steps=1), lab, *strengths) == [[4, 1, 5, 2, 3, 0]]
    assert order(Unmasking(rank=rank, steps=4), lab, *strengths) == [
        [4, 1],
        [5, 2],
        [3],
        [0],
    ]  # the remainder goes first
    assert order(Unmasking(rank=rank, steps=99), lab, *strengths) == order(
        Unmasking(rank=rank), lab, *strengths
    )


@pytest.mark.parametrize("rank", RANKS)
def test_blocks_from_the_left(lab, rank):
    strengths = (1, 5, 3, 2, 6, 4)
    assert order(Unmasking(rank=rank, block_length=3), lab, *strengths) == [[1], [2], [0], [4], [5], [3]]
    assert order(Unmasking(rank=rank, block_length=3, steps=4), lab, *strengths) == [[1, 2], [0], [4, 5], [3]]
    assert order(Unmasking(rank=rank, block_length=3, steps=3), lab, *strengths) == [[1, 2], [0], [4, 5, 3]]
    assert order(Unmasking(rank=rank, block_length=2, steps=3), lab, *strengths) == [[1, 0], [2, 3], [4, 5]]
    assert order(Unmasking(rank=rank, block_length=1), lab, *strengths) == [[0], [1], [2], [3], [4], [5]]
    assert order(Unmasking(rank=rank, block_length=6, steps=2), lab, *strengths) == order(
        Unmasking(rank=rank, steps=2), lab, *strengths
    )


@pytest.mark.parametrize("rank", RANKS)
def test_ties_go_left_to_right(lab, rank):
    assert order(Unmasking(rank=rank, steps=3), lab, *[1000] * 7) == [[0, 1, 2], [3, 4], [5, 6]]
    assert order(Unmasking(rank=rank), lab, 2, 1000, 3, 1000) == [[1], [3], [2], [0]]
    if rank != "entropy":  # of what is not certain it depends on the order in which a processor adds
        assert order(Unmasking(rank=rank, steps=3), lab, *[3] * 7) == [[0, 1, 2], [3, 4], [5, 6]]
        assert order(Unmasking(rank=rank), lab, 2, 4, 2, 4) == [[1], [3], [0], [2]]


def scripted(lab, *rows):
    """A denoiser whose distribution at position i is rows[i]: the probabilities of ids 0, 1, ... (and none of
    the rest)."""
    probabilities = torch.full((len(rows), lab.V), 1e-12)
    for row, given in zip(probabilities, rows, strict=True):
        row[: len(given)] = torch.tensor(given)
    return lab.Models(lab.Scripted(lab.on_canvas(probabilities.log()), lab.MASK))


def positions(decoder, lab, models, max_new_tokens, **kwargs):
    """Canvas positions committed by each step."""
    return [positions for positions, _ in lab.trace(decoder, models, [0, 1], max_new_tokens, **kwargs)[1]]


def test_the_three_ranks(lab):
    """Probabilities chosen so that no two ranks agree on any of the positions."""
    models = scripted(
        lab,
        [0.50, 0.30, 0.05, 0.05, 0.05, 0.05],  # margin 0.20, entropy 1.31
        [0.46, 0.135, 0.135, 0.135, 0.135],  # margin 0.325, entropy 1.44
        [0.48, 0.47, 0.05],  # margin 0.01, entropy 0.86
    )
    orders = {rank: positions(Unmasking(rank=rank), lab, models, 3) for rank in RANKS}
    assert orders == {
        "confidence": [[0], [2], [1]],
        "margin": [[1], [0], [2]],
        "entropy": [[2], [0], [1]],
    }


@pytest.mark.parametrize("rank", ["confidence", "entropy"])
@pytest.mark.parametrize("settings", [{"top_k": 2}, {"temperature": 0.1}, {"temperature": 0.1, "top_k": 3}])
def test_ranks_are_of_the_tempered_probabilities_or_of_the_models_own(lab, rank, settings):
    """The model itself is surer of position 0; what a filter or a low temperature leaves of it, of 1."""
    models = scripted(lab, [0.50, 0.49, 0.01], [0.45, 0.055, *[0.0495] * 10])
    for seed in range(5):
        dream = Unmasking(rank=rank, rank_tempered=True, **settings)
        assert positions(dream, lab, models, 2, seed=seed) == [[1], [0]]
        llada = Unmasking(rank=rank, rank_tempered=False, **settings)
        assert positions(llada, lab, models, 2, seed=seed) == [[0], [1]]
    for tempered in (True, False):  # greedy and unfiltered, the two are one
        decoder = Unmasking(rank=rank, rank_tempered=tempered)
        assert positions(decoder, lab, models, 2) == [[0], [1]]


@pytest.mark.parametrize("rank", RANKS)
def test_a_filter_that_leaves_one_token_makes_all_positions_equally_sure(lab, rank):
    models = scripted(lab, [0.5, 0.49, 0.01], [0.9, 0.1], [0.6, 0.4])
    one_left = {"temperature": 1.0, "top_k": 1}
    tempered = Unmasking(rank=rank, rank_tempered=True, **one_left)
    assert positions(tempered, lab, models, 3) == [[0], [1], [2]]
    own = Unmasking(rank=rank, **one_left)
    assert positions(own, lab, models, 3)[0] == [1]


@pytest.mark.parametrize(
    "decoder",
    [
        *(
            Unmasking(rank=rank, **settings)
            for rank in (*RANKS, "random")
            for settings in ({}, {"steps": 3}, {"block_length": 4}, {"quota": "dream", "steps": 5})
        ),
        Unmasking(rank="random", quota="origin"),
        Unmasking(quota="threshold", threshold=0.9),
        Unmasking(quota="factor", factor=1.0, block_length=4),
    ],
)
def test_every_forward_sees_the_whole_canvas(lab, decoder):
    models = certain(lab, *range(8))
    generation, steps = lab.trace(decoder, models, [0, 1], 8)
    assert generation.forwards == {"denoiser": len(steps)} and generation.positions == {
        "denoiser": 10 * len(steps)
    }
    canvas = [lab.MASK] * 8
    for seen, (positions, ids) in zip(models["denoiser"].seen, steps, strict=True):
        assert seen == [0, 1, *canvas]
        for position, token in zip(positions, ids, strict=True):
            assert canvas[position] == lab.MASK
            canvas[position] = token
    assert lab.MASK not in canvas


def test_the_denoiser_answers_to_what_is_committed(lab):
    """Each position turns certain once its right neighbour is known: right to left, by confidence."""

    def script(ids):
        logits = torch.zeros(len(ids), lab.V)
        logits[:, 3] = torch.tensor([9.0 if right != lab.MASK else 1.0 for right in [*ids[1:], 0]])
        return logits

    models = lab.Models(lab.Scripted(script, lab.MASK))
    _, steps = lab.trace(Unmasking(), models, [0, 1], 4)
    assert steps == [([3], [3]), ([2], [3]), ([1], [3]), ([0], [3])]


def test_stops_once_all_left_of_a_stop_is_committed(lab):
    logits = lab.favourites(0, 1, lab.EOS, 3, 4, 5)
    logits[range(6), logits.argmax(-1)] = torch.tensor([4.0, 3.0, 6.0, 5.0, 2.0, 1.0])
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))
    generation, steps = lab.trace(Unmasking(), models, [0, 1], 6)
    assert steps == [([2], [lab.EOS]), ([3], [3]), ([0], [0]), ([1], [1])]
    assert (generation.ids, generation.useful, generation.finish) == ([0, 1, lab.EOS, 3], 2, "stop")
    assert generation.forwards == {"denoiser": 4}


# Schedules

SCHEDULED = (*RANKS, "random")


def counts_of(lab, decoder, max_new_tokens, **kwargs):
    return [len(positions) for positions in order(decoder, lab, *range(max_new_tokens), **kwargs)]


@pytest.mark.parametrize("rank", SCHEDULED)
@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, [1] * 8),
        ({"steps": 3}, [3, 3, 2]),
        ({"steps": 5}, [2, 2, 2, 1, 1]),
        ({"steps": 99}, [1] * 8),
        ({"block_length": 4, "steps": 5}, [2, 1, 1, 2, 2]),
        ({"block_length": 2, "steps": 4}, [2] * 4),
    ],
)
def test_even_commits_exact_counts(lab, rank, settings, counts):
    decoder, orders = Unmasking(rank=rank, **settings), set()
    for seed in range(10 if rank == "random" else 1):
        steps = order(decoder, lab, *range(8), seed=seed)
        assert [len(positions) for positions in steps] == counts
        committed = [i for positions in steps for i in positions]
        assert sorted(committed) == list(range(8))
        block = settings.get("block_length", 8)
        assert [i // block for i in committed] == [i // block for i in range(8)]
        orders.add(str(steps))
    assert rank != "random" or len(orders) > 3 or block == 2


@pytest.mark.parametrize("rank", SCHEDULED)
def test_dream_rounds_down_and_leaves_the_rest_to_the_last_step(lab, rank):
    """Four steps over eight masks: 8 * (1 - 0.750/1) is just under 2, 7 * (1 - 0.501/0.750) is 2.3, and 5 *
    (1 - 0.251/0.501) is 2.5."""
    dream = {"rank": rank, "quota": "dream"}
    assert counts_of(lab, Unmasking(steps=4, **dream), 8) == [1, 2, 2, 3]
    assert counts_of(lab, Unmasking(steps=1, **dream), 8) == [8]
    assert counts_of(lab, Unmasking(steps=8, **dream), 8) == [0, 1, 1, 1, 1, 1, 1, 2]
    assert counts_of(lab, Unmasking(**dream), 8) == [0, 1, 1, 1, 1, 1, 1, 2]
    assert counts_of(lab, Unmasking(steps=99, **dream), 8) == [0, 1, 1, 1, 1, 1, 1, 2]
    # Every block has a schedule of its own.
    assert counts_of(lab, Unmasking(block_length=4, **dream), 8) == [0, 1, 1, 2] * 2
    assert counts_of(lab, Unmasking(block_length=4, steps=5, **dream), 8) == [1, 1, 2, 1, 3]


def dream_counts(masks, steps):
    """Dream's own formula, in its own float32."""
    times, counts = torch.linspace(1, 1e-3, steps + 1), []
    for i in range(steps):
        share = 1 - times[i + 1] / times[i] if i < steps - 1 else 1
        counts.append(int(torch.tensor(float(masks)) * share))
        masks -= counts[-1]
    return counts


@pytest.mark.parametrize(
    ("max_new_tokens", "numbers_of_steps"), [(1, [1]), (7, range(1, 8)), (12, range(1, 13)), (54, [50, 51])]
)
def test_dream_commits_what_its_formula_says(lab, max_new_tokens, numbers_of_steps):
    """The last ones depend on where time ends: 0.01 instead of 0.001 would leave more to the last step."""
    models = lab.Models(lab.Scripted(lab.on_canvas(lab.favourites(*[3] * max_new_tokens)), lab.MASK))
    for steps in numbers_of_steps:
        decoder = Unmasking(rank="random", quota="dream", steps=steps)
        generation, _ = lab.trace(decoder, models, [0, 1], max_new_tokens)
        assert (
            generation.steps == dream_counts(max_new_tokens, steps)
            and sum(generation.steps) == max_new_tokens
        )


@pytest.mark.parametrize("quota", ["dream", "origin"])
def test_a_step_that_commits_nothing_is_still_a_forward(lab, quota):
    models = certain(lab, *range(8))
    generation, steps = lab.trace(Unmasking(rank="random", quota=quota), models, [0, 1], 8, seed=1)
    empty = [i for i, (positions, _) in enumerate(steps) if not positions]
    assert empty and generation.ids == list(range(8))
    assert generation.forwards == {"denoiser": len(steps)} == {"denoiser": len(models["denoiser"].seen)}
    assert generation.positions == {"denoiser": 10 * len(steps)}
    assert [i for i, n in enumerate(generation.steps) if n == 0] == empty


# Random order


def decode_many(lab, decoder, max_new_tokens, rows):
    """commits of `rows` answers, (rows, max_new_tokens), seeds 0, 1, ...; no row knows its neighbours."""
    models, prompts = certain(lab, *range(max_new_tokens)), [torch.tensor([0, 1])] * rows
    generations = decoder.decode(models, prompts, max_new_tokens, lab.Stop(), range(rows))
    return torch.tensor([generation.commits for generation in generations])


def test_even_chooses_uniformly(lab):
    """Every pair out of four is equally likely."""
    first = decode_many(lab, Unmasking(rank="random", steps=2), 4, 1500) == 0
    assert (first.sum(1) == 2).all()
    pairs = (first * torch.tensor([1, 2, 4, 8])).sum(1).bincount()
    assert lab.law_pvalue(pairs[pairs > 0], [1] * 6) > 1e-3 and (pairs > 0).sum() == 6


def test_origin_reveals_each_mask_with_its_probability(lab):
    """1 - s/t, and all in the last step: each mask's step is drawn as if it were alone."""
    commits = decode_many(lab, Unmasking(rank="random", quota="origin", steps=4), 6, 1500)
    times = [1, 0.75025, 0.5005, 0.25075, 0.001]
    law, left = [], 1.0
    for i in range(4):
        share = 1 - times[i + 1] / times[i] if i < 3 else 1
        law.append(left * share)
        left -= law[-1]
    law = torch.tensor(law, dtype=torch.float64)
    assert law.tolist() == pytest.approx([0.24975, 0.24975, 0.24975, 0.25075], abs=1e-9)
    assert lab.law_pvalue(commits.flatten().bincount(), law) > 1e-3
    # How many a first step commits is binomial.
    sizes = (commits == 0).sum(1).bincount(minlength=7)
    expected = torch.tensor(binom.pmf(range(7), 6, law[0].item()))
    expected = torch.cat((expected[:4], expected[4:].sum(0, keepdim=True)))
    assert lab.law_pvalue(torch.cat((sizes[:4], sizes[4:].sum(0, keepdim=True))), expected) > 1e-3


def test_origin_takes_at_most_its_steps(lab):
    lengths = set()
    for settings in ({"steps": 4}, {"block_length": 4}, {"block_length": 4, "steps": 3}):
        decoder = Unmasking(rank="random", quota="origin", **settings)
        for seed in range(20):
            generation, steps = lab.trace(decoder, certain(lab, *range(8)), [0, 1], 8, seed=seed)
            assert generation.ids == list(range(8))
            assert len(steps) <= settings.get("steps", 8)
            block = settings.get("block_length", 8)
            finished = [max(generation.commits[i : i + block]) for i in range(0, 8, block)]
            begun = [min(generation.commits[i : i + block]) for i in range(0, 8, block)]
            assert all(after > before for before, after in zip(finished, begun[1:], strict=False))
            lengths.add(len(steps))
    assert len(lengths) > 3


@pytest.mark.parametrize("quota", ["even", "dream", "origin"])
def test_random_order_depends_on_the_seed_alone(lab, quota):
    decoder = Unmasking(rank="random", quota=quota)
    assert order(decoder, lab, *range(8), seed=3) == order(decoder, lab, *[1] * 8, seed=3)
    assert order(decoder, lab, *range(8), seed=3) != order(decoder, lab, *range(8), seed=4)


# Threshold and factor


def test_a_threshold_takes_all_that_are_as_sure_and_at_least_one(lab):
    models = scripted(lab, [0.95, 0.05], [0.5, 0.3, 0.2], [0.92, 0.08], [0.6, 0.4], [0.96, 0.04])

    def steps(threshold, **settings):
        decoder = Unmasking(quota="threshold", threshold=threshold, **settings)
        return positions(decoder, lab, models, 5)

    assert steps(0.9) == [[4, 0, 2], [3], [1]]
    assert steps(0.59) == [[4, 0, 2, 3], [1]]
    assert steps(0.0) == [[4, 0, 2, 3, 1]]
    assert steps(0.97) == steps(1.0) == [[4], [0], [2], [3], [1]]
    assert steps(0.9, block_length=1) == [[0], [1], [2], [3], [4]]
    assert steps(0.9, rank_tempered=False) == steps(0.9)


def test_a_threshold_on_the_margin_and_on_nats(lab):
    models = scripted(
        lab,
        [0.50, 0.30, 0.05, 0.05, 0.05, 0.05],  # margin 0.20, entropy 1.31
        [0.46, 0.135, 0.135, 0.135, 0.135],  # margin 0.325, entropy 1.44
        [0.48, 0.47, 0.05],  # margin 0.01, entropy 0.86
    )

    def steps(rank, threshold):
        return positions(Unmasking(rank=rank, quota="threshold", threshold=threshold), lab, models, 3)

    assert steps("margin", 0.15) == [[1, 0], [2]]
    assert steps("margin", 0.5) == [[1], [0], [2]]
    assert steps("margin", 0.0) == [[1, 0, 2]]
    assert steps("entropy", 1.35) == [[2, 0], [1]]
    assert steps("entropy", 0.5) == [[2], [0], [1]]
    assert steps("entropy", 2.0) == [[2, 0, 1]]


def test_thresholds_include_their_own_value(lab):
    """Where nothing rounds: one token left, so probability and margin are 1, and the entropy is 0."""
    logits = torch.full((3, lab.V), -torch.inf)
    logits[:, 4] = 0.0
    logits[1, 5] = 0.0
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))
    for rank, threshold in (("confidence", 1.0), ("margin", 1.0), ("entropy", 0.0)):
        decoder = Unmasking(rank=rank, quota="threshold", threshold=threshold)
        assert positions(decoder, lab, models, 3) == [[0, 2], [1]]


def test_a_threshold_is_one_of_the_models_own_probability_or_of_the_filtered_one(lab):
    models = scripted(lab, [0.5, 0.3, 0.2], [0.7, 0.3])
    decoder = {"quota": "threshold", "threshold": 0.6, "top_k": 2}
    filtered = Unmasking(rank_tempered=True, **decoder)
    assert positions(filtered, lab, models, 2) == [[1, 0]]  # 0.7, and 0.5 of 0.8
    assert positions(Unmasking(**decoder), lab, models, 2) == [[1], [0]]


def test_factor_takes_the_n_surest(lab):
    """n is the largest for which (k + 1)(1 - p_k) <= factor for all k from 2 to n."""
    models = scripted(lab, [0.95, 0.05], [0.7, 0.3], [0.9, 0.1], [0.74, 0.26], [0.5, 0.4, 0.1])

    def steps(factor, **settings):
        return positions(Unmasking(quota="factor", factor=factor, **settings), lab, models, 5)

    # 3 * 0.1 passes; 4 * 0.26 = 1.04 does not. Then 3 * 0.3 = 0.9 does, and 4 * 0.5 does not.
    assert steps(1.0) == [[0, 2], [3, 1], [4]]
    assert steps(1.1) == [[0, 2, 3], [1], [4]]  # 5 * 0.3 = 1.5 does not; then 3 * 0.5 = 1.5 neither
    assert steps(0.0) == [[0], [2], [3], [1], [4]]
    assert steps(0.2) == steps(0.0)
    assert steps(6.0) == [[0, 2, 3, 1, 4]]
    assert steps(1.0, block_length=1) == [[0], [1], [2], [3], [4]]


def test_the_published_factor_takes_the_last_mask_of_a_block_too(lab):
    """Fast-dLLM's loop cannot tell that the last one failed from that all passed."""
    models = scripted(lab, [0.95, 0.05], [0.7, 0.3], [0.9, 0.1], [0.74, 0.26], [0.5, 0.4, 0.1])

    def steps(factor, **settings):
        return positions(Unmasking(quota="published_factor", factor=factor, **settings), lab, models, 5)

    assert steps(1.0) == [[0, 2], [3, 1, 4]]  # 4 * 0.5 fails, and nothing follows it
    assert steps(0.0) == [[0], [2], [3], [1, 4]]  # two are left: the second is the last


def test_an_entropy_bound_adds_all_but_the_last(lab):
    """Entropies of 0.5, 0.6, 0.9, 1.3 nats or so; the sum of those before it decides about the next."""
    rows = ([0.8, 0.2], [0.7, 0.3], [0.6, 0.3, 0.1], [0.4, 0.3, 0.2, 0.1])
    nats = [-sum(p * math.log(p) for p in row) for row in rows]
    models = scripted(lab, *(rows[i] for i in (2, 0, 3, 1)))

    def steps(bound, **settings):
        decoder = Unmasking(rank="entropy", quota="entropy_bound", bound=bound, **settings)
        return positions(decoder, lab, models, 4)

    assert steps(0) == [[1], [3], [0], [2]]
    assert steps(nats[0] + 0.01) == [[1, 3], [0], [2]]
    assert steps(nats[0] + nats[1] + 0.01) == [[1, 3, 0], [2]]
    assert steps(sum(nats[:3]) - 0.01) == [[1, 3, 0], [2]]
    assert steps(sum(nats[:3]) + 0.01) == [[1, 3, 0, 2]]
    assert steps(9, block_length=2) == [[1, 0], [3, 2]]


# Caches


@pytest.mark.parametrize(
    ("cache", "fed"),
    [("none", [10] * 8), ("prefix", [10, 8, 8, 8, 10, 4, 4, 4]), ("dual", [10, 4, 4, 4] * 2)],
)
def test_what_a_cache_feeds_and_what_the_model_sees(lab, cache, fed):
    models = certain(lab, *range(8))
    model, hook = models["denoiser"], lab.Hook(models["denoiser"])
    _, steps = lab.trace(Unmasking(block_length=4, cache=cache), models, [0, 1], 8)
    assert hook.fed == fed
    # What is committed in a block is fed again by the next step, so that a cache hides nothing of it.
    canvas = [lab.MASK] * 8
    for seen, (positions, ids) in zip(model.seen, steps, strict=True):
        assert seen == [0, 1, *canvas]
        for position, token in zip(positions, ids, strict=True):
            canvas[position] = token


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("quota", [{}, {"quota": "dream"}, {"quota": "threshold", "threshold": 0.1}])
def test_under_a_cache_dream_commits_the_first_token_of_a_block_alone(lab, cache, quota):
    logits = lab.favourites(*range(8))
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK, lookback=1))
    _, steps = lab.trace(Unmasking(block_length=4, cache=cache, **quota), models, [0, 1], 8)
    positions = [positions for positions, _ in steps if positions]
    assert positions[0] == [0] and [4] in positions
    if "threshold" in quota:
        assert positions == [[0], [1, 2, 3], [4], [5, 6, 7]]


@pytest.mark.parametrize("quota", ["even", "dream"])
def test_a_block_of_one_step_goes_on_after_its_first_token(lab, quota):
    """Its step is spent on the first token: all others follow in one more."""
    models = lab.Models(lab.Scripted(lab.on_canvas(lab.favourites(*range(8))), lab.MASK, lookback=1))
    decoder = Unmasking(block_length=4, steps=2, quota=quota, cache="dual")
    _, steps = lab.trace(decoder, models, [0, 1], 8)
    assert [positions for positions, _ in steps] == [[0], [1, 2, 3], [4], [5, 6, 7]]


def test_after_an_end_token_all_slots_are_filled_where_that_is_asked_for(lab):
    logits = lab.favourites(0, lab.EOS, *range(2, 8))
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))
    settings = {"quota": "threshold", "threshold": 0.5, "block_length": 4}
    generation, steps = lab.trace(Unmasking(**settings), models, [0, 1], 8)
    assert len(steps) == 1 and (generation.useful, generation.finish) == (1, "stop")
    generation, steps = lab.trace(Unmasking(after_end="fill", **settings), models, [0, 1], 8)
    assert len(steps) == 2 and (generation.useful, generation.finish) == (1, "stop")
    assert generation.ids == [0, lab.EOS, *range(2, 8)]


def test_rows_at_different_blocks_choose_as_if_alone(lab):
    """Rows of a batch have different numbers of masks left in blocks of their own."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(12, lab.V, generator=generator)

    def script(ids):  # what is committed decides: prompts of one token, so that rows drift apart
        shift = sum(ids) % 5
        return torch.cat((torch.zeros(1, lab.V), logits.roll(shift, 1)))[: len(ids)]

    models = lab.Models(lab.Scripted(script, lab.MASK))
    for settings in (
        {"quota": "threshold", "threshold": 0.8, "block_length": 4},
        {"quota": "factor", "factor": 1.5, "block_length": 4},
        {"quota": "factor", "factor": 3.2, "block_length": 4},  # two masks, also where one is left
    ):
        decoder = Unmasking(**settings)
        prompts = [torch.tensor([i]) for i in range(8)]
        together = decoder.decode(models, prompts, 12, lab.Stop(), range(8))
        alone = [decoder.decode(models, [prompt], 12, lab.Stop(), [i])[0] for i, prompt in enumerate(prompts)]
        assert [lab.essence(g) for g in together] == [lab.essence(g) for g in alone]
        assert len({len(g.steps) for g in alone}) > 1


# The end tokens of LLaDA's evaluation


def ending(lab):
    """Position 0 is an end token for sure; 1 and 2 are words, of which an end token takes what they lack."""
    probabilities = torch.full((3, lab.V), 1e-12)
    probabilities[0, lab.EOS], probabilities[0, 7] = 0.9, 0.1
    probabilities[1, 5], probabilities[1, 6] = 0.6, 0.4
    probabilities[2, 8], probabilities[2, lab.EOS], probabilities[2, 9] = 0.5, 0.4, 0.1  # 0.83 without it
    return lab.Models(lab.Scripted(lab.on_canvas(probabilities.log()), lab.MASK))


@pytest.mark.parametrize("tempered", [True, False])
@pytest.mark.parametrize("settings", [{}, {"top_k": 1}])
def test_end_tokens_are_committed_last_and_the_others_judged_without_them(lab, tempered, settings):
    """As published: drawn first, then the end tokens' logits go, and softmax is taken of the rest."""
    own = not settings or not tempered
    decoder = Unmasking(end_rule="last", after_end="fill", rank_tempered=tempered, **settings)
    generation, steps = lab.trace(decoder, ending(lab), [0, 1], 3)
    assert [p for p, _ in steps] == ([[2], [1], [0]] if own else [[1], [2], [0]])
    assert generation.ids == [lab.EOS, 5, 8]
    plain = Unmasking(after_end="fill")
    assert positions(plain, lab, ending(lab), 3) == [[0], [1], [2]]
    limit = Unmasking(quota="threshold", threshold=0.8, end_rule="last", after_end="fill")
    assert positions(limit, lab, ending(lab), 3) == [[2], [1], [0]]


def test_the_eos_of_the_configuration_is_never_drawn(lab):
    models = ending(lab)
    models["denoiser"].config.eos_token_id = lab.EOS
    generation, steps = lab.trace(Unmasking(end_rule="no_eos"), models, [0, 1], 3)
    assert generation.ids == [7, 5, 8] and [p for p, _ in steps] == [[0], [2], [1]]
    models["denoiser"].config.eos_token_id = 6  # another end token than the one that stops
    assert lab.trace(Unmasking(end_rule="no_eos"), models, [0, 1], 3)[0].ids[0] == lab.EOS


def test_a_rule_about_confidence_needs_the_rank():
    for rank in ("margin", "entropy", "random"):
        with pytest.raises(ValueError, match="end_rule=last .* needs rank=confidence"):
            Unmasking(rank=rank, end_rule="last")
