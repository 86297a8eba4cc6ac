"""What eval.py does: one setting, or all settings of a sweep."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

from omegaconf import DictConfig

from unmask.configuration.composition import composed
from unmask.configuration.settings import check_effects
from unmask.configuration.sweeps import figures_named, is_list, key_of, of_arms, settings
from unmask.evaluation.cards import decode_on_cards, taken_out
from unmask.evaluation.choices import Choices
from unmask.evaluation.evaluation import Evaluation
from unmask.evaluation.prompts import shown
from unmask.evaluation.several import answer, distinct
from unmask.output import print_json
from unmask.processes import Processes, started
from unmask.records import Run
from unmask.records.naming import labels
from unmask.report.command import show_beside
from unmask.report.definition import Beside
from unmask.report.lookup import runs_of
from unmask.report.tables import likelihood_table, print_table, summary_table


def evaluate(given: Sequence[str], single: bool = False) -> None:
    """The evaluation that the words of a command name, or all of a sweep. single: the words are of one
    setting of a sweep. Under torchrun or accelerate launch every process is a shard; with gpus= there is one
    for each card."""
    given, gpus = taken_out(given, "gpus")
    if gpus and (single or started() > 1):
        raise ValueError("gpus=: starts its own processes; remove it, or the launcher (-m, torchrun)")
    if gpus:
        decode_on_cards(given, gpus)
    if started() > 1:
        together(given, single)
    else:
        evaluate_here(given, single)


def together(given: Sequence[str], single: bool) -> None:
    """Each process answers its shard on its own device; then the first one joins and scores, and prints."""
    if any(key_of(word) == "shard" for word in given):
        raise ValueError("shard=: under torchrun every process is a shard; remove it")
    rest, device = taken_out(given, "device")
    processes = Processes.join(device or "auto", on_host=True)
    try:
        shard = f"shard={processes.rank + 1}/{processes.world_size}"
        with redirect_stdout(StringIO()):
            evaluate_here([*rest, f"device={processes.device}", shard], single)
        processes.gather(None)
        if processes.is_main:
            evaluate_here(given, single)
    finally:
        processes.leave()


def evaluate_here(given: Sequence[str], single: bool = False) -> None:
    """`evaluate`, in one process."""
    if not single:
        check_effects("eval", given)
    several = not single and (figures_named(given) or any(is_list(word) or of_arms(word) for word in given))
    configs = settings(given) if several else [composed("eval", given)]
    if any(cfg.show is not None for cfg in configs):
        show(configs)
    elif several:
        sweep(configs, given)
    elif configs[0].task.yaml:
        by_likelihoods([Choices(configs[0])])
    else:
        one(Evaluation(configs[0]))


def show(configs: Sequence[DictConfig]) -> None:
    """Print the first prompts of every setting with their ids, equal ones once."""
    if any(cfg.task.yaml for cfg in configs):
        raise ValueError("show=prompt is for tasks that are answered, not for those scored by likelihoods")
    evaluations = map(Evaluation, configs)
    prompts = (shown(each.requests, each.main.tokenizer) for each in evaluations)
    print("\n\n".join(dict.fromkeys(prompt for first in prompts for prompt in first)))


def by_likelihoods(evaluations: Sequence[Choices]) -> None:
    """Compute what the records lack, one evaluation after the other; print."""
    for evaluation in evaluations:
        with evaluation.run:
            for note in evaluation.run.notes:
                print(note, file=sys.stderr)
            if not evaluation.missing:
                texts = f"all {len(evaluation.requests)} texts"
                print(f"{texts} are in {evaluation.folder}: nothing to compute")
            evaluation.score()
            evaluation.lm.release()
    found = dict(zip(_names(evaluations), evaluations, strict=True))
    print_table(likelihood_table({name: each.summary for name, each in found.items()}))
    headlines = {name: each.headline(each.summary) for name, each in found.items()}
    print_json(headlines if len(found) > 1 else evaluations[0].headline(evaluations[0].summary))


def _names(evaluations: Sequence[Choices] | Sequence[Evaluation]) -> list[str]:
    """A name for each setting of a sweep, no two alike."""
    short = labels([each.identity for each in evaluations])
    where = [f"{each.cfg.model.name}, {each.cfg.task.name}" for each in evaluations]
    return [f"{name} on {model}" for name, model in zip(short, where, strict=True)]


def one(evaluation: Evaluation) -> None:
    """Answer what the record lacks, score, print."""
    with evaluation.run:
        if evaluation.cfg.shard:
            print_json(evaluation.decode())
            return
        if joined := evaluation.gather():
            print(f"joined {joined} documents of other shards")
        for note in evaluation.remarks + evaluation.run.notes:
            print(note, file=sys.stderr)
        if not evaluation.missing:
            print(f"all {len(evaluation.requests)} documents are in {evaluation.folder}: nothing to decode")
        summary = evaluation.score()
    print_table(summary_table({evaluation.label: summary}))
    print_json(evaluation.headline(summary))


def sweep(configs: Sequence[DictConfig], given: Sequence[str]) -> None:
    """All settings: in turns where they say so, else one after the other.

    given: the command that they are of, whose figures may have a published table to print.
    """
    if len(configs) > 1 and (folder := configs[0].run_folder):
        raise ValueError(
            f"run_folder={folder} is for one run, not for {len(configs)} settings: results=FOLDER holds the "
            "runs of a sweep"
        )
    if any(cfg.task.yaml for cfg in configs):
        if not all(cfg.task.yaml for cfg in configs):
            raise ValueError(
                "a sweep is of tasks that are answered or of tasks scored by likelihoods, not both"
            )
        by_likelihoods(distinct(map(Choices, configs)))
        return
    evaluations = distinct(map(Evaluation, configs))
    for remark in dict.fromkeys(remark for evaluation in evaluations for remark in evaluation.remarks):
        print(remark, file=sys.stderr)
    for hours in dict.fromkeys(filter(None, map(duration_of, configs))):
        print(hours, file=sys.stderr)
    answer(evaluations, f"{len(evaluations)} settings")
    if shard := evaluations[0].cfg.shard:
        print_json({"shard": shard, "settings": len(evaluations)})
        return
    found = dict(zip(_names(evaluations), evaluations, strict=True))
    summaries = {name: evaluation.summary for name, evaluation in found.items()}
    scored = {name: evaluation.scored for name, evaluation in found.items()}
    print_table(summary_table(summaries, scored, evaluations[0].device.type))
    if any(cfg.draw and cfg.draw.get("beside") for cfg in configs):
        beside(given, [evaluation.run for evaluation in evaluations])
    print_json({name: evaluation.headline(evaluation.summary) for name, evaluation in found.items()})


def duration_of(cfg: DictConfig) -> str:
    """The hours that a published figure takes, in words; empty where nothing says."""
    return Beside(**(cfg.draw or {}).get("beside", {})).duration


def beside(given: Sequence[str], runs: list[Run]) -> None:
    """Print the published tables of the command's figures, with these runs beside them."""
    words = [word for word in given if key_of(word) != "figure"]
    for name in figures_named(given):
        found, definition = runs_of(name, words, runs)
        if definition.beside:
            show_beside(definition, found)
