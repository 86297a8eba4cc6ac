"""A trace as this project decodes it: its decoder, the stop that it looks for, the length of its canvas."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unmask.decoding import Decoder, Stop
from unmask.decoding.apd import APD
from unmask.decoding.blocks import Blocks
from unmask.decoding.joint_threshold import JointThreshold
from unmask.decoding.leftright import LeftRight
from unmask.decoding.lopa import LoPA
from unmask.decoding.memory import Credit, Klass
from unmask.decoding.p2 import P2
from unmask.decoding.pc_sampler import PCSampler
from unmask.decoding.pipeline import D2F, MultiBlock
from unmask.decoding.prophet import Prophet
from unmask.decoding.saber import Saber
from unmask.decoding.slowfast import SlowFast
from unmask.decoding.speculative import DFlash
from unmask.decoding.unmasking import Unmasking
from unmask.decoding.wino import Wino
from unmask.testing.golden_freedave import AtLeastTwo, RecordedVerifications

WAITING = {
    "dllm_cache": "it works inside layers, where slots of keys and values do not reach",
    "open_dcoder": "masks in a prompt; a pad that makes it causal",
    "mdlm": "classifier-free guidance, suppressed tokens, another shift, the model card's schedule",
    "bd3lm": "classifier-free guidance, another shift",
    "fast_dllm_v2": "batch_sample, in which rows share forwards and a stop id waits for its block's end",
    "sdar": "top_k=1, whose confidences are all 1",
    "llada2": "an end id in the prompt",
}
MASK = 319  # of the tiny models
EOS = 318  # of the tiny models, where a trace names no other
FALLBACKS = {"margin_confidence": "margin"}  # published name -> ours
FACTOR_RULES = {"corrected": "factor", "published": "published_factor"}
UNSUPPORTED = {"cfg_scale", "suppress_tokens", "begin_suppress_tokens", "right_shift_logits"}  # of dllm
RENAMED = {  # of a trace -> published name, which is ours
    "share_add": "block_add_threshold",
    "share_act": "decoded_token_threshold",
    "conf_min": "skip_threshold",
    "cache_delay": "cache_delay_iter",
}
RANKS = {
    "low_confidence": "confidence",
    "maskgit_plus": "confidence",
    "entropy": "entropy",
    "topk_margin": "margin",
}


class PublishedNoise(APD):
    """APD with the noise of a trace: float64 uniforms for all masks fed, drawn from torch's global generator
    on the CPU, whatever device decodes."""

    def gumbel(self, streams, offsets, logits) -> Tensor | None:
        if self.temperature == 0:
            return None
        uniforms = torch.rand(logits.shape[1:], dtype=torch.float64)
        return -torch.log(-torch.log(uniforms))[None].to(logits.device)


@dataclass(frozen=True, kw_only=True)
class RecordedDrafts(DFlash):
    """DFlash that keeps every block which the target judged: the anchor and the draft."""

    blocks: list = field(default_factory=list)

    def draft(self, board, only, sizes, ids, noise):
        logits = super().draft(board, only, sizes, ids, noise)
        begin = board.rows[0].first - 1
        self.blocks.append(ids[0, begin : begin + sizes[0]].tolist())
        return logits


@dataclass(frozen=True)
class OpenDCoder(Unmasking):
    """Dream's schedule up to another time than 0.001, and of more steps than there are tokens."""

    end: float = 1e-3

    @property
    def epsilon(self) -> float:
        return self.end

    def steps_left(self, row):
        return self.steps, max(1, self.steps - row.state.spent + 1)


@dataclass(frozen=True)
class EarlyStop(Blocks):
    """LLaDA2's eos_early_stop: only a step that commits an end token sees that all left of one is."""

    def step(self, board):
        commits = super().step(board)
        for row, (_, ids) in zip(board.rows, commits, strict=True):
            row.until = 0 if board.stop.ids & set(ids) else row.until
        return commits


def blocks_of(trace: dict) -> Decoder | None:
    """This project's decoder for a trace of a block diffusion model; None where it is not implemented."""
    s, method = trace["settings"], trace["method"]
    if method == "mdlm" and not (s.keys() & UNSUPPORTED or trace["case"] == "card_schedule"):
        length = min(s["block_size"], trace["canvas"])
        return Unmasking(quota="linear", steps=s["steps"], block_length=length, after_end="fill")
    if method == "open_dcoder" and s["alg"] in RANKS and trace["case"] is None:
        return OpenDCoder(RANKS[s["alg"]], "dream", s["steps"], end=s.get("eps", 1e-3), after_end="fill")
    if method == "bd3lm" and not s.keys() & UNSUPPORTED:
        steps = {"steps_per_block": s["steps_per_block"]} if "steps_per_block" in s else {"steps": s["steps"]}
        shared = {"store": "separate", "prefix": "recomputed", "after_end": "block"}
        return Blocks(quota="linear", block_length=s["block_size"], **steps, **shared)
    if method == "sdar" and "top_k" not in s:
        rule = s.get(
            "remasking_strategy",
            "low_confidence_static" if s.get("threshold", 0) == 1 else "low_confidence_dynamic",
        )
        rules = {
            "low_confidence_static": {"quota": "static"},
            "low_confidence_dynamic": {
                "quota": "dynamic",
                "threshold": s.get("confidence_threshold", s.get("threshold")),
            },
            "sequential": {"quota": "static", "rank": "leftmost"},
            "entropy_bounded": {"quota": "entropy_sum", "rank": "entropy", "bound": s.get("eb_threshold")},
        }
        steps = {} if rule == "entropy_bounded" else {"steps_per_block": s["denoising_steps"]}
        shared = {"store": "separate", "after_end": "block", "block_length": s["block_length"]}
        return Blocks(**rules[rule], **steps, **shared)
    if method == "fast_dllm_v2" and trace["case"] is None:
        return Blocks(
            quota="dynamic",
            threshold=s["threshold"],
            block_length=s["block_size"],
            sub_block_length=s["small_block_size"],
            hand_over=True,
            store="separate",
            cache="block" if s["use_block_cache"] else "exact",
        )
    if method == "llada2" and trace["case"] is None:
        steps = min(s["steps"], trace["canvas"] // s.get("minimal_topk", 1))
        kind = EarlyStop if s.get("eos_early_stop") else Blocks
        return kind(
            quota="dynamic",
            threshold=s["threshold"],
            block_length=s["block_length"],
            steps_per_block=steps,
            cache="none",
            after_end="block",
        )
    return None


def unmasking_of(trace: dict, folder: Path) -> Decoder | None:
    """This project's decoder for a trace of a rank, a quota or a memory of 2026; None for other methods."""
    s, method = trace["settings"], trace["method"]
    shared = {"block_length": s.get("block_length"), "after_end": "fill"}
    if method == "klass":
        steps = {"steps": s["steps"]} if trace["family"] == "LLaDA" else {}  # Dream's loop may end early
        names = ("kl_threshold", "history_length", "unmask_strategy")
        return Klass(threshold=s["conf_threshold"], **{n: s[n] for n in names}, **steps, **shared)
    if method == "dinfer_threshold":
        return Unmasking(quota="near_ties", threshold=s["threshold"], **shared)
    if method == "dinfer_credit":
        return Credit(**{name: s[name] for name in ("threshold", "alpha", "beta", "gamma")}, **shared)
    if method == "dinfer_hierarchy":
        limits = {name: s[name] for name in ("threshold", "low_threshold")}
        return Unmasking(quota="hierarchy", **limits, **shared)
    if method == "dkv_cache" and s["variant"] == "decode":
        given = {name: s[name] for name in ("steps", "refresh_interval")}
        return Unmasking(cache="decoded", **given, **shared)
    if method == "prophet":
        names = ("steps", "answer_start", "constraints")
        given = {name: s[name] for name in names} | s["thresholds"]
        return Prophet(empty_steps=True, **given, **shared)
    if method == "pc_sampler":
        given = {name: s[name] for name in ("steps", "lambd", "alpha")}
        return PCSampler(frequencies=str(folder / "pc_sampler_frequencies.json"), **given, **shared)
    if method == "slowfast":
        names = ("exploration_steps", "cycle_confidence", "window", "std_dev", "high_confidence")
        return SlowFast(whole_exploration=True, **{name: s[name] for name in names}, **shared)
    return None


def revising_of(trace: dict) -> Decoder | None:
    """The decoder with the trace's settings; None where it is not implemented."""
    s, method, case = trace["settings"], trace["method"], trace["case"]
    if method == "wino":
        names = ("threshold", "threshold_back", "block_length")
        return Wino(after_end="fill", **{name: s[name] for name in names})
    if method == "saber":
        return Saber(n=s["n"], block_length=s["block_length"])
    if method == "open_dcoder" and s["alg"] == "p2" and case is None:
        return P2(steps=s["steps"])
    if method == "lopa":
        names = ("block_length", "share_add", "share_act", "conf_min", "branches", "branch_topp", "alpha")
        return LoPA(fallback=s["rank"], visible=s["attention"], after_end="fill", **renamed(s, *names))
    if method == "freedave" and s["draft_steps"] is None:
        quota = {} if s["threshold"] is None else {"quota": "threshold", "threshold": s["threshold"]}
        kind = AtLeastTwo if quota and trace["family"] == "LLaDA" else Unmasking
        return kind(block_length=s["block_length"], cache=s["cache"], after_end="fill", **quota)
    if method == "freedave" and not s["eager"]:
        names = ("draft_steps", "threshold", "cache", "block_length")
        return RecordedVerifications(after_end="fill", **{name: s[name] for name in names})
    if method == "joint_threshold":
        return JointThreshold(**s, store="separate", after_end="fill")
    if method == "llada21":
        return JointThreshold(
            threshold=s["threshold"],
            edit_threshold=s["editing_threshold"],
            max_post_edit_steps=s["max_post_steps"],
            block_length=s["block_length"],
            least=s.get("num_to_transfer", 1),
            cache="none",
            after_end="none" if s.get("eos_early_stop") else "fill",
        )
    return None


def decoder_of(trace: dict, folder: Path) -> Decoder | None:
    """This project's decoder with a trace's settings; None where it is not implemented.

    folder: that of the trace.
    """
    s, method = trace["settings"], trace["method"]
    window = {"kv_window": s.get("kv_window_published"), "max_lookahead": s.get("max_lookahead")}
    if method == "apd":
        kind = PublishedNoise if s["temperature"] else APD
        return kind(
            mixture_weight=s["mixture_weight"],
            temperature=s["temperature"],
            coupling="argmax",
            chunk=None,
            **window,
        )
    if method == "leftright":
        return LeftRight(tokens_per_step=s["tokens_per_step"], **window)
    if method in RANKS:
        quota = "dream" if trace["family"] == "Dream" else "even"
        return Unmasking(
            rank=RANKS[method], quota=quota, steps=s["steps"], block_length=s.get("block_length")
        )
    if method == "dparallel":
        return Unmasking(
            rank="entropy",
            quota="threshold",
            threshold=s["entropy_threshold"],
            block_length=s["block_length"],
        )
    if method == "fast_dllm" and s.get("steps", 1) == 1:
        shared = {"block_length": s["block_length"], "cache": s["cache"]}
        if "threshold" in s:
            return Unmasking(quota="threshold", threshold=s["threshold"], **shared)
        if "factor" in s:
            return Unmasking(quota=FACTOR_RULES[s["factor_rule"]], factor=s["factor"], **shared)
        return Unmasking(steps=s["steps_per_block"] * trace["canvas"] // s["block_length"], **shared)
    if method == "dflash":
        return RecordedDrafts(block_length=s["block_size"], temperature=s["temperature"])
    if method == "d2f":
        given = renamed(s, "block_length", "share_add", "share_act", "conf_min")
        return D2F(fallback=FALLBACKS.get(s["fallback"], s["fallback"]), after_end="fill", **given)
    if method == "d3llm":
        names = ("block_length", "share_add", "share_act", "entropy_max", "cache", "cache_delay")
        given = renamed(s, *names, "refresh_interval")
        end = "none" if s["early_stop"] else "fill"
        return MultiBlock(after_end=end, published_shift=True, **given)
    return blocks_of(trace) or unmasking_of(trace, folder) or revising_of(trace)


def renamed(settings: dict, *names: str) -> dict:
    """These settings of a trace, under our names, without those that are null."""
    return {RENAMED.get(name, name): settings[name] for name in names if settings[name] is not None}


def stop_of(trace: dict) -> Stop:
    """The end id, where the published decoder looks for it."""
    s, method = trace["settings"], trace["method"]
    if method == "apd" or (method, trace.get("family")) == ("leftright", "Dream"):
        return Stop(frozenset({s.get("eos_token_id", EOS)}))
    if method in ("d2f", "lopa") or s.get("early_stop"):
        return Stop(frozenset({s["eos"] or EOS}))
    ends = {"bd3lm": "eos_token_id", "sdar": "stop_ids", "fast_dllm_v2": "stop_token", "llada2": "eos_id"}
    if method == "llada21" and s.get("eos_early_stop"):
        return Stop(frozenset({s["eos_id"]}))
    if method in ends:
        end = s[ends[method]]
        return Stop(frozenset(end if isinstance(end, list) else [end]))
    return Stop()


def canvas_of(trace: dict) -> int:
    """Tokens of the canvas: published D2F leaves the last ones out where whole blocks do not fill it, LLaDA2
    decodes its last block to the end, and Fast-dLLM v2 counts blocks, and the token that the last one hands
    over."""
    s, method, prompt = trace["settings"], trace["method"], len(trace["prompt"])
    if method in ("llada2", "llada21"):
        return len(trace["canvas_ids"])
    if method == "fast_dllm_v2":
        return trace["canvas"] // s["block_size"] * s["block_size"] - prompt % s["block_size"] + 1
    if method == "sdar" and MASK in s["stop_ids"]:  # found in what is still masked: one block
        return s["block_length"] - prompt % s["block_length"]
    block = s["block_length"] if method == "d2f" else 1
    return trace["canvas"] // block * block
