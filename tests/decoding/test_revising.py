"""Decoders that take tokens back, or decode in branches."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unmask.decoding.blocks import Blocks
from unmask.decoding.freedave import FreeDave
from unmask.decoding.joint_threshold import JointThreshold
from unmask.decoding.lopa import LoPA
from unmask.decoding.p2 import P2
from unmask.decoding.pipeline import D2F
from unmask.decoding.saber import Saber
from unmask.decoding.unmasking import Unmasking
from unmask.decoding.visibility import branches, shadowed
from unmask.decoding.wino import Progress, Wino
from unmask.records.files import RecordError
from unmask.records.sample import check_sample
from unmask.testing.check import check_decoder
from unmask.testing.oracle import Oracle, ReplaceRandom, Shuffle

REVISING = {
    "wino": Wino(threshold=0.0, threshold_back=1.0, block_length=12),
    "wino-blocks": Wino(threshold=0.0, threshold_back=1.0, block_length=None, after_end="fill"),
    "saber": Saber(n=3, block_length=6),
    "saber-one-block": Saber(),
    "p2": P2(steps=7),
    "p2-more-steps": P2(steps=20),
    "joint": JointThreshold(threshold=0.3, edit_threshold=0.2, block_length=4),
    "joint-separate": JointThreshold(threshold=0.3, block_length=5, max_post_edit_steps=2, store="separate"),
    "joint-uncached": JointThreshold(threshold=0.3, block_length=4, penalty_lambda=1.0, cache="none"),
}
BRANCHES = {
    "lopa": LoPA(block_length=4, skip_threshold=0.3),
    "lopa-block-causal": LoPA(block_length=4, skip_threshold=0.5, visible="block_causal", branches=4),
    "lopa-none": LoPA(block_length=5, skip_threshold=0.5, branches=1, alpha=0.5, fallback="margin"),
    "freedave": FreeDave(block_length=4),
    "freedave-prefix": FreeDave(block_length=6, cache="prefix", draft_steps=3),
    "freedave-threshold": FreeDave(block_length=6, threshold=0.2),
}


SECOND = (
    "wino-blocks saber-one-block p2-more-steps joint-uncached lopa-block-causal lopa-none freedave-prefix"
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SECOND.split()))
        for name in [*REVISING, *BRANCHES]
    ],
)
def test_it_keeps_what_every_decoder_promises(name):
    check_decoder((REVISING | BRANCHES)[name])


@pytest.fixture(params=REVISING)
def revising(request):
    return REVISING[request.param]


def test_a_record_tells_every_write(lab, revising, llada):
    """The canvas after every step follows from ids, commits and what was lost."""
    lost = 0
    for prompt in ([1, 2, 3], [4, 5], [9, 9, 3, 2], [6]):
        generation, steps = lab.trace(revising, lab.Models(llada), prompt, 12, stop=())
        canvas, writes = {}, 0
        for number, (positions, ids) in enumerate(steps):
            canvas.update(zip(positions, ids, strict=True))
            writes += sum(token is not None for token in ids)
            final = zip(generation.ids, generation.commits, strict=True)
            told = {p: token for p, (token, at) in enumerate(final) if at <= number}
            told |= {p: token for p, token, written, taken in generation.lost if written <= number < taken}
            assert told == {p: token for p, token in canvas.items() if token is not None}
        assert writes == len(generation.ids) + len(generation.lost)
        assert len(generation.ids) == 12 == sum(generation.steps)
        lost += len(generation.lost)
    assert lost


def test_exact_caches_of_edited_blocks_change_no_id(lab, llada):
    for settings in ({"threshold": 0.3, "edit_threshold": 0.1}, {"threshold": 0.6, "max_post_edit_steps": 1}):
        answers = [
            lab.trace(
                JointThreshold(block_length=4, **settings, **mode), lab.Models(llada), [1, 2, 3], 12, stop=()
            )[0].ids
            for mode in ({"cache": "exact"}, {"cache": "none"}, {"cache": "exact", "store": "separate"})
        ]
        assert answers[0] == answers[1] == answers[2]


def test_without_edits_it_is_block_diffusion(lab, llada):
    """No token is rewritten where none may be: the ids and steps of quota=dynamic."""
    plain = Blocks(quota="dynamic", threshold=0.3, block_length=4)
    edits = JointThreshold(threshold=0.3, edit_threshold=1.0, block_length=4)
    ours, theirs = (lab.trace(d, lab.Models(llada), [1, 2, 3], 12, stop=())[0] for d in (edits, plain))
    assert ours.ids == theirs.ids and not ours.lost
    # A block ends with a forward that finds nothing to rewrite.
    assert ours.forwards["denoiser"] == theirs.forwards["denoiser"] + 3


def test_winos_shadow_sees_all_but_its_twin():
    sees = shadowed(5, [2, 3])
    ordinary = [True] * 5 + [False] * 2
    assert sees.tolist() == [
        *[ordinary] * 5,
        [True, True, False, True, True, True, True],
        [True, True, True, False, True, True, True],
    ]


def test_wino_without_revocation_is_a_capped_threshold(lab, llada):
    decoder = Wino(threshold=0.3, threshold_back=0.0, block_length=None)
    plain = Unmasking(quota="dynamic", threshold=0.3, after_end="none")
    ours, theirs = (lab.trace(d, lab.Models(llada), [1, 2], 4, stop=())[0] for d in (decoder, plain))
    assert ours.lost == [] and ours.ids == theirs.ids and ours.commits == theirs.commits
    forwards = ours.forwards["denoiser"]
    assert ours.positions["denoiser"] == theirs.positions["denoiser"] + 4 * forwards  # the shadows


def test_wino_takes_back_fewer_than_the_step_before_committed():
    """Of a block of 8: what is written and masked again follows from ranks, counts and the last step's."""
    row = SimpleNamespace(state=Progress(range(8, 16), last=3), revisable=8)
    order, tokens, doubts = [4, 5, 6, 7], [41, 51, 61, 71], [2, 0, 1, 3]
    assert Wino()._revise(row, order, tokens, 4, 2, doubts, 3) == ([12, 13, 10, 8], [41, 51, None, None])
    assert (row.state.last, row.revisable) == (2, 8)
    # A step that commits one token takes none back, and the next one neither.
    assert Wino()._revise(row, order, tokens, 4, 0, doubts, 4) == ([12], [41])
    assert Wino()._revise(row, order, tokens, 4, 4, doubts, 4) == ([12, 13, 14, 15], tokens)
    assert row.revisable == 16  # the block is full, and nothing in it is taken back
    row.state.last = 9
    assert Wino()._revise(row, [0], [7], 1, 1, doubts, 2) == ([8], [7])


def test_wino_commits_at_most_its_share():
    row = SimpleNamespace(state=Progress(range(64)), revisable=0)
    for masks, sure, count in ((64, 64, 20), (20, 20, 14), (6, 6, 5), (3, 3, 3), (64, 0, 1)):
        positions, _ = Wino()._revise(row, list(range(masks)), [1] * masks, masks, sure, [], 0)
        assert len(positions) == count


def test_wino_is_refused_for_models_that_look_back(dream):
    with pytest.raises(ValueError, match="predict a token from its own column"):
        Wino().check_layout(dream.layout)


def test_saber_ends_though_it_would_take_back_for_ever(lab, llada, monkeypatch):
    monkeypatch.setattr("unmask.decoding.saber.LONGEST", 3)
    generation, _ = lab.trace(Saber(n=2), lab.Models(llada), [1, 2, 3], 12, stop=())
    assert len(generation.ids) == 12
    assert max(taken for *_, taken in generation.lost) < 3


def test_p2_masks_as_many_as_its_schedule_says(lab, llada):
    _, steps = lab.trace(P2(steps=5), lab.Models(llada), [1, 2, 3], 12, stop=())
    canvas, left = {}, []
    for positions, ids in steps:
        canvas.update(zip(positions, ids, strict=True))
        left.append(12 - sum(token is not None for token in canvas.values()))
    assert left == [9, 7, 4, 2, 0]


def test_lopa_without_branches_is_d2f(lab, llada):
    shared = {"block_length": 4, "skip_threshold": 0.4, "fallback": "neg_entropy"}
    branches = {"branches": 1, "visible": "block_causal"}
    for after_end in ("none", "fill"):
        ours, theirs = (
            lab.trace(d, lab.Models(llada), [1, 2, 3], 12, stop=(4,))
            for d in (LoPA(**shared, **branches, after_end=after_end), D2F(**shared, after_end=after_end))
        )
        assert [sorted(zip(*step, strict=True)) for step in ours[1]] == [
            sorted(zip(*step, strict=True)) for step in theirs[1]
        ]
        assert ours[0].forwards == theirs[0].forwards


def test_branches_cost_positions_and_no_forwards(lab, llada):
    one, many = (
        lab.trace(
            LoPA(block_length=12, branches=k, skip_threshold=1.0), lab.Models(llada), [1, 2], 12, stop=()
        )[0]
        for k in (1, 3)
    )
    assert many.forwards["denoiser"] < one.forwards["denoiser"] == 12  # a token ahead in most rounds
    assert many.positions["denoiser"] > one.positions["denoiser"]


def test_branches_see_themselves_alone():
    assert branches([2, 1]).tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]


@pytest.mark.parametrize("cache", ["dual", "prefix"])
@pytest.mark.parametrize("draft_steps", [1, 2, 5])
def test_freedave_is_lossless_and_saves_forwards(lab, denoiser, cache, draft_steps):
    decoder = FreeDave(block_length=4, cache=cache, draft_steps=draft_steps)
    plain = decoder.baseline
    for prompt in ([1, 2, 3], [4], [5, 6, 7, 8]):
        ours, theirs = (lab.trace(d, lab.Models(denoiser), prompt, 12, stop=())[0] for d in (decoder, plain))
        assert ours.ids == theirs.ids
        assert (
            ours.forwards["denoiser"] <= theirs.forwards["denoiser"] + 3
        )  # LLaDA: a forward that only begins
    assert not FreeDave(threshold=0.9).lossless


def wino_by_hand(task, prompt, mask, tau, back):
    """Answer and revocations of WINO in one block, from the task's exact marginals alone."""
    n, canvas, lost, last = task.n, [mask] * task.n, 0, 30

    def law(position, left_out=None):
        seen = [mask if p == left_out else token for p, token in enumerate(canvas)]
        at = torch.tensor([[position]])
        return task.marginals(torch.tensor([prompt]), torch.tensor([[seen]]), at, mask)[0, 0].float().tolist()

    while mask in canvas:
        laws = {p: law(p) for p in range(n) if canvas[p] == mask}
        ranked = sorted(laws, key=lambda p: -max(laws[p]))
        sure = [p for p in ranked if max(laws[p]) > tau][: min(max(int(0.7 * len(laws)), 5), 20)] or ranked[
            :1
        ]
        judged = {p: law(p, p)[canvas[p]] for p in range(n) if canvas[p] != mask}
        doubted = [p for p in sorted(judged, key=judged.get) if judged[p] < back]
        doubted = doubted[: last - 1] if len(sure) > 1 else []
        for p in sure:
            canvas[p] = laws[p].index(max(laws[p]))
        for p in doubted:
            canvas[p] = mask
        lost, last = lost + len(doubted), len(sure)
    return canvas, lost


@pytest.mark.parametrize("task", [Shuffle(8), Shuffle(6), ReplaceRandom(8), ReplaceRandom(12)])
@pytest.mark.parametrize("tau", [0.05, 0.6, 0.9])
def test_wino_on_exact_ground(lab, task, tau):
    """With an ideal model: what its rule gives by hand, document by document.

    On replace_random the shadows repair what a threshold of 0.6 breaks: every answer is right, where the
    threshold alone has none. On shuffle they cannot: greedy, all open positions get the same name, and every
    twin condemns it alike.
    """
    names = task.n + 3
    prompts = [
        torch.randperm(names, generator=torch.Generator().manual_seed(i))[: task.prompt_length]
        for i in range(20)
    ]
    models, scores = lab.Models(Oracle(task, names)), []
    for decoder in (Wino(threshold=tau, block_length=None), Unmasking(quota="dynamic", threshold=tau)):
        found = decoder.decode(models, prompts, task.n, lab.Stop(), [0] * len(prompts))
        scores.append(sum(task.score(p.tolist(), g.ids) for p, g in zip(prompts, found, strict=True)))
        if decoder.revises:
            for prompt, generation in zip(prompts, found, strict=True):
                by_hand = wino_by_hand(task, prompt.tolist(), names, tau, 0.9)
                assert (generation.ids, len(generation.lost)) == by_hand
    if isinstance(task, ReplaceRandom) and tau == 0.6:
        assert scores == [20, 0]
    if isinstance(task, Shuffle):
        assert scores == ([20, 20] if tau > 0.5 else [0, 0])


BAD = [
    (Wino, {"threshold": 1.5}, "threshold="),
    (Wino, {"threshold_back": "a"}, "threshold_back="),
    (Wino, {"block_length": 0}, "block_length="),
    (Wino, {"after_end": "stop"}, "after_end="),
    (Saber, {"n": 0}, "n="),
    (Saber, {"block_length": 1.5}, "block_length="),
    (P2, {"steps": 0}, "steps="),
    (JointThreshold, {"edit_threshold": -1}, "edit_threshold="),
    (JointThreshold, {"penalty_lambda": float("nan")}, "penalty_lambda="),
    (JointThreshold, {"max_post_edit_steps": -1}, "max_post_edit_steps="),
    (JointThreshold, {"least": 0}, "least="),
    (JointThreshold, {"hand_over": True, "store": "separate"}, "hand_over="),
    (LoPA, {"branches": 0}, "branches="),
    (LoPA, {"alpha": 2}, "alpha="),
    (LoPA, {"visible": "causal"}, "visible="),
    (LoPA, {"cache": "off"}, "cache="),
    (FreeDave, {"draft_steps": 0}, "draft_steps="),
    (FreeDave, {"threshold": 2}, "threshold="),
    (FreeDave, {"cache": "none"}, "cache="),
]


@pytest.mark.parametrize("kind, settings, named", BAD)
def test_a_bad_setting_is_named(kind, settings, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        kind(**settings)


@pytest.mark.parametrize("decoder", [Wino(), Saber(block_length=5), FreeDave()])
def test_blocks_must_divide_the_canvas(decoder):
    with pytest.raises(ValueError, match="block_length=.*does not divide max_new_tokens=12"):
        decoder.check(12)


def a_sample(lost):
    return {
        "doc_id": 0,
        "repeat": 0,
        "task": "t",
        "prompt_hash": "h",
        "prompt_length": 3,
        "seed": 1,
        "ids": [5, 6],
        "commits": [1, 2],
        "text": "",
        "useful": 2,
        "finish": "length",
        "forwards": {"denoiser": 3},
        "positions": {"denoiser": 9},
        "seconds": 1.0,
        "max_new_tokens": 2,
        "batch_size": 1,
        "batch": 0,
        "exact": None,
        "commit": None,
        "machine": "m",
        "session": None,
        "lost": lost,
    }


def test_a_record_of_lost_tokens_must_add_up():
    check_sample(json.loads(json.dumps(a_sample([[0, 9, 0, 1]]))))
    for lost in (
        [[0, 9, 0, 3]],
        [[2, 9, 0, 1]],
        [[0, 9, 1, 0]],
        [[0, 9, 0, 2]],
        [[0, 9, 0]],
        [[0, 9, -1, 1]],
    ):
        with pytest.raises(RecordError, match="lost|taken back"):
            check_sample(a_sample(lost))


def test_the_decoder_of_the_docs_keeps_what_every_decoder_promises(lab, llada):
    page = (Path(__file__).parents[2] / "docs" / "revising.md").read_text()
    namespace = {}
    exec(page.split("```python\n")[1].split("```")[0], namespace)
    check_decoder(namespace["Doubt"](floor=0.2))
    generation, _ = lab.trace(namespace["Doubt"](floor=0.2), lab.Models(llada), [1, 2, 3], 12, stop=())
    assert generation.lost
