"""A decoder and its models, as a checked configuration names them: what everything that runs one needs."""

import torch

from unmask.configuration.schema import EvalConfig
from unmask.configuration.settings import build_decoder, identity_of, models_by_role, remarks
from unmask.decoding import Models
from unmask.models.layouts import LAYOUTS
from unmask.models.loading import Source, check_block_length, check_block_origin, check_same_vocabulary
from unmask.models.resources import (
    check_device,
    check_memory,
    choose_device,
    choose_dtype,
    rows_that_fit,
    set_for_cpu,
)
from unmask.models.settings import RandomModel
from unmask.testing import ideal

LAYOUTS[ideal.LAYOUT.name] = ideal.LAYOUT  # it knows tasks, of which models/ knows nothing


class Setup:
    """The decoder of a configuration (`settings.typed`) and, by role, its models, none of them loaded.

    decoder; sources: models by role, the first role's first; device, dtype; remarks: what is unusual, and
    allowed. Building one reads configurations and tokenizers, no weights. ValueError names the key that is
    wrong.
    """

    def __init__(self, cfg: EvalConfig):
        self.cfg = cfg
        self.decoder = build_decoder(cfg.decoder)
        settings = models_by_role(cfg, self.decoder)
        if any(isinstance(model, RandomModel) for model in settings.values()):
            raise ValueError(
                "random models have no tokenizer and no answers, only costs: python bench.py model=random"
            )
        self.remarks = remarks(cfg, self.decoder)
        self.device = choose_device(cfg.device)
        self.dtype = choose_dtype(cfg.dtype, self.device)
        self.sources = {role: Source(model) for role, model in settings.items()}
        check_same_vocabulary(self.sources)
        for role, source in self.sources.items():
            if cfg.compile and getattr(source.config, "num_experts", None):
                raise ValueError(
                    f"compile=true: {role}={source.settings.name} is a mixture of experts, and which ones it "
                    "runs depends on the data, so that no graph holds it: remove compile=true"
                )
        if self.decoder.attention == "block_causal":
            check_block_origin(self.main, getattr(self.decoder, "block_origins", ("prompt",)))
        if self.main.layout:
            self.decoder.check_layout(self.main.layout)
        for source in self.sources.values():
            check_block_length(source, getattr(self.decoder, "block_length", None))

    @property
    def main(self) -> Source:
        """The model of the first role, whose tokenizer and context are the prompts'."""
        return next(iter(self.sources.values()))

    @property
    def identity(self) -> dict:
        """All that the configuration tells of what answers are and cost, with the weights (`identity_of`)."""
        return identity_of(self.cfg) | {
            "models": {role: source.identity for role, source in self.sources.items()}
        }

    def check_memory(self, *others: "Setup") -> None:
        """ValueError where the models do not fit in memory, together with those of `others`."""
        every = [source for setup in (self, *others) for source in setup.sources.values()]
        distinct = {(source.folder, source.settings.adapter): source for source in every}
        check_memory(list(distinct.values()), self.device, self.dtype)

    def rows_that_fit(self, width: int, max_new_tokens: int) -> int:
        """The largest batch of rows of `width` tokens, `max_new_tokens` of them new, that fits in memory."""
        check_device(self.device)
        return rows_that_fit(list(self.sources.values()), width, max_new_tokens, self.device, self.dtype)

    def load(self) -> Models:
        """The models, ready to run; ValueError where this machine does not have the device."""
        set_for_cpu(check_device(self.device))
        torch.set_num_threads(self.cfg.threads)
        compiled, found = self.cfg.compile, {}
        for role, source in self.sources.items():
            # A model of two roles is two modules: each counts its forwards.
            twins = [self.sources[other].folder for other in found].count(source.folder)
            module = ("compiled", twins) if compiled else twins or None
            found[role] = source.load(self.device, self.dtype, module=module)
        models = Models(found)
        return models.compiled() if compiled else models
