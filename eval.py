"""Evaluate one decoder on one model and one task:  python eval.py model=tiny_dream decoder=apd
task=gsm_symbolic

    python eval.py                                                    # APD on the tiny family
    python eval.py decoder=leftright decoder.tokens_per_step=4        # four tokens a step, no second opinion
    python eval.py decoder=apd decoder.mixture_weight=0.5 limit=50    # R = 0.5, 50 documents
    python eval.py model=tiny_qwen_large decoder=autoregressive       # the autoregressive baseline
    python eval.py shard=1/4                                          # a quarter of the documents, for one of
    four machines python eval.py -m +figure=fig3                                    # all settings of a
    figure; scripts/fig3.sh draws it too python eval.py model=dream auxiliary=qwen_0.5b task=gsm8k         #
    the paper's setting; wants a GPU

Results go to results/<run id>/, a document at a time: stopped at any moment, the same command finishes what
is missing; again, it recomputes nothing. The last line on stdout is one JSON object. `python eval.py --help`
lists every choice and setting.
"""

import unmask  # noqa: F401, I001  (first: it quiets the libraries below)

import json
import sys

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from rich.console import Console

from unmask.cli import door
from unmask.evaluation import Evaluation
from unmask.plots.tables import summary_table


@door("eval")
def main(cfg) -> None:
    if cfg.arm is not None:
        if cfg.arm not in cfg.arms:
            raise ValueError(
                f"arm={cfg.arm}: choose one of {', '.join(cfg.arms) or 'none, since there are no arms here'}"
            )
        cfg = compose("eval", [*HydraConfig.get().overrides.task, *cfg.arms[cfg.arm].split()])
    evaluation = Evaluation(cfg)
    with evaluation.run:
        if cfg.shard:
            print(json.dumps(evaluation.decode()))
            return
        if joined := evaluation.gather():
            print(f"joined {joined} documents of other shards")
        for note in evaluation.run.notes:
            print(note, file=sys.stderr)
        if not evaluation.missing:
            print(f"all {len(evaluation.requests)} documents are in {evaluation.folder}: nothing to decode")
        summary = evaluation.score()
    Console().print(summary_table({evaluation.label: summary}))
    print(json.dumps(evaluation.headline(summary)))


if __name__ == "__main__":
    main()
