"""What a step tells its observer for a trace: what was drafted and accepted, and where blocks stand."""

import pytest
import torch

from unmask.decoding.apd import APD
from unmask.decoding.pipeline import D2F, MultiBlock
from unmask.decoding.speculative import Speculative
from unmask.decoding.unmasking import Unmasking


def steps_of(lab, decoder, models, prompt, max_new_tokens, stop=()):
    """The generation, and (positions, ids, drafted, accepted, states of blocks) of every step."""
    steps = []

    def observe(row, positions, ids):
        steps.append((positions, ids, list(row.drafted), row.accepted, decoder.block_states(row)))

    stop = lab.Stop(frozenset(stop))
    (generation,) = decoder.decode(models, [torch.tensor(prompt)], max_new_tokens, stop, [0], observe)
    return generation, steps


@pytest.mark.parametrize("after_end", ["none", "fill"])
@pytest.mark.parametrize(
    "block_add_threshold, decoded_token_threshold", [(0.25, 0.75), (0.5, 1.0), (1.0, 1.0), (0.0, 0.0)]
)
@pytest.mark.parametrize("kind", [D2F, MultiBlock])
def test_blocks_follow_the_rules_of_a_pipeline(
    lab, llada, kind, block_add_threshold, decoded_token_threshold, after_end
):
    limit = {"skip_threshold": 0.3} if kind is D2F else {"entropy_max": 1.0}
    thresholds = {
        "block_add_threshold": block_add_threshold,
        "decoded_token_threshold": decoded_token_threshold,
    }
    decoder = kind(block_length=3, after_end=after_end, **thresholds, **limit)
    models, letters = lab.Models(llada), set()
    for prompt in ([1, 2, 3], [5, 4], [7, 7, 1, 0]):
        whole, _ = steps_of(lab, decoder, models, prompt, 14)
        for stop in ((), (whole.ids[4],), (whole.ids[9],)):
            _, steps = steps_of(lab, decoder, models, prompt, 14, stop)
            known, before, ended = set(), "wwwww", False  # multiblock may write twice
            for positions, ids, _, _, states in steps:
                share = [sum(p // 3 == block for p in known) / min(3, 14 - 3 * block) for block in range(5)]
                written = [sum(p // 3 == block for p in set(positions) - known) for block in range(5)]
                known |= set(positions)
                done = [known >= set(range(3 * block, min(3 * block + 3, 14))) for block in range(5)]
                assert [state == "d" for state in states] == done
                if not ended:
                    begun = [k for k in range(5) if before[k] == "w" and (states[k] != "w" or written[k])]
                    ended = bool(set(ids) & set(stop))
                    if not ended:  # at most one a step, and only beside one that is far enough
                        assert len(begun) <= 1
                        assert all(k == 0 or share[k - 1] >= block_add_threshold for k in begun)
                        for k, state in enumerate(states):
                            may = k == 0 or before[k] == "f" or share[k - 1] >= decoded_token_threshold
                            assert state != "f" or may
                            assert kind is MultiBlock or before[k] != "f" or written[k]  # full: one a step
                before = states
                letters |= set(states)
    assert letters >= set("wfd" if block_add_threshold == decoded_token_threshold else "wbfd")


@pytest.mark.parametrize("chunk", [2, None])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_draft_of_apd_is_what_was_judged(lab, dream, qwen, weight, chunk):
    decoder = APD(mixture_weight=weight, chunk=chunk, max_lookahead=5)
    generation, steps = steps_of(lab, decoder, lab.Models(dream, qwen), [1, 2], 12)
    check_drafts(generation, steps, own=0)


def test_a_draft_of_a_small_model_and_where_it_broke(lab, qwen):
    models = lab.models_for(Speculative(), None, qwen)
    generation, steps = steps_of(lab, Speculative(block_length=4), models, [1, 2], 11)
    check_drafts(generation, steps, own=1)
    assert [len(drafted) for _, _, drafted, _, _ in steps] == [0, 3, 3, 1]  # the canvas ends


def test_a_draft_that_the_target_refuses(lab, qwen, llada):
    models = lab.Roles({"target": qwen, "drafter": lab.CausalDenoiser(llada)})
    generation, steps = steps_of(lab, Speculative(block_length=4), models, [1, 2], 11)
    check_drafts(generation, steps, own=1)
    assert any(accepted < len(drafted) for _, _, drafted, accepted, _ in steps)


def check_drafts(generation, steps, own):
    """A step commits what it accepted of its draft, and `own` tokens more."""
    for _, ids, drafted, accepted, states in steps:
        assert ids[:accepted] == drafted[:accepted] and len(ids) == accepted + own and states == ""
        assert own == 0 or accepted == len(drafted) or drafted[accepted] != ids[accepted]
    assert sum(len(ids) for _, ids, *_ in steps) == len(generation.ids)


def test_other_decoders_have_neither(lab, llada):
    _, steps = steps_of(lab, Unmasking(block_length=4), lab.Models(llada), [1, 2], 8)
    assert {(len(drafted), accepted, states) for *_, drafted, accepted, states in steps} == {(0, 0, "")}
