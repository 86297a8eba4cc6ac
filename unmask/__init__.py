"""Parallel decoding of diffusion language models, measured.

import unmask
from unmask.decoding.apd import APD

answers = unmask.generate(dream, prompts, APD(mixture_weight=0.7), auxiliary=qwen, tokenizer=tokenizer)
"""

__all__ = ["generate"]


def __getattr__(name: str):
    # Importing torch takes a second, and reading records needs none of it.
    if name == "generate":
        from unmask.api import generate

        return generate
    raise AttributeError(f"module 'unmask' has no attribute {name!r}")
