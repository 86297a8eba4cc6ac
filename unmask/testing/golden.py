"""Replay what the published decoders did, step by step:  python -m unmask.testing.golden tests/golden/traces

A folder holds JSON files of traces: a tiny random model, a prompt, settings, and the positions and ids that
the published code committed in every forward (tests/golden/traces/README.md). Each trace is decoded again
here. The table says how many give the same ids, steps and forwards; below it stands the first difference of
each file. Exit code 1 if a method that is implemented here differs on a trace that it must match: one whose
`case` is null, or one of the published rules that this project follows (REQUIRED).
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

import dream  # noqa: F401  (registers the published layouts with transformers)
import llada  # noqa: F401
from unmask.configuration.command_line import refusals
from unmask.decoding import Decoder, Models, Stop
from unmask.decoding.transformers_generate import TransformersDiffusion
from unmask.models.drafter import DFlashDraftModel
from unmask.models.layouts import LAYOUTS, layout_of
from unmask.models.resources import check_device, choose_device
from unmask.progress import progress_bar
from unmask.testing.golden_freedave import same_events
from unmask.testing.golden_settings import (
    MASK,
    WAITING,
    RecordedDrafts,
    canvas_of,
    decoder_of,
    stop_of,
)
from unmask.testing.logits import CLOSE, check_logits, expected_in

REQUIRED = {
    None,
    "first_token",
    "dream_schedule",
    "factor_last_candidate",
}  # cases in which the published rule is this project's too


def ids_of(trace: dict) -> list[int]:
    """What was committed, from the left: LLaDA2 returns less of it, SDAR masks too."""
    return [token for token in trace.get("canvas_ids", trace["ids"]) if token != MASK]


def positions_fed(trace: dict, lookback: int) -> int | None:
    """Over all forwards; None where the trace does not tell.

    D2F keeps the logits of the last cached position, to predict the next token. Here that position is fed
    again (`lookback`), and counted.
    """
    if trace["method"] == "joint_threshold":  # replayed with a cache, which the published loop has not
        return None
    if trace["method"] == "lopa":  # where nothing is left to look ahead at, the anchor is fed twice there
        return sum(sum(fed[len(mine) > 1 and mine == [[], []] :]) for fed, mine in _rounds(trace))
    if trace["method"] == "freedave":
        twice = trace["settings"]["threshold"]  # see `replay`
        return None if twice else sum(rows * columns for rows, columns in trace["fed"])
    fed = [(entry if isinstance(entry, int) else entry[1]) for entry in trace.get("fed", [])]
    if not fed:
        return None
    pads = trace.get("left_padding", 0)  # not counted here; fed in every forward from the first column on
    pads = pads and pads * sum(first == 0 for first, *_ in trace["fed"])
    again = sum(first > 0 for first, *_ in trace["fed"]) if trace["method"] == "d2f" else 0
    return sum(fed) - pads + lookback * again


def _rounds(trace: dict) -> list[tuple[list[int], list]]:
    """Of every round of LoPA, the columns fed of each branch, and what the branches look ahead at."""
    return list(zip(trace["fed"], trace["branches"], strict=True))


@cache
def model_in(folder: Path, scale: float) -> torch.nn.Module:
    """The model of a folder in float32, its head's weight multiplied by `scale`."""
    raw = json.loads((folder / "config.json").read_text())
    layout = layout_of(raw, folder.name if folder.name in LAYOUTS else None)
    if layout is None or layout.name in ("Dream", "llada"):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    else:  # whose config.json does not tell the mask id
        model = layout.model.from_pretrained(folder, dtype=torch.float32, mask_token_id=MASK).eval()
    head = model.lm_head.weight.detach() * scale  # of its own: tied embeddings stay as they are
    model.lm_head.weight = torch.nn.Parameter(head, requires_grad=False)
    return model


def model_folder(folder: Path, trace: dict) -> Path:
    """Where a trace's model lies, near the folder of the traces."""
    near = (folder, folder.parent, folder.parent / "models")
    return next(p / trace["model"] for p in near if (p / trace["model"]).is_dir())


@dataclass
class Replay:
    """One trace, decoded again: what agrees, and where it first differs."""

    trace: dict
    ids: bool
    steps: bool
    forwards: bool
    positions: bool | None  # positions fed; None where the trace does not tell
    difference: str | None

    @property
    def fails(self) -> bool:
        return self.difference is not None and self.trace["case"] in REQUIRED


def replay(trace: dict, decoder: Decoder, folder: Path, device: str = "cpu") -> Replay:
    """Decode a trace's prompt and compare ids, the positions and ids of every step, the number of forwards,
    and the positions fed to them."""
    found = model_folder(folder, trace)
    roles = dict.fromkeys(decoder.roles)
    first, *others = roles
    roles[first] = model_in(found, trace["lm_head_scale"]).to(device)
    if trace["method"] == "joint_threshold":  # block-causal from column 0, on a model of full attention
        roles[first] = copy(roles[first])
        roles[first].layout = replace(roles[first].layout, blocks_from="column_0")
    for role in others:
        roles[role] = model_in(folder / trace[role], 1.0).to(device)
    torch.manual_seed(trace["settings"].get("seed", 0))
    steps = []
    (generation,) = decoder.decode(
        Models(roles),
        [torch.tensor(trace["prompt"])],
        canvas_of(trace),
        stop_of(trace),
        [0],
        lambda row, *step: steps.append(written(*step)),
    )
    remasked = trace.get("remask", [[]] * len(trace["steps"]))
    theirs = [
        written([*positions, *back], [*ids, *[None] * len(back)])
        for (positions, ids), back in zip(trace["steps"], remasked, strict=True)
    ]
    if given := trace["settings"].get("constraints"):  # here they are counted with the first step
        theirs[0] = written(*zip(*theirs[0], *zip(*given, strict=True), strict=True))
    cut = trace["method"] == "fast_dllm_v2" and generation.finish == "stop"  # behind the end token
    ids = generation.ids[: generation.useful + 1 if cut else None] == ids_of(trace)
    forwards = generation.forwards[first] == trace["forwards"]
    if trace["method"] == "freedave" and same_events(steps, theirs):
        # Its steps are events, not forwards. What each forward verified is compared in their stead, but under
        # a threshold: there the published code verifies drafts twice that fill the block.
        verified = trace["settings"]["threshold"] or trace.get("verified") == getattr(
            decoder, "verified", None
        )
        steps = theirs if verified else steps
    theirs_fed = positions_fed(trace, getattr(roles[first], "lookback", 0))
    positions = None if theirs_fed is None else generation.positions[first] == theirs_fed
    difference = None
    if steps != theirs:
        at = next((i for i, pair in enumerate(zip(steps, theirs, strict=False)) if pair[0] != pair[1]), None)
        if at is None:
            difference = f"{len(steps)} steps, published {len(theirs)}"
        else:
            difference = f"step {at}: {dict(steps[at])}, published {dict(theirs[at])}"
    elif not (ids and forwards):
        difference = f"{generation.forwards[first]} forwards, published {trace['forwards']}; ids equal: {ids}"
    elif positions is False:
        difference = f"{generation.positions[first]} positions fed, published {theirs_fed}"
    return Replay(trace, ids, steps == theirs, forwards, positions, difference)


def written(positions: Sequence[int], ids: Sequence[int | None]) -> list[tuple[int, int]]:
    """What a step wrote, by position; a position that it masked again has the mask's id, and comes last."""
    pairs = zip(positions, [MASK if token is None else token for token in ids], strict=True)
    return sorted(pairs, key=lambda pair: (pair[0], pair[1] == MASK))


def replay_drafts(trace: dict, decoder: RecordedDrafts, folder: Path, device: str = "cpu") -> Replay:
    """Decode a trace of DFlash and compare ids, the blocks that the target judged and how much of each it
    took (its steps), and the forwards of both models."""
    s = trace["settings"]
    target = model_in(folder / trace["model"], 1.0).to(device)
    drafter = (
        DFlashDraftModel.from_pretrained(folder / trace["drafter"], dtype=torch.float32).eval().to(device)
    )
    limit, taken = s["max_new_tokens"], []
    (generation,) = decoder.decode(
        Models({"target": target, "drafter": drafter}),
        [torch.tensor(trace["prompt"])],
        limit + 1 + s["block_size"],  # a published block may reach beyond the end; here it would shrink
        Stop(frozenset(s["stop_ids"] or ()), lambda ids, known: limit if len(ids) > limit else None),
        [0],
        lambda row, positions, ids: taken.append(len(positions)),
    )
    end = limit if generation.useful == limit else generation.useful + 1  # with the stop id
    ids = generation.ids[:end] == trace["ids"]
    steps = decoder.blocks == trace["blocks"] and taken[1:] == trace["acceptance_lengths"]
    ours = [generation.forwards[role] for role in ("target", "drafter")]
    theirs = [trace["target_forwards"], trace["drafter_forwards"]]
    difference = None
    if not (ids and steps and ours == theirs):
        pairs = zip(decoder.blocks, trace["blocks"], strict=False)
        at = next((i for i, (mine, his) in enumerate(pairs) if mine != his), None)
        difference = f"forwards {ours}, published {theirs}; ids equal: {ids}; lengths {taken[1:]}, published "
        difference += f"{trace['acceptance_lengths']}; first other block: {at}"
    return Replay(trace, ids, steps, ours == theirs, None, difference)


def few(traces: list[dict], most: int | None) -> list[dict]:
    """Of each method the first `most` traces that have no case, sampled ones first; None: all."""
    if most is None:
        return traces
    methods = {}
    for trace in sorted(traces, key=lambda trace: not trace["settings"].get("temperature")):
        methods.setdefault(trace["method"], []).extend([trace] if trace["case"] is None else [])
    return [trace for some in methods.values() for trace in some[:most]]


def replay_canvases(trace: dict, folder: Path, device: str = "cpu") -> Replay:
    """Decode a trace of DiffusionGemma with the draws that it recorded, and compare ids, the canvases that
    its decoder was fed (its steps), and forwards and positions, of its encoder too: the prompt, and all
    canvases but the last."""
    settings, recorded = trace["settings"], trace["denoising"]
    folder = model_folder(folder, trace)
    model = LAYOUTS["diffusion_gemma"].model.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    canvases, noise, fed = 0, [], []
    for before, step in zip([{"next": None}, *recorded], recorded, strict=False):
        if step["fed"] != before["next"]:
            canvases += 1
            noise.append(step["fed"])
        # What is drawn where a token was accepted is not used. Another id there shows if one is not accepted.
        others = {p: (step["drawn"][p] + 1) % model.config.text_config.vocab_size for p in step["accepted"]}
        noise.append([others.get(p, token) for p, token in enumerate(step["next"])])
    noises, draws = iter(noise), iter([[i] for i in step["drawn"]] for step in recorded)
    handle = model.model.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["decoder_input_ids"][0].tolist()), with_kwargs=True
    )
    with (
        patch.object(torch, "randint", lambda *_, **__: torch.tensor([next(noises)], device=device)),
        patch.object(torch, "multinomial", lambda *_, **__: torch.tensor(next(draws), device=device)),
    ):
        decoder = TransformersDiffusion(**{f.name: settings[f.name] for f in fields(TransformersDiffusion)})
        (generation,) = decoder.decode(
            Models({"denoiser": model}),
            [torch.tensor(trace["prompt"])],
            limit := settings["max_new_tokens"],
            Stop(frozenset({settings["eos_token_id"]})),
            [0],
        )
    handle.remove()
    end = generation.useful + (generation.finish == "stop")  # behind it published ids are pads
    ids = generation.ids[:end] == trace["ids"][:limit][:end]
    steps = fed == [step["fed"] for step in recorded]
    forwards = generation.forwards["denoiser"] == trace["forwards"] + canvases
    columns = len(trace["prompt"]) + model.config.canvas_length * (trace["forwards"] + canvases - 1)
    positions = generation.positions["denoiser"] == columns
    difference = None
    if not (ids and steps and forwards and positions):
        at = next((i for i, (a, b) in enumerate(zip(fed, recorded, strict=False)) if a != b["fed"]), None)
        difference = f"ids equal: {ids}; first other canvas: {at}; forwards {generation.forwards}"
    return Replay(trace, ids, steps, forwards, positions, difference)


def replay_folder(
    folder: Path,
    device: str | torch.device = "cpu",
    advance: Callable[[], None] = lambda: None,
    most: int | None = None,
) -> dict[tuple[str, str], list[Replay | None]]:
    """Every trace of every file in a folder, by (file, method); None for one that is not implemented.

    most: of each file and method only so many, sampled ones first, of the cases that must agree; None: all.
    ValueError where the folder holds no traces.
    """
    found: dict[tuple[str, str], list[Replay | None]] = {}
    for path in sorted(Path(folder).glob("*.json")):
        for trace in few(json.loads(path.read_text()).get("traces", ()), most):
            if trace["method"] == "diffusion_gemma":
                done = replay_canvases(trace, path.parent, device)
            else:
                decoder = decoder_of(trace, path.parent)
                play = replay_drafts if trace["method"] == "dflash" else replay
                done = decoder and play(trace, decoder, path.parent, device)
            found.setdefault((path.stem, trace["method"]), []).append(done)
            advance()
    if not found:
        raise ValueError(f"{folder}: holds no traces (JSON files as in tests/golden/traces)")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m unmask.testing.golden", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="of traces, for example tests/golden/traces")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (float32 on both)")
    parser.add_argument("--most", type=int, help="of each file and method only so many traces")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the models are tiny
    with refusals(), progress_bar() as bar:
        bar_task = bar.add_task("replaying", total=None)
        check_device(choose_device(options.device))
        found = replay_folder(options.folder, options.device, lambda: bar.advance(bar_task), options.most)
    table = Table(box=box.SIMPLE_HEAD)
    compared = ("ids", "steps", "forwards", "positions")
    for name in ("file", "method", "traces", *(f"same {what}" for what in compared), "not implemented"):
        table.add_column(
            name, justify="left" if name in ("file", "method") else "right", no_wrap=name == "file"
        )
    failed = False
    for (file, method), replays in found.items():
        done = [r for r in replays if r is not None]
        failed |= any(r.fails for r in done)
        told = [[r for r in done if getattr(r, what) is not None] for what in compared]
        same = [
            str(sum(getattr(r, what) for r in some)) if some else "-"
            for what, some in zip(compared, told, strict=True)
        ]
        table.add_row(file, method, str(len(replays)), *same, str(len(replays) - len(done)))
    console = Console(width=125)
    console.print(table)
    waiting = sorted({method for (_, method), replays in found.items() if None in replays} & WAITING.keys())
    for method in waiting:
        console.print(f"{method}: not implemented: {WAITING[method]}", highlight=False)
    models = [
        path for near in (options.folder, options.folder.parent) for path in expected_in(near / "models")
    ]
    for path in models:
        furthest, of = check_logits(path)
        failed |= not furthest <= CLOSE
        console.print(f"{path.name}: logits within {furthest:.1e} of the published ({of})", highlight=False)
    for (file, method), replays in found.items():
        differing = [(i, r) for i, r in enumerate(replays) if r is not None and r.difference]
        differing.sort(key=lambda pair: not pair[1].fails)
        if differing:
            i, r = differing[0]
            case = f" (case {r.trace['case']}, allowed)" if not r.fails else ""
            console.print(f"{file}, {method}, trace {i}{case}: {r.difference}", markup=False, highlight=False)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
