"""What every lm-eval model over a decoder has: prompts, seeds, where answers end, and no likelihoods."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from lm_eval.api.model import TemplateLM

from unmask.decoding import Generation, Models, Stop
from unmask.records.documents import TASK_STRIDE
from unmask.setup import Setup


class NoLikelihoods(NotImplementedError, ValueError):
    """A task wants what no decoder computes. A ValueError too: another task has to be chosen."""


class GenerativeLM(TemplateLM):
    """A decoder and its models, as lm-eval sees a language model: text in, text out.

    tasks: names of the tasks, in the order that numbers their documents.
    batch_size, seed: as configured; may be set until something is generated.
    """

    def __init__(self, setup: Setup, tasks: Sequence[str] = ()):
        super().__init__()
        cfg, main = setup.cfg, setup.main
        self.decoder, self._load, self.tokenizer = setup.decoder, setup.load, main.tokenizer
        self.context = main.config.max_position_embeddings  # positions of prompt and answer together
        self.tasks, self.batch_size, self.seed = list(tasks), cfg.batch_size, cfg.seed
        self.chat_options = dict(cfg.model.chat_options)  # for the tokenizer's chat template

    @cached_property
    def models(self) -> Models:
        """Loaded when something has to be decoded, once."""
        return self._load()

    def release(self) -> None:
        """Forget the models, so that memory serves the next evaluation."""
        self.__dict__.pop("models", None)

    tokenizer_name = property(lambda self: self.tokenizer.name_or_path.replace("/", "__"))
    eot_token_id = property(lambda self: self.tokenizer.eos_token_id)
    max_length = property(lambda self: self.context)

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt: bool = True) -> str:
        # lm-eval asks for no generation prompt where the task begins the assistant's turn itself (humaneval).
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self.chat_options,
        )

    def tok_encode(self, string: str, **kwargs) -> list[int]:
        # The chat template has written all special tokens that the model expects (a second BOS changes
        # scores).
        return self.tokenizer.encode(string, add_special_tokens=False)

    def text(self, generation: Generation) -> str:
        """What is scored: the useful tokens, without special ones."""
        return self.tokenizer.decode(generation.ids[: generation.useful], skip_special_tokens=True)

    def loglikelihood(self, requests, **kwargs):
        raise NoLikelihoods(
            "decoders generate and compute no likelihoods (a diffusion model has only bounds). "
            "Choose a generate_until task, for example gsm8k"
        )

    _loglikelihood_tokens = loglikelihood_rolling = loglikelihood

    def number(self, task: str, document: int) -> int:
        """A document's number, unique over the tasks of a group."""
        return self.tasks.index(task) * TASK_STRIDE + document

    def noise_seed(self, document: int, repeat: int) -> int:
        """The seed of an answer's noise, by the number of its document: whatever else is asked, it stays."""
        return self.seed * 1_000_003 + document * 101 + repeat


def text_stop(ids: Iterable[int], strings: Sequence[str], tokenizer) -> Stop:
    """Stop at any of the token ids, and before the first of the strings, found in the decoded text."""
    strings = [s for s in strings if s]
    stop = Stop(frozenset(ids))
    if not strings:
        return stop
    # A token is a byte or more: a string that ends in new tokens begins no further left of them than this.
    # (And a few more: the first tokens of a piece may decode otherwise, as half a character.)
    reach = max(len(s.encode()) for s in strings) + 8

    def match(tokens: Sequence[int], known: int = 0) -> int | None:
        recent = tokenizer.decode(tokens[max(0, known - reach) :])  # the clock runs: not all of it every step
        if not any(s in recent for s in strings):
            return None
        text = tokenizer.decode(tokens)
        cut = min((text.index(s) for s in strings if s in text), default=None)
        if cut is None:
            return None
        # The most tokens whose text ends before the stop string: a string inside a token cuts before that
        # token.
        low, high = 0, len(tokens)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(tokenizer.decode(tokens[:middle])) <= cut else (low, middle - 1)
        return low

    return replace(stop, match=match)
