"""Evaluate one decoder on one model and one task:  python eval.py model=tiny_dream decoder=apd

    python eval.py                                                    # APD on the tiny family
    python eval.py decoder=leftright decoder.tokens_per_step=4        # four tokens a step, no second opinion
    python eval.py decoder=apd decoder.mixture_weight=0.5 limit=50    # R = 0.5, 50 documents
    python eval.py decoder.mixture_weight=0.1,0.5,0.9                 # a sweep of your own
    python eval.py model=tiny_qwen_large decoder=autoregressive       # the autoregressive baseline
    python eval.py model=tiny_qwen_large drafter=tiny_dflash decoder=dflash
    python eval.py task=gsm8k show=prompt                             # its first prompts and ids, no weights
    python eval.py shard=1/4                                          # a quarter of the documents
    python eval.py gpus=all task=gsm8k model=dream                    # a share on each card, then joined
    python eval.py figure=fig3                                        # all settings of a figure
    python eval.py figure=fig2,fig3                                   # of two, all in turns
    python eval.py -m figure=fig3 hydra/launcher=joblib               # a process for each setting
    python eval.py model=dream auxiliary=qwen_0.5b task=gsm8k         # the paper's setting; wants a GPU

Results go to results/<run id>/, a document at a time: stopped at any moment, the same command finishes what
is missing; again, it recomputes nothing. Into a pipe it prints one JSON object.
"""

from unmask.configuration.command_line import command


@command("eval", __doc__, sweeps=True)
def main(given: list[str], single: bool = False) -> None:
    from unmask.evaluation.command import evaluate

    evaluate(given, single)


if __name__ == "__main__":
    main()
