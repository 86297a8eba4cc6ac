"""Exact ground: what every decoding rule must score on tasks whose law is known (ParallelBench,
arXiv 2510.04767).

The first half enumerates: a rule is a distribution over commits, and a recursion over canvases adds up all
paths. It shares no code with the decoders, nor with the oracles, which it checks by counting answers. The
second half decodes. The bounds of report/bounds.py are enumerated by other code: decoding checks them too.
"""

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations, permutations, product

import pytest
import torch
from scipy.stats import binom

from unmask.decoding import Models, Stop
from unmask.decoding.apd import APD
from unmask.decoding.autoregressive import Autoregressive
from unmask.decoding.leftright import LeftRight
from unmask.decoding.unmasking import Unmasking
from unmask.evaluation.evaluation import Evaluation
from unmask.evaluation.prompts import prompt_text, text_ids
from unmask.paths import ROOT
from unmask.report import bounds
from unmask.report.bounds import answers_of, bound
from unmask.tasks import parallelbench, problems
from unmask.testing import ideal
from unmask.testing.oracle import NEVER, Listed, Oracle, ReplaceRandom, Shuffle

NAMES, DOCUMENTS, BATCH = 9, 2000, 500
HAIR = 1e-6  # a threshold that equals a probability lies a hair below it: float32 rounds
TASKS = (Shuffle, ReplaceRandom)


def all_answers(task, prompt):
    """Every right answer; all are equally likely."""
    if isinstance(task, Shuffle):
        return list(permutations(prompt))
    *old, new = prompt
    return [(*old[:i], new, *old[i + 1 :]) for i in range(task.n)]


def fits(answer, canvas):
    return all(token in (None, right) for token, right in zip(canvas, answer, strict=True))


def beliefs(answers, canvas):
    """{masked position: {token: probability}}, by counting the answers that fit the canvas (one at least)."""
    fitting = [answer for answer in answers if fits(answer, canvas)]
    counts = {p: Counter(answer[p] for answer in fitting) for p, token in enumerate(canvas) if token is None}
    return {p: {t: Fraction(c, len(fitting)) for t, c in count.items()} for p, count in counts.items()}


def fill(canvas, commit):
    return tuple(commit.get(p, token) for p, token in enumerate(canvas))


def law(task, rule, prompt=None):
    """{(answer, steps): probability} of a rule.

    answer is None where no right answer fits any more; steps is nan where masks are left then, since what the
    oracle says of such a canvas is a convention.
    """
    answers = all_answers(task, range(task.prompt_length) if prompt is None else prompt)

    @cache
    def after(canvas):
        if not any(fits(answer, canvas) for answer in answers):
            return {(None, math.nan if None in canvas else 0): Fraction(1)}
        if None not in canvas:
            return {(canvas, 0): Fraction(1)}
        found = Counter()
        for share, commit in rule(answers, canvas):
            for (answer, steps), probability in after(fill(canvas, commit)).items():
                found[answer, steps + 1] += share * probability
        return found

    return after((None,) * task.n)


def score(outcomes):
    return sum(probability for (answer, _), probability in outcomes.items() if answer is not None)


def answer_law(outcomes):
    """{answer, or None for all wrong ones: probability}."""
    found = Counter()
    for (answer, _), probability in outcomes.items():
        found[answer] += float(probability)
    return found


def picks(known, positions):
    """Independent draws at the positions: (probability, {position: token})."""
    for drawn in product(*(known[position].items() for position in positions)):
        tokens, shares = zip(*drawn, strict=True)
        yield math.prod(shares), dict(zip(positions, tokens, strict=True))


def favourites(known, positions):
    """The greedy draw; the lower of equal ids."""
    yield Fraction(1), {p: min(known[p], key=lambda token: (-known[p][token], token)) for p in positions}


def left_to_right(k):
    def rule(answers, canvas):
        known = beliefs(answers, canvas)
        yield from picks(known, list(known)[:k])

    return rule


def random_order(k):
    def rule(answers, canvas):
        known = beliefs(answers, canvas)
        sets = list(combinations(known, min(k, len(known))))
        for positions in sets:
            for share, commit in picks(known, positions):
                yield share / len(sets), commit

    return rule


def nats(distribution):
    return -sum(float(p) * math.log(p) for p in distribution.values())


def surest(sure, passes, draw=picks):
    """The surest masks: the first, and the next ones up to the first with not passes(values, k).

    sure(distribution, drawn token) ranks; values are the ranks in order, k is 0 for the first.
    """

    def rule(answers, canvas):
        known = beliefs(answers, canvas)
        for share, drawn in draw(known, list(known)):
            rank = {position: sure(known[position], token) for position, token in drawn.items()}
            order = sorted(known, key=lambda p: -rank[p])  # stable: equal ranks go left to right
            values = [rank[position] for position in order]
            count = 1
            while count < len(values) and passes(values, count):
                count += 1
            yield share, {position: drawn[position] for position in order[:count]}

    return rule


def confidence(distribution, token):
    return distribution[token]


def even(k, **draw):
    return surest(confidence, lambda values, i: i < k, **draw)


def threshold(least, **draw):
    return surest(confidence, lambda values, k: values[k] >= least, **draw)


def factor(most, **draw):
    return surest(confidence, lambda values, k: (k + 2) * (1 - values[k]) <= most, **draw)


def entropy_threshold(most, **draw):
    return surest(lambda d, token: -nats(d), lambda values, k: -values[k] <= most, **draw)


def entropy_bound(most, **draw):
    return surest(lambda d, token: -nats(d), lambda values, k: -sum(values[:k]) <= most, **draw)


def agreed(draft, judgement):
    """{token: P(draft and judgement both draw it)} under the Gumbel coupling.

    As a race: a wins both where E_b / E_a exceeds w_b / w_a for all b and both weights w, E_b exponential.
    """
    return {
        a: 1 / (1 + sum(max(draft[b] / draft[a], judgement[b] / judgement[a]) for b in draft if b != a))
        for a in draft
        if judgement[a]
    }


def apd(weight):
    """Algorithm 1 of arXiv 2506.00413 with the exact joint as auxiliary, for R < 1."""

    def rule(answers, canvas):
        known = beliefs(answers, canvas)

        def extend(accepted):
            if len(accepted) == len(known):
                yield 1, accepted
                return
            position = list(known)[len(accepted)]
            draft = known[position]
            joint = beliefs(answers, fill(canvas, accepted))[position]
            judgement = {
                t: float(p) ** weight * float(joint.get(t, 0)) ** (1 - weight) for t, p in draft.items()
            }
            both = agreed(draft, judgement) if accepted else draft  # the first is taken unconditionally
            yield 1 - sum(both.values()), accepted
            for token, share in both.items():
                for more, commit in extend({**accepted, position: token}):
                    yield share * more, commit

        yield from ((share, commit) for share, commit in extend({}) if commit)

    return rule


# What the formulas say


def one_step_loss(task):
    """Conditional total correlation in bits: the marginals' entropies minus the answer's."""
    answers = all_answers(task, range(task.prompt_length))
    marginals = beliefs(answers, (None,) * task.n).values()
    return sum(map(nats, marginals)) / math.log(2) - math.log2(len(answers))


@pytest.mark.parametrize("n", range(3, 7))
def test_what_one_step_must_lose(n):
    assert one_step_loss(Shuffle(n)) == pytest.approx(n * math.log2(n) - math.log2(math.factorial(n)))
    assert one_step_loss(ReplaceRandom(n)) == pytest.approx((n - 1) * math.log2(n / (n - 1)))


def sizes(n, k):
    """(masks left, tokens committed) of every step."""
    return [(m, min(k, m)) for m in range(n, 0, -k)]


SCHEDULES = [(left_to_right, n, k) for n in (3, 4, 5) for k in range(1, n + 1)]
SCHEDULES += [(random_order, n, k) for n in (3, 4) for k in range(1, n + 1)]


@pytest.mark.parametrize(("schedule", "n", "k"), SCHEDULES)
def test_the_score_of_k_tokens_a_step(schedule, n, k):
    """The order does not matter."""
    shuffled = math.prod(Fraction(math.perm(m, taken), m**taken) for m, taken in sizes(n, k))
    assert score(law(Shuffle(n), schedule(k))) == shuffled
    # Not in parallelbench.md for 1 < k < n. The first step that puts the new name must do so once.
    none, once = Fraction(1), Fraction(0)
    for m, taken in sizes(n, k):
        once += none * Fraction(taken, m) * Fraction(m - 1, m) ** (taken - 1)
        none *= Fraction(m - 1, m) ** taken
    assert score(law(ReplaceRandom(n), schedule(k))) == once
    if k == n:
        assert shuffled == Fraction(math.factorial(n), n**n)
        assert once == Fraction(n - 1, n) ** (n - 1)
    if k == 2 and n % 2 == 0:
        assert shuffled == Fraction(math.prod(range(n - 1, 0, -2)), math.prod(range(n, 0, -2)))


@pytest.mark.parametrize("n", [3, 4])
def test_the_score_of_a_threshold_on_shuffle(n):
    for draw in (picks, favourites):
        assert score(law(Shuffle(n), threshold(Fraction(51, 100), draw=draw))) == 1
    # Not in parallelbench.md: from 1/m on, the last m names are taken at once.
    assert score(law(Shuffle(n), threshold(Fraction(1, 2)))) == Fraction(1, 2)
    assert score(law(Shuffle(n), threshold(Fraction(1, 3)))) == Fraction(2, 9)
    assert score(law(Shuffle(n), threshold(Fraction(1, 2), draw=favourites))) == 0


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_the_score_of_a_threshold_on_replace_random(n):
    edge, above = Fraction(n - 1, n), Fraction(n, n + 1)
    for draw in (picks, favourites):
        assert score(law(ReplaceRandom(n), threshold(above, draw=draw))) == 1
    assert score(law(ReplaceRandom(n), threshold(edge, draw=favourites))) == 0
    # parallelbench.md has 0 here too. But confidence is that of the drawn name: masks that drew the new one
    # are unsure and stay open, and the answer is wrong only where none drew it.
    assert score(law(ReplaceRandom(n), threshold(edge))) == 1 - edge**n


@pytest.mark.parametrize(("n", "k"), [(n, k) for n in (3, 4, 5, 6) for k in range(1, n + 1)])
def test_the_greedy_score_of_k_tokens_a_step(n, k):
    """Old names win in replace_random while three masks or more are left; of two, ids decide the ties.

    parallelbench.md has k dividing n. What counts is how many masks the last step finds: one is always right.
    """
    _, last = sizes(n, k)[-1]
    old = range(1, n + 1)
    for new, splits_the_last_two in ((0, False), (n - 0.5, True), (n + 1, False)):
        greedy = law(ReplaceRandom(n), even(k, draw=favourites), (*old, new))
        assert score(greedy) == (last == 1 or (last == 2 and splits_the_last_two))


@pytest.mark.parametrize("weight", [0, 0.5])
@pytest.mark.parametrize("n", [3, 4])
def test_apd_judged_by_the_joint_is_always_right(n, weight):
    for task in (Shuffle(n), ReplaceRandom(n)):
        assert score(law(task, apd(weight))) == pytest.approx(1)


def test_apd_judged_by_the_joint_does_not_draw_from_it():
    """Not even at R = 0: what is accepted favours what both models like, and what is rejected is drawn anew.

    parallelbench.md says that every accepted token is the one that the joint would have drawn, which is so;
    but the answers do not have the joint's law. In shuffle the names are alike, and it makes no difference.
    """
    shares = answer_law(law(ReplaceRandom(3), apd(0)))
    assert [shares[a] for a in all_answers(ReplaceRandom(3), range(4))] == pytest.approx(
        [1 / 3, 5 / 18, 7 / 18]
    )
    for n in (3, 4):
        orders = answer_law(law(Shuffle(n), apd(0)))
        assert list(orders.values()) == pytest.approx([1 / math.factorial(n)] * math.factorial(n))


# What the oracles say


def documents(task, count, seed=0):
    """Prompts of different names, (count, prompt_length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, NAMES, generator=generator).argsort(1)[:, : task.prompt_length]


def said(logits):
    """{token: probability} of the possible ones."""
    shares = logits.softmax(-1).tolist()
    return {token: share for token, share in enumerate(shares) if logits[token] > NEVER}


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("task", TASKS)
def test_the_oracles_say_what_counting_the_answers_says(task, n):
    task = task(n)
    prompt = documents(task, 1)[0].tolist()
    answers = all_answers(task, prompt)
    masks = [dict.fromkeys(some) for k in range(1, n + 1) for some in combinations(range(n), k)]
    canvases = [fill(answer, some) for answer in answers for some in masks]
    rows = torch.tensor([[*prompt, *(NAMES if t is None else t for t in canvas)] for canvas in canvases])
    marginals = Oracle(task, NAMES)(rows).logits[:, len(prompt) :]
    for canvas, logits in zip(canvases, marginals, strict=True):
        for position, distribution in beliefs(answers, canvas).items():
            assert said(logits[position]) == pytest.approx(distribution)
    joint = Oracle(task, NAMES, causal=True)(torch.tensor([[*prompt, *answer] for answer in answers])).logits
    for answer, logits in zip(answers, joint, strict=True):
        for position in range(n):
            canvas = (*answer[:position], *[None] * (n - position))
            assert said(logits[len(prompt) - 1 + position]) == pytest.approx(
                beliefs(answers, canvas)[position]
            )


def test_what_the_oracles_say_of_canvases_that_fit_no_answer():
    def last(task, *ids):
        return said(Oracle(task, NAMES)(torch.tensor([ids])).logits[0, -1])

    assert last(Shuffle(3), 4, 5, 6, 5, 5, NAMES) == pytest.approx({4: 0.5, 6: 0.5})
    assert last(ReplaceRandom(3), 4, 5, 6, 7, 7, 7, NAMES) == pytest.approx({6: 1})
    assert last(ReplaceRandom(3), 4, 5, 6, 7, 8, 8, NAMES) == pytest.approx({7: 1})
    with pytest.raises(ValueError, match="prompts of 3 and 3 more"):
        last(Shuffle(3), 4, 5, 6, NAMES, NAMES, NAMES, NAMES)


@pytest.mark.parametrize("task", TASKS)
def test_scores_accept_the_right_answers_and_no_other(task):
    task = task(3)
    prompt = documents(task, 1)[0].tolist()
    accepted = [a for a in product(range(NAMES), repeat=3) if task.score(prompt, list(a))]
    assert sorted(accepted) == sorted(all_answers(task, prompt))
    assert not task.score(prompt, accepted[0][:2])


# What the decoders score


def decode(lab, decoder, task, prompts):
    models = lab.models_for(decoder, Oracle(task, NAMES), Oracle(task, NAMES, causal=True))
    generations = []
    for begin in range(0, len(prompts), BATCH):
        batch = list(prompts[begin : begin + BATCH])
        seeds = range(begin, begin + len(batch))
        generations += decoder.decode(models, batch, task.n, lab.Stop(), seeds)
    return generations


# Settings, their rule and its limit. A bound lies between any two values that n = 3 and 4 lead to.
ADAPTIVE = [
    ({"quota": "threshold", "threshold": 0.9}, threshold, Fraction(9, 10)),
    ({"quota": "threshold", "threshold": 3 / 4 - HAIR}, threshold, Fraction(3, 4)),  # replace_random's edge
    ({"quota": "threshold", "threshold": 1 / 2 - HAIR}, threshold, Fraction(1, 2)),
    ({"quota": "factor", "factor": 0.9}, factor, 0.9),
    ({"quota": "factor", "factor": 1.6}, factor, 1.6),
    ({"quota": "factor", "factor": 2.2}, factor, 2.2),
    ({"quota": "threshold", "rank": "entropy", "threshold": 0.53}, entropy_threshold, 0.53),
    ({"quota": "threshold", "rank": "entropy", "threshold": 0.7}, entropy_threshold, 0.7),
    ({"quota": "entropy_bound", "rank": "entropy", "bound": 0.65}, entropy_bound, 0.65),
    ({"quota": "entropy_bound", "rank": "entropy", "bound": 1.2}, entropy_bound, 1.2),
    ({"steps": 2}, even, 2),
]
WEIGHTS = [
    (APD(mixture_weight=0, temperature=1.0), apd(0)),
    (APD(mixture_weight=0.5, temperature=1.0), apd(0.5)),
    (APD(mixture_weight=1, temperature=1.0), left_to_right(6)),  # the whole draft
]
SAMPLED = [
    (Autoregressive(temperature=1.0), left_to_right(1)),
    *((LeftRight(tokens_per_step=k, temperature=1.0), left_to_right(k)) for k in (1, 2, 4)),
    *((Unmasking(rank="random", steps=4 // k, temperature=1.0), random_order(k)) for k in (1, 2)),
    *((Unmasking(temperature=1.0, **settings), rule(limit)) for settings, rule, limit in ADAPTIVE),
    *WEIGHTS,
]
CASES = [(task(4), *case) for case in SAMPLED for task in TASKS]
# Six positions tell the weights apart.
CASES += [(task, *case) for case in WEIGHTS for task in (Shuffle(3), ReplaceRandom(6))]


@pytest.mark.parametrize(("task", "decoder", "rule"), CASES)
def test_sampled_answers_follow_the_law(lab, task, decoder, rule):
    """The share of right answers, which of them come out how often, and the mean number of steps."""
    outcomes, prompts = law(task, rule), documents(task, DOCUMENTS)
    generations = decode(lab, decoder, task, prompts)
    found = Counter()
    for prompt, generation in zip(prompts.tolist(), generations, strict=True):
        right = task.score(prompt, generation.ids)
        found[tuple(map(prompt.index, generation.ids)) if right else None] += 1

    exact = min(1.0, float(score(outcomes)))
    low, high = binom.interval(0.999, DOCUMENTS, exact)  # all of them where exact is 1
    assert low <= DOCUMENTS - found[None] <= high

    answers = answer_law(outcomes)
    observed = [found[answer] for answer in answers]
    assert lab.law_pvalue(observed, list(answers.values())) > 1e-3

    steps = Counter()
    for (_, count), probability in outcomes.items():
        steps[count] += float(probability)
    mean = sum(count * p for count, p in steps.items())
    deviation = math.sqrt(max(0, sum(p * (count - mean) ** 2 for count, p in steps.items())))
    if not math.isnan(mean):
        average = sum(len(generation.steps) for generation in generations) / DOCUMENTS
        assert average == pytest.approx(mean, abs=3.29 * deviation / math.sqrt(DOCUMENTS) + 1e-9)


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("settings", "rule", "limit"), ADAPTIVE)
def test_greedy_answers_are_the_enumerated_ones(lab, task, n, settings, rule, limit):
    task = task(n)
    prompts = documents(task, 30)
    generations = decode(lab, Unmasking(**settings), task, prompts)
    for prompt, generation in zip(prompts.tolist(), generations, strict=True):
        ((answer, steps),) = law(task, rule(limit, draw=favourites), tuple(prompt))
        assert task.score(prompt, generation.ids) == (answer is not None)
        if answer is not None:
            assert (tuple(generation.ids), len(generation.steps)) == (answer, steps)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("plain", "cached"),
    [
        (LeftRight(tokens_per_step=2), {"kv_window": 1, "max_lookahead": 2}),
        (APD(mixture_weight=0.5), {"kv_window": 1, "chunk": 1}),
        (Unmasking(block_length=2), {"cache": "prefix"}),
        (Unmasking(block_length=2), {"cache": "dual"}),
    ],
)
def test_a_cache_hides_nothing_from_an_oracle(lab, task, plain, cached):
    task = task(4)
    plain = replace(plain, temperature=1.0)
    prompts = documents(task, 50)
    full, kept = (decode(lab, decoder, task, prompts) for decoder in (plain, replace(plain, **cached)))
    assert [generation.ids for generation in full] == [generation.ids for generation in kept]


# What an ideal model scores on the tasks as they are asked (report/bounds.py): the canvas has ends, and the
# line's own order is no shuffle

SEVERAL = [f"line_{rule}" for rule in ("shuffle", "insert_random", "remove_random", "replace_random")]
RULES = [
    *(LeftRight(tokens_per_step=k, temperature=1.0) for k in (1, 2, 4)),
    *(Unmasking(rank="random", steps=steps, temperature=1.0) for steps in (4, 3)),
    *(Unmasking(steps=steps, temperature=1.0) for steps in (8, 4, 3)),
    Unmasking(steps=3, block_length=4, temperature=1.0),
    Unmasking(rank="margin", steps=4, temperature=1.0),
    *(Unmasking(quota="threshold", threshold=tau, temperature=1.0) for tau in (0.9, 0.45, 0.28)),
    Unmasking(quota="threshold", threshold=0.3, block_length=2, temperature=1.0),
    *(Unmasking(quota="factor", factor=f, temperature=1.0) for f in (0.7, 1.9)),
    Unmasking(rank="entropy", quota="threshold", threshold=0.8, temperature=1.0),
    *(Unmasking(rank="entropy", quota="entropy_bound", bound=b, temperature=1.0) for b in (0.3, 1.2)),
    Unmasking(rank="entropy", quota="entropy_sum", bound=1.3, temperature=1.0),
]


QUICK = {(decoder, SEVERAL[i % len(SEVERAL)]) for i, decoder in enumerate(RULES)}  # each rule, on one task


@pytest.mark.parametrize(
    ("decoder", "task"),
    [
        pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow, id=f"{task}-{decoder}")
        for decoder in RULES
        for task in SEVERAL
        for pair in [(decoder, task)]
    ],
)
def test_decoders_score_the_bound_on_an_ideal_model(lab, task, decoder):
    n = 4
    end = n + 1
    answers = tuple(tuple(end if t == bounds.END else t for t in answer) for answer in answers_of(task, n))
    law = Listed(answers)
    models = lab.models_for(decoder, Oracle(law, end + 1), None)
    prompts = [torch.tensor([0])] * DOCUMENTS
    found = decoder.decode(models, prompts, law.n, lab.Stop(frozenset({end})), list(range(DOCUMENTS)))
    texts = [answer[: answer.index(end)] for answer in answers]
    right = sum(tuple(answer.ids[: answer.useful]) in texts for answer in found)
    low, high = binom.interval(0.999, DOCUMENTS, min(1.0, bound(decoder, task, [n])))
    assert low <= right <= high


# An ideal model of the tasks' own questions


@pytest.fixture(scope="module")
def exact():
    """The ideal model, in a small shape."""
    tiny = {"d_model": 16, "n_layers": 1, "n_heads": 1, "pad_token_id": 0, "mask_token_id": 3}
    model = ideal.IdealLM(ideal.IdealConfig(vocab_size=1957, **tiny))
    model.config.name_or_path = str(ROOT / "checkpoints" / "tiny_llada")
    return model


def prompt_of(model, question):
    """The ids of a question in the chat template."""
    return text_ids(model.tokenizer, prompt_text(model.tokenizer, question))


def asked(task, split="test"):
    return next(iter(problems.held_out(task, split))).question


@pytest.mark.parametrize("task", [*parallelbench.LINES, *parallelbench.PUZZLES])
def test_an_ideal_model_counts_the_right_answers_that_fit_what_a_query_sees(exact, task):
    question = asked(task)
    answers = parallelbench.answers_to(question)
    end, length = exact.tokenizer.eos_token_id, parallelbench.canvas(task)
    wanted = [[*map(exact._id, answer), *[end] * (length - len(answer))] for answer in answers]
    prompt, first = prompt_of(exact, question), wanted[-1][0]
    ids = torch.tensor([[*prompt, first, *[3] * (length - 1)]])
    begin = len(prompt)
    # Of two columns: the first of the canvas, which does not see itself, and the second one.
    sees = torch.ones(1, 1, ids.size(1), ids.size(1), dtype=torch.bool)
    sees[..., begin, begin] = False
    found = exact(ids, attention_mask=sees).logits[0, begin : begin + 2].softmax(-1)
    for law, canvas, position in zip(found, ((None, None), (first, None)), (0, 1), strict=True):
        fitting = [answer for answer in wanted if canvas[0] in (None, answer[0])]
        for token, count in Counter(answer[position] for answer in fitting).items():
            assert law[token].item() == pytest.approx(count / len(fitting), abs=2 * ideal.TIE)
        assert law.sum().item() == pytest.approx(1)


def test_an_ideal_model_takes_all_answers_where_none_fits_and_only_questions_it_knows(exact):
    question = asked("line_replace_random")
    prompt = prompt_of(exact, question)
    alone, broken = (
        exact(torch.tensor([[*prompt, token, *[3] * 7]])).logits[0, -2].softmax(-1)
        for token in (3, exact.tokenizer.encode("<|im_end|>")[0])
    )
    assert torch.allclose(alone, broken, atol=2 * ideal.TIE)
    with pytest.raises(ValueError, match="no question of ParallelBench's tasks: .*How many"):
        exact(torch.tensor([[*prompt_of(exact, "How many?"), 3]]))
    with pytest.raises(ValueError, match="model=ideal answers no gsm_symbolic: set task=parallelbench"):
        Evaluation.of("model=ideal", "task=gsm_symbolic", "decoder=threshold")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decoders_on_an_ideal_model_score_their_bounds(exact, temperature):
    documents = [p for p in problems.held_out("line_shuffle", "test") if int(p.template) < 5][:150]
    decoder = LeftRight(tokens_per_step=2, temperature=temperature, top_p=1.0)
    prompts = [torch.tensor(prompt_of(exact, each.question)) for each in documents]
    stop = Stop(frozenset({exact.tokenizer.eos_token_id}))
    answers = decoder.decode(Models({"denoiser": exact}), prompts, 8, stop, range(len(prompts)))
    right = sum(
        exact.tokenizer.decode(answer.ids[: answer.useful]).split() in parallelbench.Right(each.question)
        for answer, each in zip(answers, documents, strict=True)
    )
    share = bound(decoder, "line_shuffle", [int(each.template) for each in documents])
    assert 0.2 < share < 0.9 and 1e-3 < binom.cdf(right, len(documents), share) < 1 - 1e-3
