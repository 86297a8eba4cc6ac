"""lm-eval's command line with this project's decoders:  python harness.py --model unmask --tasks gsm8k ...

    python harness.py --model unmask \\
        --model_args pretrained=checkpoints/tiny_dream,decoder=apd,auxiliary=checkpoints/tiny_qwen \\
        --tasks gsm8k --num_fewshot 5 --apply_chat_template --limit 20

All flags are lm-eval's; docs/lm_eval.md has the model_args. (eval.py evaluates with a record instead.)
"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

from lm_eval.__main__ import cli_evaluate

from unmask.configuration.command_line import refusals
from unmask.evaluation.lm import UnmaskLM

__all__ = ["UnmaskLM"]


def main() -> None:
    """lm-eval's command, which knows `--model unmask` by now: importing `UnmaskLM` has registered it."""
    with refusals(interrupted="interrupted; nothing is kept, but for what --use_cache has stored"):
        cli_evaluate()


if __name__ == "__main__":
    main()
