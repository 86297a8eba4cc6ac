"""A model as lm-eval sees one: prompts, ids, and the log-likelihoods of texts (likelihood.py)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from math import isnan

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from unmask.configuration.schema import EvalConfig
from unmask.decoding.finite import damage
from unmask.evaluation.likelihood import Denoiser, Likelihood, causal
from unmask.evaluation.prompts import render, text_ids
from unmask.models.loading import Source
from unmask.models.resources import check_device, set_for_cpu
from unmask.records.identity import prompt_hash

ROLLING = "loglikelihood_rolling"
Pair = tuple[list[int], list[int]]  # ids of a context, and of what follows it


class NoLikelihoods(NotImplementedError, ValueError):
    """A task wants what a model has not. A ValueError too: another task or model has to be chosen."""


class TextLM(TemplateLM):
    """A model and its tokenizer; no weights are loaded before something is computed.

    batch_size, seed: as configured; may be set until something is computed.
    """

    def __init__(self, source: Source, cfg: EvalConfig, device: torch.device, dtype: torch.dtype):
        super().__init__()
        self.source, self.cfg, self.tokenizer = source, cfg, source.tokenizer
        self._where = device, dtype
        self.context = source.text_config.max_position_embeddings  # positions of prompt and answer together
        self.mask_id = getattr(source.config, "mask_token_id", None)  # no prompt may hold it
        self.batch_size, self.seed = cfg.batch_size, cfg.seed
        self.chat_options = dict(cfg.model.chat_options)  # for the tokenizer's chat template

    @cached_property
    def network(self) -> torch.nn.Module:
        """The model alone, loaded when something has to be computed, once."""
        set_for_cpu(check_device(self._where[0]))
        torch.set_num_threads(self.cfg.threads)
        return self.source.load(*self._where)

    def release(self) -> None:
        """Forget the model, so that memory serves the next evaluation."""
        self.__dict__.pop("network", None)

    tokenizer_name = property(lambda self: self.tokenizer.name_or_path.replace("/", "__"))
    eot_token_id = property(lambda self: self.tokenizer.eos_token_id)
    max_length = property(lambda self: self.context)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context: the start token, or else the end-of-text token."""
        start = self.tokenizer.bos_token_id
        return self.eot_token_id if start is None else start

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt: bool = True) -> str:
        # lm-eval asks for no generation prompt where the task begins the assistant's turn itself (humaneval).
        if add_generation_prompt:
            return render(self.tokenizer, chat_history, self.chat_options)
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=False,
            continue_final_message=True,
            **self.chat_options,
        )

    def tok_encode(self, string: str, **kwargs) -> list[int]:
        return text_ids(self.tokenizer, string)

    def generate_until(self, requests, disable_tqdm: bool = False):
        raise NotImplementedError("answers come from a decoder")

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(found.value, bool(found.greedy)) for found in self.scored(requests, disable_tqdm)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return [found.value for found in self.scored(requests, disable_tqdm)]

    def _loglikelihood_tokens(self, requests, **kwargs) -> list[tuple[float, bool]]:
        found = self.likelihoods([(context, text) for _, context, text in requests])
        return [(each.value, bool(each.greedy)) for each in found]

    # Likelihoods

    def check_likelihoods(self, greedy: bool = False) -> None:
        """ValueError where this model has no likelihoods; greedy: or where a task asks whether a text is the
        greedy one, and that is not checked. Loads nothing."""
        if self.source.kind not in ("causal", "diffusion"):
            raise NoLikelihoods(
                f"model {self.cfg.model.name} is {self.source.kind}: likelihoods are those of causal and of "
                "masked diffusion models; choose a generate_until task, for example gsm8k"
            )
        if greedy and self.source.kind == "diffusion" and not self.cfg.check_greedy:
            raise NoLikelihoods(
                "the task asks whether a continuation is the greedy one, which for a diffusion model costs a "
                "forward a token: set check_greedy=true"
            )

    def scored(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[Likelihood]:
        """The log-likelihoods of loglikelihood or loglikelihood_rolling requests, in their order."""
        pieces = [self.pieces(request) for request in requests]
        rolling = any(request.request_type == ROLLING for request in requests)
        return joined(pieces, self.likelihoods([pair for pairs in pieces for pair in pairs], rolling))

    def pieces(self, request: Instance) -> list[Pair]:
        """What is scored for a request: one pair, or the windows of a long text as lm-eval cuts them.

        A context that is too long loses its left end, as with lm-eval's own models. ValueError for a
        continuation that does not fit or is empty, and for the mask's id.
        """
        where = f"document {request.doc_id} of {request.task_name}"
        room = self.context + (self.source.kind == "causal")  # the last token is not fed to a causal model
        if request.request_type == ROLLING:
            windows = get_rolling_token_windows(
                self.tok_encode(*request.args), self.prefix_token_id, room - 1, 1
            )
            pairs = list(map(make_disjoint_window, windows))
        else:
            context, text = self._pair(*request.args)
            if not text or len(text) >= room:
                raise ValueError(
                    f"{where}: a continuation of {len(text)} tokens; from 1 to {room - 1} fit the model's "
                    f"context of {self.context} tokens"
                )
            pairs = [(context[-(room - len(text)) :], text)]
        if self.mask_id is not None and any(self.mask_id in [*context, *text] for context, text in pairs):
            raise ValueError(f"{where}: holds the mask's id {self.mask_id}; remove the mask's text from it")
        return pairs

    def _pair(self, context: str, continuation: str) -> Pair:
        """As `TemplateLM.loglikelihood` encodes it."""
        if context:
            return self._encode_pair(context, continuation)
        text, prefix = self.tok_encode(continuation), self.prefix_token_id
        return ([prefix], text) if text[:1] != [prefix] else (text[:1], text[1:])

    def likelihoods(
        self,
        pairs: Sequence[Pair],
        rolling: bool = False,
        advance: Callable[[int, Likelihood], None] = lambda index, found: None,
    ) -> list[Likelihood]:
        """The log-likelihood of every pair, in order; `advance` hears of each as it is found.

        rolling: of windows, of which nobody asks whether they are greedy.
        """
        found = []
        for batch in self._batches_of(pairs, rolling):
            for each in batch:
                if isnan(each.value):
                    raise ValueError(
                        f"a log-likelihood of {self.cfg.model.name} is NaN in {damage(self._where[1])}"
                    )
                advance(len(found), each)
                found.append(each)
        return found

    def _batches_of(self, pairs: Sequence[Pair], rolling: bool) -> Iterator[list[Likelihood]]:
        if self.source.kind == "causal":
            size = self.batch_size if isinstance(self.batch_size, int) else 1
            for start in range(0, len(pairs), size):
                yield causal(self.network, *zip(*pairs[start : start + size], strict=True))
            return
        for context, text in pairs:
            scoring = replace(self._denoiser, check_greedy=self.cfg.check_greedy and not rolling)
            yield [scoring.likelihood(context, text, self.seed_of(context, text))]

    @cached_property
    def _denoiser(self) -> Denoiser:
        cfg, layout = self.cfg, self.source.layout
        blocks = cfg.model.attention == "block_causal"
        length = layout.block_length(self.source.config) or cfg.model.block_length
        return Denoiser(
            self.network,
            self.mask_id,
            cfg.mc_samples,
            cfg.mc_batch,
            cfg.check_greedy,
            length if blocks else None,
            layout.blocks_from,
        )

    def seed_of(self, context: Sequence[int], text: Sequence[int]) -> int:
        """The seed of a pair's masks, by its ids: whatever else is asked, it stays."""
        return self.seed * 1_000_003 + int(prompt_hash([*context, -1, *text]), 16)


def joined(pieces: Sequence[Sequence[Pair]], found: Iterable[Likelihood]) -> list[Likelihood]:
    """The log-likelihood of each text, from those of all their pieces, one after the other."""
    rest, totals = iter(found), []
    for pairs in pieces:
        total = next(rest) if pairs else Likelihood(0.0, 0.0, None, 0, 0, 0, 0)
        for _ in pairs[1:]:
            total += next(rest)
        totals.append(total)
    return totals
