"""Import first: keeps the libraries' progress bars, advice and network calls out of the benchmark's
output."""

import logging
import os
import warnings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch.profiler
warnings.filterwarnings("ignore", category=FutureWarning)
for name in ("lm_eval", "lm-eval", "datasets", "httpx", "huggingface_hub"):
    logging.getLogger(name).setLevel(logging.ERROR)
