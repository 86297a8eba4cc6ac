"""check_decoder: what every decoder promises, for authors of decoders.

from unmask.testing.check import check_decoder

def test_my_decoder():
    check_decoder(MyDecoder())
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

import torch

from unmask.decoding import Decoder, Generation, Models, Stop
from unmask.testing.small_models import (
    EOS,
    MASK,
    VOCABULARY,
    Hook,
    small_drafter,
    small_dream,
    small_llada,
    small_qwen,
)

PROMPTS = [
    torch.tensor(ids) for ids in ([1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13, 0], [3, 1, 4, 1], [2, 2])
]
SEEDS = [11, 12, 13, 14, 15]
TEMPERATURE = 1.5
CHANGED = {"temperature": TEMPERATURE, "top_p": 0.05, "top_k": 1}  # setting -> a value that changes answers


def check_decoder(decoder: Decoder, max_new_tokens: int = 12) -> None:
    """Run a decoder on small random models and check what every decoder promises.

    It is run as it is and, where it samples, at temperature 1.5; a denoiser is a Dream (a token is predicted
    from the column before it) and a LLaDA (from its own). Takes a few seconds.

    Raises:
        AssertionError: a sentence that says which promise is broken.
        ValueError: the settings do not fit `max_new_tokens`.
    """
    decoder.check(max_new_tokens)
    for models in _casts(decoder):
        _check_settings(decoder, models, max_new_tokens)
        _check_lossless(decoder, models, max_new_tokens)
        for variant in _variants(decoder):
            check = _Check(variant, models, max_new_tokens)
            check.seeds()
            check.batches()
            check.counts()
            check.commits()
            check.stops()
            check.masks()


def _casts(decoder: Decoder) -> Iterator[Models]:
    """Models for the decoder's roles, with each kind of denoiser."""
    for denoiser in (small_dream, small_llada):
        try:
            decoder.check_layout(denoiser().layout)
        except ValueError:  # it is for other models
            continue
        kinds = {"diffusion": denoiser, "causal": small_qwen, "drafter": small_drafter}
        yield Models({role: kinds[kind]() for role, kind in decoder.roles.items()})
        if "diffusion" not in decoder.roles.values():
            return


def _variants(decoder: Decoder) -> list[Decoder]:
    if "temperature" in getattr(decoder, "sampling", ()):
        return [decoder, replace(decoder, temperature=TEMPERATURE)]
    return [decoder]


def _require(promise: bool, sentence: str) -> None:
    if not promise:
        raise AssertionError(sentence)


def _essence(generation: Generation) -> dict:
    """All but the clock."""
    return {**vars(generation), "seconds": None}


class _Check:
    """The promises that hold at any temperature. Each method checks one."""

    def __init__(self, decoder: Decoder, models: Models, max_new_tokens: int):
        self.decoder, self.models, self.max_new_tokens = decoder, models, max_new_tokens
        # Each prompt's answer alone, and (positions, ids) of its steps.
        self.steps: list[list] = [[] for _ in PROMPTS]
        self.alone = [
            self.decode([i], observer=lambda row, *step, steps=steps: steps.append(step))[0]
            for i, steps in enumerate(self.steps)
        ]

    def decode(self, chosen: Sequence[int], stop: Sequence[int] = (EOS,), observer=None) -> list[Generation]:
        """The answers to these prompts, in one batch."""
        return self.decoder.decode(
            self.models,
            [PROMPTS[i] for i in chosen],
            self.max_new_tokens,
            Stop(frozenset(stop)),
            [SEEDS[i] for i in chosen],
            observer,
        )

    def require(self, promise: bool, sentence: str) -> None:
        _require(promise, f"{self.decoder}: {sentence}")

    def seeds(self) -> None:
        again = self.decode([0])[0]
        self.require(
            _essence(again) == _essence(self.alone[0]),
            f"the same prompt and seed gave other answers: {self.alone[0].ids}, then {again.ids}",
        )

    def batches(self) -> None:
        for chosen in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1], [1, 4]):  # the last two are of one length
            for i, together in zip(chosen, self.decode(chosen), strict=True):
                for name, value in _essence(self.alone[i]).items():
                    self.require(
                        getattr(together, name) == value or name == "seconds",
                        f"{name} of prompt {i} depend on its batch: {value} alone, "
                        f"{getattr(together, name)} together with prompts {chosen}",
                    )

    def counts(self) -> None:
        for chosen in ([0], [0, 1, 2, 3, 4]):
            hooks = {role: Hook(self.models[role]) for role in self.decoder.roles}
            generations = self.decode(chosen)
            for role, hook in hooks.items():
                hook.handle.remove()
                forwards, positions = (
                    sum(getattr(g, name)[role] for g in generations) for name in ("forwards", "positions")
                )
                self.require(
                    (forwards, positions) == (hook.rows, hook.positions),
                    f"{forwards} forwards and {positions} positions of the {role} are claimed for prompts "
                    f"{chosen}; a hook on the model saw {hook.rows} and {hook.positions}. Every forward goes "
                    "through Board.forward",
                )

    def commits(self) -> None:
        first = next(iter(self.decoder.roles))
        for alone, steps in zip(self.alone, self.steps, strict=True):
            self.require(
                len(steps) == alone.forwards[first],
                f"{alone.forwards[first]} forwards of the {first}, and {len(steps)} steps: a step is one "
                "forward of the first role",
            )
            written, lost = {}, []
            for step, (positions, ids) in enumerate(steps):
                for p, token in zip(positions, ids, strict=True):
                    if p in written:
                        lost.append([p, *reversed(written.pop(p)), step])
                    if token is not None:
                        written[p] = step, token
            answer = [p for p, *_ in lost if p < alone.useful]
            self.require(
                lost == alone.lost if self.decoder.revises else not answer,
                f"its steps took back {lost}, and its record says {alone.lost}: a decoder that writes a "
                "position again says revises = True",
            )
            commits = [written[p][0] if p in written else -1 for p in range(max(written, default=-1) + 1)]
            self.require(
                alone.commits == commits and alone.ids == [written[p][1] for p in sorted(written)],
                f"ids {alone.ids} and commits {alone.commits} are not what the steps committed: {steps}",
            )
            self.require(
                len(commits) <= self.max_new_tokens and sum(alone.steps) == len(alone.ids),
                f"{len(alone.ids)} ids, {sum(alone.steps)} of them in steps, on a canvas of "
                f"{self.max_new_tokens}",
            )

    def stops(self) -> None:
        (whole,) = self.decode([0], stop=())
        self.require(
            whole.finish == "length" and whole.useful == len(whole.ids) == self.max_new_tokens,
            f"without a stop, {whole.useful} of {self.max_new_tokens} positions are filled from the left",
        )
        for token in {whole.ids[0], whole.ids[len(whole.ids) // 2], whole.ids[-1]}:
            canvas, ended, fills = {}, [], []

            def observe(row, positions, ids, token=token, canvas=canvas, ended=ended, fills=fills):
                canvas.update(zip(positions, ids, strict=True))
                settled = next(p for p in range(self.max_new_tokens + 1) if canvas.get(p) is None)
                if row.revisable is not None:
                    settled = min(settled, row.revisable)
                ended.append(token in [canvas[p] for p in range(settled)])
                fills.append(row.fills or row.until > 0)

            (answer,) = self.decode([0], stop=[token], observer=observe)
            if answer.finish == "length":  # with a stop it took another way
                self.require(token not in answer.ids, f"it ran over the stop {token} in {answer.ids}")
                continue
            self.require(
                answer.ids.index(token) == answer.useful,
                f"useful is {answer.useful}, and the first stop {token} in {answer.ids} is elsewhere",
            )
            self.require(
                any(fills) or not any(ended[:-1]),
                f"it went on after the stop {token} and all left of it had been settled",
            )

    def masks(self) -> None:
        """With models that like nothing better than the mask."""
        like = torch.zeros(VOCABULARY)
        like[MASK] = 50
        if self.models.mask_id is None:
            return
        handle = self.models.main.lm_head.register_forward_hook(lambda module, args, logits: logits + like)
        try:
            (answer,) = self.decode([0], stop=())
        finally:
            handle.remove()
        self.require(MASK not in answer.ids, f"the mask {MASK} came out: {answer.ids}")


def _check_settings(decoder: Decoder, models: Models, max_new_tokens: int) -> None:
    """A sampling setting changes answers where it is declared, and is refused where it is not."""
    declared, named = getattr(decoder, "sampling", ()), {field.name for field in fields(decoder)}
    for name in [name for name in CHANGED if name in named]:
        if name not in declared:
            _require(
                _refuses(decoder, name, CHANGED[name]),
                f"{decoder}: accepts {name}={CHANGED[name]} and does not declare it: name it in `sampling`, "
                "or call super().__post_init__()",
            )
            continue
        warm = {"temperature": TEMPERATURE} if "temperature" in declared else {}
        neutral = (
            {"temperature": 0} if name == "temperature" else warm | {name: None if name == "top_k" else 1}
        )
        without, changed = replace(decoder, **neutral), replace(decoder, **(warm | {name: CHANGED[name]}))
        answers = [
            [g.ids for g in one.decode(models, PROMPTS, max_new_tokens, Stop(), SEEDS)]
            for one in (without, changed)
        ]
        _require(
            answers[0] != answers[1],
            f"{decoder}: declares {name} in `sampling`, and {name}={CHANGED[name]} changes no answer",
        )


def _refuses(decoder: Decoder, name: str, value: float) -> bool:
    try:
        replace(decoder, **{name: value})
    except ValueError:
        return True
    return False


def _check_lossless(decoder: Decoder, models: Models, max_new_tokens: int) -> None:
    """A lossless decoder's greedy ids are those of its baseline."""
    if not decoder.lossless:
        return
    greedy = replace(decoder, temperature=0) if hasattr(decoder, "temperature") else decoder
    stop, baseline = Stop(frozenset({EOS})), greedy.baseline
    shared = Models({role: models[role] for role in baseline.roles})
    ours = greedy.decode(models, PROMPTS, max_new_tokens, stop, SEEDS)
    theirs = baseline.decode(shared, PROMPTS, max_new_tokens, stop, SEEDS)
    for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        end = other.useful + (other.finish == "stop")
        _require(
            one.ids[:end] == other.ids[:end] and one.useful == other.useful,
            f"{decoder}: is declared lossless, and its answer to prompt {i} is {one.ids[:end]} where its "
            f"baseline's is {other.ids[:end]}",
        )
