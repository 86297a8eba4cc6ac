"""Adaptive parallel decoding: traces, the coupling's law, and the auxiliary's cache."""

import pytest
import torch

from unmask.decoding.apd import APD

PROMPT = [1, 2, 3, 4, 5]


def counting(strength=6.0, vocab_size=16):
    """An auxiliary that expects every token to be followed by the next number."""

    def script(ids):
        logits = torch.zeros(len(ids), vocab_size)
        logits[range(len(ids)), [(i + 1) % vocab_size for i in ids]] = strength
        return logits

    return script


def constant(logits):
    """A causal model that predicts the same after everything."""
    return lambda ids: logits.expand(len(ids), -1)


@pytest.fixture
def pair(lab):
    """A denoiser that likes 2 3 9 5 6 (third position: 4 nearly as well), and an auxiliary that counts."""
    logits = lab.favourites(2, 3, 9, 5, 6)
    logits[2, 4] = 4.0
    denoiser = lab.Scripted(lab.on_canvas(logits), lab.MASK)
    return lab.Models(denoiser, lab.Scripted(counting()))


def test_rejection_in_the_middle(lab, pair):
    """At R = 0.5 every judgement is by the higher of 0.5 * (denoiser's logit + auxiliary's logit)."""
    generation, steps = lab.trace(APD(mixture_weight=0.5), pair, [0, 1], 5)
    assert steps == [
        ([0, 1], [2, 3]),  # third: 4 + 6 for 4, 5 for 9
        ([2], [9]),  # the first is accepted in any case; second: 6 for 10, 5 for 5
        ([3, 4], [5, 6]),  # 10 would be preferred here as well, but the first is not judged; then 5 + 6 for 6
    ]
    assert generation.commits == [0, 0, 1, 2, 2] and generation.steps == [2, 1, 2]
    # Committed ids and the draft but for its last token, from the last committed one on.
    assert pair["auxiliary"].seen == [[0, 1, 2, 3, 9, 5]] * 3
    assert generation.forwards == {"denoiser": 3, "auxiliary": 3}
    assert generation.positions == {"denoiser": 3 * 7, "auxiliary": 6 + 3 + 2}
    assert (generation.useful, generation.finish) == (5, "length")


def test_a_higher_weight_on_the_denoiser_accepts_more(lab, pair):
    _, steps = lab.trace(APD(mixture_weight=0.9), pair, [0, 1], 5)
    assert steps == [([0, 1, 2, 3, 4], [2, 3, 9, 5, 6])]


def test_the_second_token_is_judged_whatever_the_first_one_is(lab):
    """The auxiliary expects 2 in the first position, and what follows 9 in the others."""
    denoiser = lab.Scripted(lab.on_canvas(lab.favourites(9, 10, 11, 4)), lab.MASK)
    _, steps = lab.trace(APD(mixture_weight=0.1), lab.Models(denoiser, lab.Scripted(counting())), [0, 1], 4)
    assert steps == [([0, 1, 2], [9, 10, 11]), ([3], [4])]


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_acceptance_ends_at_the_first_disagreement(lab, chunk):
    """The auxiliary agrees again further right, which must not matter."""
    denoiser = lab.Scripted(lab.on_canvas(lab.favourites(2, 3, 9, 10, 11)), lab.MASK)
    models = lab.Models(denoiser, lab.Scripted(counting()))
    _, steps = lab.trace(APD(mixture_weight=0.1, chunk=chunk), models, [0, 1], 5)
    assert steps == [([0, 1], [2, 3]), ([2, 3, 4], [9, 10, 11])]


def test_a_lookahead_of_one_never_asks_the_auxiliary(lab, pair):
    generation, steps = lab.trace(APD(max_lookahead=1), pair, [0, 1], 5)
    assert generation.forwards == {"denoiser": 5, "auxiliary": 0}
    assert generation.positions["auxiliary"] == 0
    assert [positions for positions, _ in steps] == [[0], [1], [2], [3], [4]]


def test_what_is_accepted_after_a_stop_is_not_useful(lab):
    denoiser = lab.Scripted(lab.on_canvas(lab.favourites(2, lab.EOS, 4, 5, 6, 7)), lab.MASK)
    models = lab.Models(denoiser, lab.Scripted(counting()))
    generation, _ = lab.trace(APD(mixture_weight=1.0, max_lookahead=3), models, [0, 1], 6)
    assert (generation.ids, generation.useful, generation.finish) == ([2, lab.EOS, 4], 1, "stop")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.2},
        {"temperature": 1.0},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 0.2, "top_p": 0.95},
        {"coupling": "argmax"},
    ],
)
def test_r_1_accepts_the_whole_draft_and_never_asks_the_auxiliary(lab, denoiser, qwen, settings):
    for seed in range(5):
        decoder = APD(mixture_weight=1.0, **settings)
        generation, _ = lab.trace(decoder, lab.Models(denoiser, qwen), PROMPT, 12, stop=(), seed=seed)
        assert generation.steps == [12]
        assert generation.forwards == {"denoiser": 1, "auxiliary": 0}


def test_r_1_of_the_published_coupling_rejects_what_is_not_the_argmax(lab, denoiser, qwen):
    decoder = APD(mixture_weight=1.0, coupling="argmax", temperature=1.0)
    generation, _ = lab.trace(decoder, lab.Models(denoiser, qwen), PROMPT, 12, stop=())
    assert len(generation.steps) > 1 and generation.forwards["auxiliary"] > 0


def test_greedy_r_0_accepts_what_the_auxiliary_would_have_written(lab, qwen):
    """The denoiser writes the auxiliary's own greedy continuation, with errors in every third position."""

    def continuation(ids, n):
        ids = torch.tensor([ids])
        for _ in range(n):
            ids = torch.cat((ids, qwen(ids).logits[:, -1:].argmax(-1)), 1)
        return ids[0, -n:].tolist()

    def script(ids):
        known = ids.index(lab.MASK)
        tokens = continuation(ids[:known], len(ids) - known)
        tokens = [(t + 1) % 14 if (known + i) % 3 == 0 else t for i, t in enumerate(tokens)]
        return torch.cat((torch.zeros(known, lab.V), lab.favourites(*tokens)))

    denoiser = lab.Scripted(script, lab.MASK)
    _, steps = lab.trace(APD(mixture_weight=0.0), lab.Models(denoiser, qwen), PROMPT, 14, stop=())
    written, lengths = list(PROMPT), []
    for positions, ids in steps:
        draft = script(written + [lab.MASK] * (14 - positions[0]))[len(written) :].argmax(-1).tolist()
        agreed = 1
        while agreed < len(draft) and continuation(written + draft[:agreed], 1) == [draft[agreed]]:
            agreed += 1
        assert ids == draft[:agreed]
        written += ids
        lengths.append(len(ids))
    assert len(written) == 19 and len(set(lengths)) > 1


# The coupling's law


@pytest.fixture(scope="module")
def laws():
    """Logits (2, 16) of two masks, and the auxiliary's (16,): six tokens each that matter."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.full((2, 16), -30.0)
    logits[:, :6] = torch.randn(2, 6, generator=generator)
    auxiliary = torch.full((16,), -30.0)
    auxiliary[:6] = torch.randn(6, generator=generator)
    return logits, auxiliary


def first_steps(lab, decoder, logits, auxiliary, n=2500):
    """(first token, number accepted) of the first step of n decodes over two masks, seeds 0 to n-1."""
    steps = {}
    models = lab.Models(lab.Scripted(lab.on_canvas(logits, 1), lab.MASK), lab.Scripted(constant(auxiliary)))
    prompts = [torch.tensor([0])] * n
    once = lab.Stop(match=lambda ids, known: 0)
    decoder.decode(models, prompts, 2, once, range(n), lambda row, _, ids: steps.setdefault(row.index, ids))
    return [(ids[0], len(ids)) for _, ids in sorted(steps.items())]


def expect(lab, tokens, law):
    counts = torch.tensor(tokens).bincount(minlength=16)[:6]
    law = law.double()[:6]
    kept = law > 1e-9
    assert counts.sum() == len(tokens) and not counts[~kept].any()
    assert lab.law_pvalue(counts[kept], law[kept]) > 1e-3


def nucleus(law, top_p):
    ordered, order = law.sort(descending=True)
    kept = order[ordered.cumsum(0) - ordered < top_p]
    filtered = torch.zeros_like(law).index_put((kept,), law[kept])
    return filtered / filtered.sum()


def agreement(p, q):
    """Probability that argmax(log p + noise) = argmax(log q + noise): over tokens i, of both being i."""
    kept = (p > 0) & (q > 0)
    either = torch.maximum(p / p[kept][:, None], q / q[kept][:, None])
    return (1 / either.sum(1)).sum().item()


@pytest.mark.parametrize(
    ("temperature", "top_p", "weight"), [(1.0, 1.0, 0.3), (0.5, 1.0, 0.5), (1.0, 0.7, 0.5)]
)
def test_law_of_the_gumbel_coupling(lab, laws, temperature, top_p, weight):
    logits, auxiliary = laws
    decoder = APD(mixture_weight=weight, temperature=temperature, top_p=top_p)
    steps = first_steps(lab, decoder, logits, auxiliary)
    draft = [nucleus((row / temperature).softmax(-1), top_p) for row in logits.double()]
    # The first token is taken as drafted; the second is judged by the mixture, with the draft's own noise.
    expect(lab, [token for token, _ in steps], draft[0])
    mixture = weight * logits[1].double().log_softmax(-1) + (1 - weight) * auxiliary.double().log_softmax(-1)
    expected = agreement(draft[1], nucleus((mixture / temperature).softmax(-1), top_p))
    accepted = sum(k == 2 for _, k in steps) / len(steps)
    assert 0.1 < expected < 0.9
    assert accepted == pytest.approx(expected, abs=4 * (expected * (1 - expected) / len(steps)) ** 0.5)


def test_the_published_coupling(lab, laws, monkeypatch):
    """Drafts at temperature T^2 from the nucleus at T; accepts while the draft is the argmax of the
    mixture."""
    logits, auxiliary = laws
    drafts, draft = [], APD.draw_draft
    monkeypatch.setattr(APD, "draw_draft", lambda *args: drafts.append(draft(*args)) or drafts[-1])
    steps = first_steps(lab, APD(0.6, temperature=0.7, top_p=0.9, coupling="argmax"), logits, auxiliary)
    kept = nucleus((logits[0].double() / 0.7).softmax(-1), 0.9) > 0
    assert 2 <= kept.sum() < 6
    law = (logits[0].double() / 0.49).softmax(-1) * kept
    expect(lab, [token for token, _ in steps], law / law.sum())
    best = (0.6 * logits[1].log_softmax(-1) + 0.4 * auxiliary.log_softmax(-1)).argmax()
    assert [k for _, k in steps] == [2 if second == best else 1 for _, second in drafts[0].tolist()]
    assert {k for _, k in steps} == {1, 2}


def test_couplings_agree_where_nothing_is_drawn(lab, dream, qwen):
    models = lab.Models(dream, qwen)
    traces = [lab.trace(APD(0.8, coupling=c), models, PROMPT, 12)[1] for c in ("gumbel", "argmax")]
    assert traces[0] == traces[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"top_p": 0.9},
        {"top_k": 4},
        {"coupling": "argmax"},
        {"kv_window": 2},
    ],
)
def test_chunks_change_the_cost_and_no_id(lab, denoiser, qwen, settings):
    prompts = [torch.tensor(PROMPT[:n]) for n in (5, 3, 4)]
    lengths = set()
    for seeds in ([1, 2, 3], [4, 5, 6]):

        def decode(chunk, seeds=seeds):
            rows = []
            handle = denoiser.lm_head.register_forward_pre_hook(
                lambda _, args: rows.append(args[0].shape[:-1].numel())
            )
            decoder = APD(0.9, chunk=chunk, **{"temperature": 0.7, **settings})
            found = decoder.decode(
                lab.Models(denoiser, qwen), prompts, 14, lab.Stop(frozenset({lab.EOS})), seeds
            )
            handle.remove()
            return [(g.ids, g.steps) for g in found], sum(rows)

        (eager, most), (lazy, fewer), (least, _) = decode(None), decode(3), decode(1)
        assert eager == lazy == least
        # At most what was accepted and one chunk, a row and step.
        assert fewer <= sum(sum(steps) + 3 * len(steps) for _, steps in lazy) and fewer <= most
        lengths |= {n for _, steps in lazy for n in steps}
    assert len(lengths) > 2


# The auxiliary


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0},
        {"temperature": 1.0, "kv_window": 3},
        {"temperature": 1.0, "max_lookahead": 3},
    ],
)
def test_the_cached_judgement_is_that_of_an_uncached_forward(lab, denoiser, qwen, settings, monkeypatch):
    auxiliary_logits, chunks = APD._auxiliary_logits, 0

    def checked(self, board, rows, columns, ids):
        nonlocal chunks
        (row,), (judged,) = board.rows, columns
        before = row.positions["auxiliary"]
        logits = auxiliary_logits(self, board, rows, columns, ids)
        expected = qwen(ids[:, : judged.stop]).logits[:, judged.start - 1 : -1]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        # Fed once: from the last committed token on, or, later in a step, from the last drafted one on.
        later = judged.start > row.first + 1
        cached = judged.start - 1 if later else row.first - 1 if row.step else 0
        assert row.positions["auxiliary"] - before == judged.stop - 1 - cached
        chunks += 1
        return logits

    monkeypatch.setattr(APD, "_auxiliary_logits", checked)
    decoder = APD(0.6, chunk=4, **settings)
    generation, _ = lab.trace(decoder, lab.Models(denoiser, qwen), PROMPT, 16, stop=(), seed=1)
    assert len(generation.ids) == 16 and chunks > 2


@pytest.mark.parametrize("coupling", ["gumbel", "argmax"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("size", [10, 24])
def test_vocabularies_of_different_sizes(lab, size, temperature, coupling):
    """The denoiser likes 12 best, the auxiliary its own last id: only what both know comes out."""
    logits = lab.favourites(12, 12, 12, 12)
    logits[:, 7] = 4.0
    auxiliary = torch.zeros(size)
    auxiliary[size - 1] = 20.0
    models = lab.Models(
        lab.Scripted(lab.on_canvas(logits), lab.MASK), lab.Scripted(constant(auxiliary), vocab_size=size)
    )
    decoder = APD(0.9, temperature=temperature, coupling=coupling)
    ids = {i for seed in range(20) for i in lab.trace(decoder, models, [0, 1], 4, seed=seed)[0].ids}
    assert ids <= set(range(min(size, lab.V))) - {lab.MASK}
    if temperature == 0:
        assert ids == {7} if size == 10 else {12}


def test_large_windows_and_lookaheads_change_nothing(lab, denoiser, qwen):
    for temperature in (0.0, 0.7):

        def decode(temperature=temperature, **settings):
            decoder = APD(0.8, temperature=temperature, **settings)
            return lab.trace(decoder, lab.Models(denoiser, qwen), PROMPT, 12, stop=())[1]

        assert (
            decode(max_lookahead=12)
            == decode(kv_window=18)
            == decode(kv_window=99, max_lookahead=99)
            == decode()
        )


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("lookahead", [None, 3])
def test_every_window_decodes_the_whole_canvas(lab, denoiser, qwen, window, lookahead):
    decoder = APD(0.8, kv_window=window, max_lookahead=lookahead)
    hook = lab.Hook(denoiser)
    _, steps = lab.trace(decoder, lab.Models(denoiser, qwen), PROMPT, 12, stop=())
    hook.handle.remove()
    assert [i for positions, _ in steps for i in positions] == list(range(12))
    starts = [positions[0] for positions, _ in steps]
    ends = [5 + min(12, t + (lookahead or 12)) for t in starts]
    # W - 1 columns left of the last step's tokens, those tokens, and the masks.
    fed = [end - (5 + last - (window - 1)) for end, last in zip(ends[1:], starts[:-1], strict=True)]
    assert hook.fed == [ends[0], *fed]
