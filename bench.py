"""How fast decoders are, as ratios measured side by side:  python bench.py bench=laziness

    python bench.py                                   # APD against one token a step, on the tiny family
    python bench.py bench=overhead                    # what APD spends outside the models
    python bench.py bench=batches decoder=confidence  # what batches gain
    python bench.py bench=growth                      # what a step costs as the canvas grows, as curves
    python bench.py bench=laptop                      # 0.5 and 0.6 B, acceptance given: 10 minutes or more
    python bench.py bench=none '+arms={greedy: "decoder.temperature=0", sampled: ""}'

Arms answer the same prompts in turn (A B A B ...) after a warm-up; speeds and ratios are of the whole race,
with 95% bootstrap intervals over blocks of prompts, paired. Shares, memory, arithmetic and the ceiling (the
same forwards replayed alone) come from passes of their own. Into a pipe it prints one JSON object.
"""

from unmask.configuration.command_line import command


@command("bench", __doc__)
def main(given: list[str]) -> None:
    from unmask.benchmark.command import bench

    bench(given)


if __name__ == "__main__":
    main()
