"""Parallel decoding of diffusion language models, measured.

    import unmask
    from unmask.decoding.apd import APD

    answers = unmask.generate(dream, prompts, APD(mixture_weight=0.7), auxiliary=qwen, tokenizer=tokenizer)

Import it first: it keeps other libraries' progress bars, advice and network calls out of the output.
"""

import logging
import os
import warnings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch.profiler
warnings.filterwarnings("ignore", category=FutureWarning)
for _name in ("lm_eval", "lm-eval", "datasets", "httpx", "huggingface_hub"):
    logging.getLogger(_name).setLevel(logging.ERROR)

__all__ = ["generate"]


def __getattr__(name: str):
    # Importing torch takes a second, and reading records needs none of it.
    if name == "generate":
        from unmask.api import generate

        return generate
    raise AttributeError(f"module 'unmask' has no attribute {name!r}")
