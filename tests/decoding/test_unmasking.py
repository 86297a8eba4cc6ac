"""Any-order decoders: which positions each step commits."""

import pytest
import torch
from scipy.stats import chisquare

from unmask.decoding.confidence import Confidence
from unmask.decoding.entropy import Entropy
from unmask.decoding.margin import Margin
from unmask.decoding.random_order import RandomOrder
from unmask.decoding.sampling import step_generator

RANKED = [Confidence, Margin, Entropy]
ORDERED = [*RANKED, RandomOrder]


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


@pytest.mark.parametrize("ranked", RANKED)
def test_surest_first(lab, ranked):
    strengths = (1, 5, 3, 2, 6, 4)
    assert order(ranked(), lab, *strengths) == [[4], [1], [5], [2], [3], [0]]
    assert order(ranked(steps=3), lab, *strengths) == [[4, 1], [5, 2], [3, 0]]
    assert order(ranked(steps=1), lab, *strengths) == [[4, 1, 5, 2, 3, 0]]
    assert order(ranked(steps=4), lab, *strengths) == [[4, 1], [5, 2], [3], [0]]  # the remainder goes first
    assert order(ranked(steps=99), lab, *strengths) == order(ranked(), lab, *strengths)


@pytest.mark.parametrize("ranked", RANKED)
def test_blocks_from_the_left(lab, ranked):
    strengths = (1, 5, 3, 2, 6, 4)
    assert order(ranked(block_length=3), lab, *strengths) == [[1], [2], [0], [4], [5], [3]]
    assert order(ranked(block_length=3, steps=4), lab, *strengths) == [[1, 2], [0], [4, 5], [3]]
    assert order(ranked(block_length=3, steps=3), lab, *strengths) == [[1, 2], [0], [4, 5, 3]]
    assert order(ranked(block_length=2, steps=3), lab, *strengths) == [[1, 0], [2, 3], [4, 5]]
    assert order(ranked(block_length=1), lab, *strengths) == [[0], [1], [2], [3], [4], [5]]
    assert order(ranked(block_length=6, steps=2), lab, *strengths) == order(ranked(steps=2), lab, *strengths)


@pytest.mark.parametrize("ranked", RANKED)
def test_ties_go_left_to_right(lab, ranked):
    assert order(ranked(steps=3), lab, *[3] * 7) == [[0, 1, 2], [3, 4], [5, 6]]
    assert order(ranked(), lab, 2, 4, 2, 4) == [[1], [3], [0], [2]]


def test_the_three_rankings(lab):
    """Probabilities chosen so that no two rankings agree on any of the places."""
    probabilities = torch.full((3, lab.V), 1e-12)
    probabilities[0, :6] = torch.tensor([0.50, 0.30, 0.05, 0.05, 0.05, 0.05])  # margin 0.20, entropy 1.31
    probabilities[1, :5] = torch.tensor([0.46, 0.135, 0.135, 0.135, 0.135])  # margin 0.325, entropy 1.44
    probabilities[2, :3] = torch.tensor([0.48, 0.47, 0.05])  # margin 0.01, entropy 0.86
    models = lab.Models(lab.Scripted(lab.on_canvas(probabilities.log()), lab.MASK))
    orders = [[p for (p,), _ in lab.trace(ranked(), models, [0, 1], 3)[1]] for ranked in RANKED]
    assert orders == [[0, 2, 1], [1, 0, 2], [2, 0, 1]]


def test_rank_sees_temperature_and_filters():
    logits = torch.tensor([[3.0, 1.0, 0.0], [2.0, 1.9, -9.0]])
    ids = torch.tensor([0, 1])
    decoder = Confidence(temperature=0.5)
    expected = (2 * logits).softmax(-1)[[0, 1], ids].log()
    torch.testing.assert_close(decoder.rank(decoder.scores(logits), ids), expected)
    for ranked, sure in ((Confidence, 0.0), (Margin, 1.0), (Entropy, 0.0)):  # one token left: all certain
        decoder = ranked(temperature=1.0, top_k=1)
        ranks = decoder.rank(decoder.scores(logits), torch.tensor([0, 0]))
        torch.testing.assert_close(ranks, torch.full((2,), sure))


@pytest.mark.parametrize(
    "decoder", [cls(**kw) for cls in ORDERED for kw in ({}, {"steps": 3}, {"block_length": 4})]
)
def test_every_forward_sees_the_whole_canvas(lab, decoder):
    models = certain(lab, *range(8))
    generation, steps = lab.trace(decoder, models, [0, 1], 8)
    assert generation.forwards == {"denoiser": len(steps)} and generation.positions == {
        "denoiser": 10 * len(steps)
    }
    canvas = [lab.MASK] * 8
    for seen, (positions, ids) in zip(models.main.seen, steps, strict=True):
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
    _, steps = lab.trace(Confidence(), models, [0, 1], 4)
    assert steps == [([3], [3]), ([2], [3]), ([1], [3]), ([0], [3])]


def test_stops_once_all_left_of_a_stop_is_committed(lab):
    logits = lab.favourites(0, 1, lab.EOS, 3, 4, 5)
    logits[range(6), logits.argmax(-1)] = torch.tensor([4.0, 3.0, 6.0, 5.0, 2.0, 1.0])
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))
    generation, steps = lab.trace(Confidence(), models, [0, 1], 6)
    assert steps == [([2], [lab.EOS]), ([3], [3]), ([0], [0]), ([1], [1])]
    assert (generation.ids, generation.useful, generation.finish) == ([0, 1, lab.EOS, 3], 2, "stop")
    assert generation.forwards == {"denoiser": 4}


# Random order


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
def test_even_commits_exact_counts(lab, settings, counts):
    orders = set()
    for seed in range(10):
        steps = order(RandomOrder(**settings), lab, *range(8), seed=seed)
        assert [len(positions) for positions in steps] == counts
        committed = [i for positions in steps for i in positions]
        assert sorted(committed) == list(range(8))
        block = settings.get("block_length", 8)
        assert [i // block for i in committed] == [i // block for i in range(8)]
        orders.add(str(steps))
    assert len(orders) > 3 or block == 2


def test_even_chooses_uniformly():
    """Every pair out of four is equally likely."""
    pairs = {}
    for seed in range(3000):
        chosen = RandomOrder().candidates([5, 6, 7, 8], 2, step_generator(seed, 0, torch.device("cpu")))
        pairs[tuple(chosen)] = pairs.get(tuple(chosen), 0) + 1
    assert len(pairs) == 6 and chisquare(list(pairs.values())).pvalue > 1e-3


@pytest.mark.parametrize("left", [1, 2, 5])
def test_origin_reveals_each_mask_with_probability_one_over_the_steps_left(left):
    decoder, counts = RandomOrder(schedule_kind="origin"), torch.zeros(4)
    for seed in range(2000):
        counts[decoder.candidates([0, 1, 2, 3], left, step_generator(seed, 9, torch.device("cpu")))] += 1
    sigma = (1 / left * (1 - 1 / left) / 2000) ** 0.5
    assert ((counts / 2000 - 1 / left).abs() <= 4 * sigma).all()


def test_origin_commits_everything_and_pays_only_for_steps_that_commit(lab):
    lengths = set()
    for seed in range(30):
        for settings in ({"steps": 4}, {"block_length": 4}):
            models = certain(lab, *range(8))
            generation, steps = lab.trace(
                RandomOrder(schedule_kind="origin", **settings), models, [0, 1], 8, seed=seed
            )
            assert generation.ids == list(range(8))
            assert generation.forwards == {"denoiser": len(steps)} == {"denoiser": len(models.main.seen)}
            assert len(steps) <= settings.get("steps", 8)
            lengths.add(len(steps))
    assert len(lengths) > 3


def test_random_order_depends_on_the_seed_alone(lab):
    for kind in ("even", "origin"):
        decoder = RandomOrder(schedule_kind=kind)
        assert order(decoder, lab, *range(8), seed=3) == order(decoder, lab, *[1] * 8, seed=3)
        assert order(decoder, lab, *range(8), seed=3) != order(decoder, lab, *range(8), seed=4)
