"""Figures and tables from records:  python report.py figure=fig3

    python report.py                                        # every figure that results/ has runs of
    python report.py figure=tab1 results=results/reference  # one figure of another collection
    python report.py figure=fig3 limit=50 seed=1            # the runs of eval.py with the same settings
    python report.py compare RUN_A RUN_B                    # two runs against each other, by document
    python report.py compare decoder=leftright "decoder=apd decoder.mixture_weight=0.5"
    python report.py race [RUN ...] [document=N]            # their answers to one document, as a GIF
    python report.py check FOLDER                           # results that were made elsewhere: what stands
    python report.py page=true                              # all finished runs in a page for the browser

A figure is its sweep: the settings are those of `eval.py figure=NAME` with the same overrides, and exactly
their runs are read (where the command names no threads, of any number); what is missing is named. For every
figure: PNG, SVG and the CSV behind it, for tables Markdown and LaTeX, in <results>/figures/ (of
results/reference: in figures/). Runs no model. Published points stand in panels of their own, with their
hardware, and are never joined with ours.

`compare A B` prints and writes nothing. Each side is a run's folder (inside results= its name is enough), or
in quotes the settings of eval.py that made it.

`race` draws <pictures>/race.gif, a picture a forward. Without runs: those that the page begins with.

`check FOLDER` computes again what can be known without a model: documents, prompts, tokens, scores, turns.
It says line by line what stands, and ends with exit code 1 unless everything does. Runs no model.
"""

from unmask.configuration.command_line import command


@command("report", __doc__)
def main(given: list[str]) -> None:
    from unmask.report.command import compare, race, report

    if given[:1] == ["compare"]:
        compare(given[1:3], given[3:])
    elif given[:1] == ["race"]:
        race(given[1:])
    elif given[:1] == ["check"]:
        from unmask.report.checking import check  # torch is behind it

        if len(given) < 2:
            raise ValueError("check takes a folder of runs, or an archive")
        check(given[1], given[2:])
    else:
        report(given)


if __name__ == "__main__":
    main()
