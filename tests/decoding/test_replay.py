"""What the page tells of a step, from the record alone, is what the decoder did."""

from dataclasses import asdict

import pytest
import torch

from unmask.decoding.apd import APD
from unmask.decoding.pipeline import D2F, MultiBlock
from unmask.decoding.speculative import Speculative
from unmask.page import replay
from unmask.page.replay import BEGUN, DECODED, FULL, WAITING
from unmask.records.sample import committed


def record_of(lab, decoder, models, prompt, max_new_tokens, name, stop=()):
    """(sample, config) as a run has them, and [(draft, forwards so far) of every step] as a trace has."""
    steps = []

    def observe(row, positions, ids):
        steps.append((list(row.drafted), dict(row.forwards)))

    stop = lab.Stop(frozenset(stop))
    (generation,) = decoder.decode(models, [torch.tensor(prompt)], max_new_tokens, stop, [0], observe)
    identity = {key: value for key, value in asdict(decoder).items() if value != "none"}
    config = {"decoder": identity | {"name": name}, "roles": list(decoder.roles)}
    return vars(generation) | {"max_new_tokens": max_new_tokens}, config, steps


@pytest.mark.parametrize("after_end", ["none", "fill"])
@pytest.mark.parametrize(
    "block_add_threshold, decoded_token_threshold", [(0.25, 0.75), (0.5, 1.0), (1.0, 1.0), (0.0, 0.0)]
)
@pytest.mark.parametrize("kind", [D2F, MultiBlock])
def test_blocks_are_in_the_states_of_the_decoder(
    lab, llada, kind, block_add_threshold, decoded_token_threshold, after_end, monkeypatch
):
    seen = []
    limit = {"skip_threshold": 0.3} if kind is D2F else {"entropy_max": 1.0}
    decoder = kind(
        block_length=3,
        block_add_threshold=block_add_threshold,
        decoded_token_threshold=decoded_token_threshold,
        after_end=after_end,
        **limit,
    )
    real = kind.step

    def step(self, board):
        (row,) = board.rows
        commits = real(self, board)
        after = [token is not None for token in row.canvas]
        for position in commits[0][0]:
            after[position] = True
        blocks = [after[k : k + 3] for k in range(0, len(after), 3)]
        full = row.state.full
        seen.append(
            "".join(
                DECODED if all(block) else WAITING if k >= len(full) else FULL if full[k] else BEGUN
                for k, block in enumerate(blocks)
            )
        )
        return commits

    monkeypatch.setattr(kind, "step", step)
    models = lab.Models(llada)
    for prompt in ([1, 2, 3], [5, 4], [7, 7, 1, 0]):
        whole, _ = lab.trace(decoder, models, prompt, 14, stop=())
        for stop in ((), (whole.ids[4],), (whole.ids[9],)):
            seen.clear()
            sample, config, _ = record_of(lab, decoder, models, prompt, 14, kind.__name__.lower(), stop)
            assert (sample["finish"] == "stop") == bool(stop)
            told = replay.blocks(sample, config)
            if kind is MultiBlock and stop and after_end == "none":  # what it writes over has lost its step
                left = sample["useful"] // 3
                told, seen[:] = [s[:left] for s in told], [s[:left] for s in seen]
            assert told == seen


@pytest.mark.parametrize("chunk", [2, None])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_draft_of_apd_is_what_was_judged(lab, dream, qwen, weight, chunk):
    decoder = APD(mixture_weight=weight, chunk=chunk, max_lookahead=5)
    sample, config, steps = record_of(lab, decoder, lab.Models(dream, qwen), [1, 2], 12, "apd")
    check_drafts(sample, config, steps, own=0)


def test_a_draft_of_a_small_model_and_where_it_broke(lab, qwen):
    models = lab.models_for(Speculative(), None, qwen)
    sample, config, steps = record_of(lab, Speculative(block_length=4), models, [1, 2], 11, "speculative")
    check_drafts(sample, config, steps, own=1)
    assert [drafted for drafted, _ in replay.drafts(sample, config)] == [0, 3, 3, 1]  # the canvas ends


def test_a_draft_that_the_target_refuses_is_in_the_trace(lab, qwen, llada):
    models = lab.Roles({"target": qwen, "drafter": lab.CausalDenoiser(llada)})
    sample, config, steps = record_of(lab, Speculative(block_length=4), models, [1, 2], 11, "speculative")
    check_drafts(sample, config, steps, own=1)
    assert any(accepted < drafted for drafted, accepted in replay.drafts(sample, config))


def check_drafts(sample, config, steps, own):
    """A record's drafts are as long as those of the trace, and their accepted tokens are the answer's."""
    begin = 0
    counted = committed(sample)
    assert [forwards for _, forwards in steps][-1] == sample["forwards"]
    for (drafted, accepted), (draft, _), count in zip(
        replay.drafts(sample, config), steps, counted, strict=True
    ):
        assert (drafted, accepted) == (len(draft), count - own)
        assert draft[:accepted] == sample["ids"][begin : begin + accepted]
        assert own == 0 or accepted == drafted or draft[accepted] != sample["ids"][begin + accepted]
        begin += count


def test_other_decoders_have_neither(lab, llada):
    sample = {"forwards": {"denoiser": 2}, "commits": [0, 1, 0], "max_new_tokens": 3, "ids": [1, 2, 3]}
    config = {"decoder": {"name": "confidence", "block_length": 3}, "roles": ["denoiser"]}
    assert committed(sample) == [2, 1]
    assert replay.drafts(sample, config) is None and replay.blocks(sample, config) is None
