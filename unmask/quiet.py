"""Import it before other libraries, and their progress bars, advice and network calls stay out of the output.

But for downloads: 15 GB of weights show how far they are.

For programs (commands and scripts), which own their process; the package changes nothing of its host.
"""

import logging
import os
import warnings

for _name in ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "TQDM_DISABLE"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its import sets its logger's level anew
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch.profiler
warnings.filterwarnings("ignore", category=FutureWarning)
for _name in ("lm_eval", "lm-eval", "datasets", "httpx"):
    logging.getLogger(_name).setLevel(logging.ERROR)
