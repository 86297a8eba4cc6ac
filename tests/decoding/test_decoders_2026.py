"""Training-free decoders of 2026 in closed form, on models whose logits are written down. Their traces:
test_golden_traces.py."""

import json
import math

import pytest
import torch

from unmask.decoding import Models, Stop
from unmask.decoding.memory import Credit, Klass
from unmask.decoding.pc_sampler import PCSampler
from unmask.decoding.prophet import Prophet
from unmask.decoding.slowfast import SlowFast
from unmask.decoding.unmasking import Unmasking
from unmask.paths import ROOT


def scripted(lab, *rows, moving=None):
    """A denoiser whose canvas position i has these probabilities, whatever it sees.

    moving: (position, rows): from forward to forward that position has the next of them instead.
    """
    logits = torch.full((len(rows), lab.V), -torch.inf)
    for row, likely in zip(logits, rows, strict=True):
        row[: len(likely)] = torch.tensor(likely).log()
    calls = iter(range(100))

    def script(ids):
        found = logits.clone()
        if moving is not None:
            at, states = moving
            likely = states[min(next(calls), len(states) - 1)]
            found[at] = -torch.inf
            found[at, : len(likely)] = torch.tensor(likely).log()
        return lab.on_canvas(found)(ids)

    return lab.Models(lab.Scripted(script, lab.MASK))


def positions(decoder, lab, models, length):
    """Canvas positions of every step."""
    _, steps = lab.trace(decoder, models, [0, 1], length, stop=())
    return [sorted(step) for step, _ in steps]


# dInfer's hierarchy


def test_every_run_of_masks_commits_its_surest(lab):
    models = scripted(lab, [0.5, 0.5], [0.6, 0.4], [0.9, 0.1], [0.45, 0.55], [0.7, 0.3], [0.3, 0.3, 0.4])

    def steps(**limits):
        return positions(Unmasking(quota="hierarchy", **limits), lab, models, 6)

    # One run: its surest is 2. Then 0-1 and 3-5: 1 and 4. Then three runs of one.
    assert steps(low_threshold=0.35) == [[2], [1, 4], [0, 3, 5]]
    assert steps() == steps(low_threshold=0.35)
    # 5 is less sure than 0.5, 0 no surer: they wait until they are the surest of the block.
    assert steps(low_threshold=0.5) == [[2], [1, 4], [3], [0], [5]]
    assert steps(threshold=0.65, low_threshold=0.5) == [[2, 4], [1, 3], [0], [5]]
    assert steps(threshold=0.0) == [[0, 1, 2, 3, 4, 5]]
    # In blocks of three a run ends where the block does.
    decoder = Unmasking(quota="hierarchy", low_threshold=0.0, block_length=3)
    assert positions(decoder, lab, models, 6) == [[2], [1], [0], [4], [3, 5]]


def test_equal_ones_of_a_run_are_committed_together(lab):
    models = scripted(lab, [0.6, 0.4], [0.5, 0.5], [0.6, 0.4])
    decoder = Unmasking(quota="hierarchy", low_threshold=0.1)
    assert positions(decoder, lab, models, 3) == [[0, 2], [1]]


def test_near_ties_go_together_below_the_threshold(lab):
    models = scripted(lab, [0.600001, 0.399999], [0.6, 0.4], [0.59, 0.41])
    assert positions(Unmasking(quota="near_ties", threshold=0.9), lab, models, 3) == [[0, 1], [2]]
    assert positions(Unmasking(quota="threshold", threshold=0.9), lab, models, 3) == [[0], [1], [2]]


# Credit


@pytest.mark.parametrize("beta", [1.0, 0.8, 0.0])
def test_credits_add_up_and_fade(lab, beta):
    """Six masks, none sure enough by itself: in closed form, each step commits those that pass, or one."""
    sure = [0.60, 0.59, 0.58, 0.57, 0.56, 0.55]
    models = scripted(lab, *[[p, 1 - p] for p in sure])
    alpha, gamma, threshold = 1.0, 0.2, 0.75
    found = positions(
        Credit(threshold=threshold, alpha=alpha, beta=beta, gamma=gamma, block_length=6), lab, models, 6
    )

    expected, left, n = [], list(range(6)), 0
    credits = [0.0] * 6
    while left:
        n += 1
        credits = [c * beta + sure[i] ** gamma * (i in left) for i, c in enumerate(credits)]
        odds = {i: sure[i] / (1 - sure[i]) * (1 + credits[i]) ** alpha for i in left}
        likely = {i: o / (1 + o) for i, o in odds.items()}
        step = [i for i in left if likely[i] >= threshold] or [max(left, key=likely.get)]
        expected.append(step)
        left = [i for i in left if i not in step]
    assert found == expected
    assert (len(found) == 6) == (beta == 0)


def test_credits_end_with_their_block(lab):
    """Two equal blocks are decoded in equal steps."""
    likely = [[0.6, 0.4], [0.59, 0.41], [0.58, 0.42], [0.57, 0.43]]
    models = scripted(lab, *likely, *likely)
    found = positions(Credit(threshold=0.75, alpha=1.0, block_length=4), lab, models, 8)
    assert [[p - 4 for p in step] for step in found[len(found) // 2 :]] == found[: len(found) // 2]


# KLASS


def test_nothing_is_calm_before_its_history_is_full(lab):
    models = scripted(lab, *[[0.9, 0.1]] * 6)
    for history, expected in ((1, 1), (2, 2), (3, 3)):
        found = positions(Klass(threshold=0.5, kl_threshold=0.01, history_length=history), lab, models, 6)
        # The first divergence is from nothing; then one a step; at last all that are left.
        assert found == [*([n] for n in range(expected)), list(range(expected, 6))]


def test_the_next_block_is_compared_with_the_last_forward_of_the_one_before(lab):
    models = scripted(lab, *[[0.9, 0.1]] * 8)
    found = positions(Klass(threshold=0.5, history_length=1, block_length=4), lab, models, 8)
    assert found == [[0], [1, 2, 3], [4, 5, 6, 7]]
    found = positions(Klass(threshold=0.5, history_length=2, block_length=4), lab, models, 8)
    assert found == [[0], [1], [2, 3], [4], [5, 6, 7]]


def test_what_moves_waits_for_its_divergence_in_nats(lab):
    """KL(now | before), not the other way: position 3 moves from (0.6, 0.4) to (0.9, 0.1) in step 2."""
    divergence = 0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4)
    moving = (3, [[0.6, 0.4], [0.9, 0.1]])

    def steps(limit):
        models = scripted(lab, *[[0.95, 0.05]] * 5, moving=moving)
        return positions(Klass(threshold=0.5, kl_threshold=limit, history_length=1), lab, models, 5)

    assert steps(divergence + 1e-4) == [[0], [1, 2, 3, 4]]
    assert steps(divergence - 1e-4) == [[0], [1, 2, 4], [3]]


def test_of_the_ready_ones_all_or_the_surest_or_the_calmest(lab):
    def steps(strategy):
        models = scripted(
            lab, [0.8, 0.2], [0.7, 0.3], [0.9, 0.1], [0.6, 0.4], moving=(2, [[0.9, 0.1], [0.91, 0.09]])
        )
        decoder = Klass(threshold=0.65, kl_threshold=0.1, history_length=1, unmask_strategy=strategy)
        return positions(decoder, lab, models, 4)[:2]

    # Position 2 is the surest of all, and goes first; then 0 and 1 are ready.
    assert steps("all") == [[2], [0, 1]]
    assert steps("max_conf") == steps("min_kl") == [[2], [0]]


def test_the_calmest_is_the_one_that_moved_least(lab):
    def steps(strategy):
        models = scripted(
            lab, [0.8, 0.2], [0.7, 0.3], [0.9, 0.1], moving=(0, [[0.8, 0.2], [0.82, 0.18], [0.84, 0.16]])
        )
        decoder = Klass(threshold=0.65, kl_threshold=0.1, history_length=1, unmask_strategy=strategy)
        return positions(decoder, lab, models, 3)

    assert steps("max_conf") == [[2], [0], [1]]
    assert steps("min_kl") == [[2], [1], [0]]


def test_where_none_is_ready_the_schedule_says_how_many(lab):
    models = scripted(lab, *[[0.5, 0.5]] * 8)
    found = positions(Klass(threshold=0.9, steps=4, block_length=4), lab, models, 8)
    assert found == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_klass_takes_no_cache_and_no_other_quota():
    with pytest.raises(ValueError, match="cache='dual'"):
        Klass(cache="dual")
    with pytest.raises(ValueError, match="quota='threshold'"):
        Klass(quota="threshold")


# Prophet


def leading(lab, leads):
    """A denoiser whose largest logit leads by so much, at each canvas position."""
    logits = torch.zeros(len(leads), lab.V)
    logits[:, 4] = torch.tensor(leads)
    return lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))


@pytest.mark.parametrize(
    ("lead", "forwards"),
    [(8.0, 1), (7.4, 3), (5.0, 3), (4.9, 7), (2.5, 7), (2.4, 9)],  # 3/9 is above .33, 6/9 below .67
)
def test_prophet_ends_in_the_phase_whose_limit_its_answer_reaches(lab, lead, forwards):
    decoder = Prophet(answer_start=2)
    _, steps = lab.trace(decoder, leading(lab, [lead] * 9), [0, 1], 9, stop=())
    assert [len(step) for step, _ in steps] == [*[1] * (forwards - 1), 10 - forwards]
    never = positions(Prophet(), lab, leading(lab, [lead] * 9), 9)
    assert never == [[n] for n in range(9)]


def test_prophet_takes_the_mean_of_five_positions_and_of_fewer_at_the_end(lab):
    leads = [0.5, 8.0, 8.0, 8.0, 8.0, 5.5, 0.5, 9.0, 6.0]
    for start, ends in ((1, True), (2, False), (0, False), (7, True), (8, False)):
        found = positions(Prophet(answer_start=start, mid=99.0, late=99.0), lab, leading(lab, leads), 9)
        assert (len(found) == 1) == ends, start


def test_prophets_constraints_are_seen_from_the_first_forward_on(lab):
    models = leading(lab, [1.0] * 6)
    generation, steps = lab.trace(
        Prophet(constraints=[[3, 1], [9, 8]], block_length=3), models, [0, 1], 6, stop=()
    )
    assert models.main.seen[0] == [0, 1, lab.MASK, 8, lab.MASK, 9, lab.MASK, lab.MASK]
    assert generation.ids == [4, 8, 4, 9, 4, 4] and generation.forwards["denoiser"] == 4
    assert generation.commits == [0, 0, 1, 0, 2, 3]  # they count with the first step
    empty = {"empty_steps": True, "after_end": "fill"}
    whole, steps = lab.trace(
        Prophet(constraints=[[3, 1], [9, 8]], block_length=3, **empty), models, [0, 1], 6, stop=()
    )
    assert whole.ids == generation.ids and whole.commits == [0, 0, 1, 0, 3, 4]
    assert [len(step) for step, _ in steps] == [3, 1, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"answer_start": 6}, "answer_start: 6"),
        ({"constraints": [[6], [1]]}, "constraints: 6"),
        ({"constraints": [[1], [16]]}, "16 is no id"),
        ({"constraints": [[0, 1, 2, 3, 4, 5], [1] * 6]}, "max_new_tokens=6"),
    ],
)
def test_prophets_settings_fit_the_canvas_and_the_vocabulary(settings, named):
    with pytest.raises(ValueError, match=named):
        Prophet(**settings).check(6, vocabulary=16)


@pytest.mark.parametrize(
    "given", ["The answer is", [[1]], [[1], []], [[1, 1], [2, 3]], [[1, 2], [3]], [[-1], [2]], [[1.0], [2]]]
)
def test_constraints_are_positions_and_ids(given):
    with pytest.raises(ValueError, match="constraints="):
        Prophet(constraints=given)


# SlowFast


def test_slowfast_explores_and_then_sees_no_further_than_its_cycle(lab):
    """Six positions are sure enough to be reached, the six right of them are not."""
    models = scripted(lab, *[[0.5, 0.3, 0.2]] * 6, *[[0.2] * 5] * 6)
    found = positions(SlowFast(exploration_steps=2), lab, models, 12)
    assert found == [[n] for n in range(12)]
    # Two slow forwards, four fast ones (the first sees all); then cycles of one position, and no fast phase.
    assert list(map(len, models.main.seen)) == [14, 14, 14, 8, 8, 8, *[14] * 6]


def test_slowfasts_two_or_more_are_committed_together(lab):
    models = scripted(lab, [0.95, 0.05], [0.5, 0.5], [0.92, 0.08], [0.6, 0.4], [0.91, 0.09])
    assert positions(SlowFast(exploration_steps=2), lab, models, 5)[0] == [0, 2, 4]
    assert positions(SlowFast(exploration_steps=2, high_confidence=0.93), lab, models, 5)[0] == [0]


def test_slowfasts_estimates_agree_or_are_averaged(lab):
    """Sure ones go first, so the second estimate is shorter: 5 and 3 deviate by 1."""
    likely = [[0.4, 0.3, 0.3], [0.4, 0.3, 0.3], [0.5, 0.3, 0.2], [0.2] * 5, [0.6, 0.4], *[[0.2] * 5] * 3]

    def seen(**settings):
        models = scripted(lab, *likely)
        positions(SlowFast(exploration_steps=2, **settings), lab, models, 8)
        return list(map(len, models.main.seen))

    # 4 first (estimate 5), then 2 (3). Below 1: not fixed, their mean 4; fast: 0 sees all, 1 and 3 up to 4.
    assert seen(std_dev=1.0)[:6] == [10, 10, 10, 6, 6, 10]
    assert seen(std_dev=1.5)[:5] == [10, 10, 10, 5, 10]  # fixed: the last one, 3
    assert seen(std_dev=1.5, window=1)[:6] == [10, 10, 10, 7, 7, 10]  # fixed at the first, 5


def test_slowfast_leaves_out_forwards_that_commit_nothing(lab):
    models = scripted(lab, *[[0.95, 0.05]] * 4)
    short = lab.trace(SlowFast(block_length=2), models, [0, 1], 4, stop=())[1]
    published = SlowFast(block_length=2, whole_exploration=True, after_end="fill")
    whole = lab.trace(published, models, [0, 1], 4, stop=())[1]
    assert [len(step) for step, _ in short] == [2, 2]
    assert [len(step) for step, _ in whole] == [2, 0, 0, 0, 0, 0] * 2


def test_slowfasts_window_is_no_longer_than_its_exploration():
    with pytest.raises(ValueError, match="window=3 and exploration_steps=2"):
        SlowFast(window=3, exploration_steps=2)
    with pytest.raises(ValueError, match="block_length=5"):
        SlowFast(block_length=5).check(12)


# PC-Sampler


@pytest.fixture
def table(tmp_path):
    """Writes a file of numbers and gives its path."""

    def write(**content):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


def test_pc_sampler_ranks_by_confidence_rarity_and_position(lab, table):
    met = [0.5, 0.01, 0.2, 0.001, *[0.02] * 12]
    path, likely = table(frequencies=met), [0.9, 0.6, 0.8, 0.5]
    logits = torch.full((4, lab.V), -torch.inf)
    for i, p in enumerate(likely):  # position i predicts id i
        logits[i, [i, 13]] = torch.tensor([p, 1 - p]).log()
    models = lab.Models(lab.Scripted(lab.on_canvas(logits), lab.MASK))

    def order(**settings):
        return [p for (p,) in positions(PCSampler(frequencies=path, **settings), lab, models, 4)]

    for lambd, alpha in ((0.0, 10.0), (0.25, 10.0), (0.25, 2.0), (2.0, 10.0)):
        score = [
            math.exp(-lambd * j) * min(alpha, -p * math.log(met[j] + 1e-9)) for j, p in enumerate(likely)
        ]
        assert order(lambd=lambd, alpha=alpha) == sorted(range(4), key=lambda j: -score[j])
    # j counts from the block's first position.
    assert order(lambd=2.0, block_length=2) == [0, 1, 2, 3] != order(lambd=0.0, block_length=2)


def test_ids_that_were_never_met_count_as_met_once(lab, table):
    counted = PCSampler(frequencies=table(counts=[3, 0, 1, *[0] * 13]))
    shares = PCSampler(frequencies=table(frequencies=[0.75, *[0.25] * 15]))
    models = scripted(lab, [0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6])
    assert positions(counted, lab, models, 3) == positions(shares, lab, models, 3)


def test_pc_sampler_ranks_a_few_rows_at_a_time(lab, llada, monkeypatch):
    decoder = PCSampler(frequencies="checkpoints/token_counts.json", block_length=6, steps=5, temperature=1.0)
    prompts = [torch.tensor([1, 2, 3][:n]) for n in (1, 3, 2)]
    stop = Stop(frozenset({lab.EOS}))

    def answers():
        found = decoder.decode(Models({"denoiser": llada}), prompts, 12, stop, [0, 1, 2])
        return [(answer.ids, answer.commits) for answer in found]

    whole, parts = answers(), []
    values = PCSampler._values

    def watched(self, board, part, rows, scores, ids):
        parts.append(len(part))
        return values(self, board, part, rows, scores, ids)

    monkeypatch.setattr(PCSampler, "_values", watched)
    monkeypatch.setattr("unmask.decoding.board.LOGITS", 1)  # a row at a time
    assert answers() == whole
    assert set(parts) == {1} and len(parts) > 3


def test_pc_samplers_table_belongs_to_the_tokenizer(table):
    path = table(counts=[1] * 15)
    with pytest.raises(ValueError, match="holds 15 ids, and the vocabulary has 16"):
        PCSampler(frequencies=path).check(8, vocabulary=16)
    for wrong in (table(shares=[1]), table(counts=3), "nowhere.json"):
        with pytest.raises(ValueError, match="frequencies=.*must be a JSON file"):
            PCSampler(frequencies=wrong).check(8, vocabulary=16)
    with pytest.raises(ValueError, match="frequencies=None"):
        PCSampler()
    shipped = PCSampler(frequencies="checkpoints/token_counts.json")
    shipped.check(8, vocabulary=2048)
    assert shipped.contents == {}, "as in the records that know it by its name"
    first, second = (PCSampler(frequencies=table(counts=[1] * n)).contents for n in (16, 17))
    assert first != second, "a changed file is another setting"
    assert (ROOT / "checkpoints" / "token_counts.json").is_file()


# dKV-Cache, and refreshes of the block caches


@pytest.mark.parametrize("cache", ["decoded", "dual", "prefix"])
def test_a_cache_that_is_renewed_in_every_step_changes_no_id(lab, denoiser, cache):
    settings = {"block_length": 4, "quota": "threshold", "threshold": 0.6}
    if cache != "decoded" and denoiser.lookback:
        pytest.skip("a model that looks back commits one token in a block's first step")
    models = lab.Models(denoiser)
    plain = lab.trace(Unmasking(**settings), models, [1, 2, 3], 12, stop=())
    renewed = lab.trace(
        Unmasking(**settings, cache=cache, refresh_interval=1), models, [1, 2, 3], 12, stop=()
    )
    assert lab.essence(renewed[0]) == lab.essence(plain[0]) and renewed[1] == plain[1]


def test_the_decoded_cache_feeds_masks_and_the_last_commit(lab, llada):
    """One token a step, in blocks of 6 of a canvas of 12, after a prompt of 3."""
    decoder = Unmasking(block_length=6, cache="decoded", refresh_interval=4)
    hook = lab.Hook(llada)
    generation, _ = lab.trace(decoder, lab.Models(llada), [1, 2, 3], 12, stop=())
    hook.handle.remove()
    assert hook.fed == [15, 15, 11, 10, 15, 8, 15, 15, 5, 4, 15, 2]
    assert generation.positions["denoiser"] == sum(hook.fed)


def test_the_decoded_cache_also_feeds_what_predicts_masks(lab, dream):
    decoder = Unmasking(block_length=6, cache="decoded", refresh_interval=4)
    hook = lab.Hook(dream)
    generation, steps = lab.trace(decoder, lab.Models(dream), [1, 2, 3], 12, stop=())
    hook.handle.remove()
    fed, at = [], {}
    for i, ((position,), _) in enumerate(steps):
        block = range(0, 6) if i < 6 else range(6, 12)
        masks = [p for p in block if p not in at]
        wanted = {p for p in range(12) if at.get(p, i) >= i - 1} | {p - 1 for p in masks}
        fed.append(15 if i % 6 in (0, 1, 4) else len(wanted))
        at[position] = i
    assert hook.fed == fed and generation.positions["denoiser"] == sum(fed)


def test_block_caches_are_renewed_every_so_many_steps(lab, llada):
    for cache, between in (("dual", 6), ("prefix", (12, 6))):
        decoder = Unmasking(block_length=6, cache=cache, refresh_interval=3)
        hook = lab.Hook(llada)
        lab.trace(decoder, lab.Models(llada), [1, 2, 3], 12, stop=())
        hook.handle.remove()
        first, second = between if isinstance(between, tuple) else (between, between)
        assert hook.fed == [15, first, first] * 2 + [15, second, second] * 2


@pytest.mark.parametrize(
    "settings",
    [{"cache": "decoded"}, {"refresh_interval": 4}, {"cache": "none", "refresh_interval": 4}],
)
def test_a_refresh_belongs_to_a_cache(settings):
    with pytest.raises(ValueError, match="refresh_interval="):
        Unmasking(**settings)
