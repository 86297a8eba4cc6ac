"""Where one arm's time, memory and arithmetic go. Each has passes of its own: timed passes carry no
instruments."""

import statistics
import time
from collections import defaultdict
from contextlib import contextmanager

import torch
from torch import nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from unmask.benchmark.arms import Arm
from unmask.benchmark.timing import work
from unmask.decoding.cache import SlotCache
from unmask.decoding.decoder import synchronise

REPEATS = 3


def profile(arm: Arm, count: int) -> dict:
    """All of the below for the first `count` prompts, one batch or more."""
    shares, rows, done = _shares(arm, count)
    ceiling = _ceiling(arm, count)
    useful, steps = done["useful"], done["steps"]
    return {
        "shares": shares,
        "head_rows_per_step": {role: n / steps for role, n in rows.items()},
        "ceiling_tokens_per_second": useful / ceiling if ceiling else None,
        "mflop_per_useful_token": _flops(arm, count) / useful / 1e6,
        **memory(arm, count),
    }


def memory(arm: Arm, count: int) -> dict[str, float]:
    """MB that decoding the first `count` prompts holds at its peak, and that the weights take."""
    weights = {p for model in arm.models.by_role.values() for p in model.parameters()}
    return {
        "peak_mb": _peak_memory(arm, min(count, arm.batch_size)) / 1e6,
        "weights_mb": sum(p.numel() * p.element_size() for p in weights) / 1e6,
    }


def _parts(arm: Arm) -> dict[nn.Module, tuple[str, str]]:
    """The modules whose time is the models' own: transformers' backbone and the head, as (part, role).

    A block drafter is all body, and its head is the target's.
    """
    found = {}
    for role, model in arm.models.by_role.items():
        found[getattr(model, "model", model)] = ("bodies", role)
        if hasattr(model, "lm_head"):
            found[model.lm_head] = ("heads", role)
    return found


@contextmanager
def _hooks(modules, before, after=None):
    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]
    handles += [module.register_forward_hook(after) for module in modules] if after else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shares(arm: Arm, count: int) -> tuple[dict[str, float], dict[str, int], dict[str, int]]:
    """Shares of the wall time inside model bodies, inside heads, and elsewhere; rows that heads computed, per
    role; the work."""
    parts, spent, begun, rows = _parts(arm), defaultdict(float), {}, defaultdict(int)

    def before(module, args, kwargs):
        synchronise(arm.models.device)
        begun[module] = time.perf_counter()

    def after(module, args, output):
        synchronise(arm.models.device)
        part, role = parts[module]
        spent[part] += time.perf_counter() - begun[module]
        if part == "heads":
            rows[role] += output.numel() // output.size(-1)

    with _hooks(parts, before, after):
        start = time.perf_counter()
        generations = arm.answer(0, count)
        total = time.perf_counter() - start
    shares = {part: spent[part] / total for part in ("bodies", "heads")}
    return shares | {"everything else": 1 - sum(shares.values())}, dict(rows), work(generations)


def _ceiling(arm: Arm, count: int) -> float | None:
    """Seconds that the same forwards of bodies and heads take alone, one after the other, their cache writes
    included.

    None where a cache is not this project's (transformers' generate).
    """
    calls, parts = [], _parts(arm)

    def before(module, args, kwargs):
        cache = kwargs.get("past_key_values")
        held = (
            (cache.size, cache.length, cache.rows, cache.slots, cache.end, cache.every)
            if isinstance(cache, SlotCache)
            else cache
        )
        calls.append((module, args, kwargs | ({"past_key_values": None} if cache is not None else {}), held))

    with _hooks(parts, before):
        arm.answer(0, count)
    if any(held is not None and not isinstance(held, tuple) for *_, held in calls):
        return None

    def replay() -> float:
        caches = {}
        synchronise(arm.models.device)
        start = time.perf_counter()
        with torch.inference_mode():
            for module, args, kwargs, held in calls:
                if held is not None:
                    size, length, *slots = held
                    cache = caches.setdefault((module, size, length), SlotCache(size, length))
                    cache.write_at(*slots)
                    kwargs["past_key_values"] = cache
                module(*args, **kwargs)
        synchronise(arm.models.device)
        return time.perf_counter() - start

    replay()
    return statistics.median(replay() for _ in range(REPEATS))


def _flops(arm: Arm, count: int) -> int:
    """Floating-point operations of all matrix products and attentions, counted from their shapes (padding
    included)."""

    def attention(query, key, value, *args, out_shape=None, **kwargs):
        return sdpa_flop_count(query, key, value)

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # unknown to torch's own counter
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention}) as counter:
        arm.answer(0, count)
    return counter.get_total_flops()


def _peak_memory(arm: Arm, count: int) -> int:
    """The most bytes that decoding held at once, on top of the weights."""
    device = arm.models.device
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)
        before = torch.accelerator.memory_allocated(device)
        arm.answer(0, count)
        return torch.accelerator.max_memory_allocated(device) - before
    with torch_profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        arm.answer(0, count)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
