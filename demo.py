"""Watch answers appear, a colour per step:  python demo.py     # a race: one token a step, APD, D2F

    python demo.py decoder=apd compare=true                    # a race against one token a step
    python demo.py 'compare="model=tiny_qwen_large decoder=autoregressive"'   # or against any other settings
    python demo.py decoder.mixture_weight=0.9 document=7
    python demo.py decoder=confidence decoder.steps=16         # not from left to right
    python demo.py 'prompt="Tom has 5 apples. ..."'
    python demo.py model=dream auxiliary=qwen_0.5b             # wants a GPU

The demo of a document is the answer that eval.py records for it (below float32: at batch_size=1). Masks
within the canvas are faint dots. Where stdout is no terminal the finished answers are printed, plain.
`save=FILE.png` draws them (figure 1).
"""

from unmask.configuration.command_line import command


@command("demo", __doc__)
def main(given: list[str]) -> None:
    from unmask.demo.command import demo

    demo(given)


if __name__ == "__main__":
    main()
