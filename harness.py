"""lm-eval's command line with this project's decoders:  python harness.py --model unmask --tasks gsm8k ...

    python harness.py --model unmask \\
        --model_args pretrained=checkpoints/tiny_dream,decoder=apd,auxiliary=checkpoints/tiny_qwen \\
        --tasks gsm8k --num_fewshot 5 --apply_chat_template --limit 20

All flags are lm-eval's; docs/lm_eval.md has the model_args. Answers and likelihoods are kept as they are
found: stopped at any moment, the same command goes on. (eval.py evaluates with a record instead.)
"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

from lm_eval import evaluator
from lm_eval.__main__ import cli_evaluate

from unmask.configuration.command_line import refusals
from unmask.evaluation.lm import UnmaskLM, checks_tasks

__all__ = ["UnmaskLM"]

evaluator.evaluate = checks_tasks(evaluator.evaluate)  # lm-eval itself asks a model nothing before it runs


def main() -> None:
    """lm-eval's command, which knows `--model unmask` by now: importing `UnmaskLM` has registered it."""
    with refusals():
        cli_evaluate()


if __name__ == "__main__":
    main()
