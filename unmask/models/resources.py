"""What a machine has: device, number format, and how many rows fit in memory."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from unmask.models.loading import Source, attention_width


def rows_that_fit(
    sources: Sequence[Source],
    width: int,
    max_new_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    memory: int | None = None,
) -> int:
    """The largest power of two, up to 32, of rows of `width` tokens that fit in four fifths of the memory.

    sources: the models at work, the first role's first. memory: bytes; None = the device's. Estimated from
    shapes alone, so that the same machine gives the same answer: keys and values of all layers, the widest
    activations, and logits with their noise at `max_new_tokens` positions, more than lazy decoders hold.
    """
    if memory is None:
        memory = memory_of(device)
    main = sources[0]
    # logits, scores, noise and probabilities in float32
    free, row = 0.8 * memory, 16 * max_new_tokens * main.config.get_text_config(decoder=True).vocab_size
    for source in sources:
        c = source.config.get_text_config(decoder=True)
        free -= source.parameters * dtype.itemsize
        kept = 2 * c.num_hidden_layers * attention_width(c, "num_key_value_heads")
        row += width * (kept + 3 * c.intermediate_size + 8 * c.hidden_size) * dtype.itemsize
    if free < row:
        raise ValueError(
            f"batch_size=auto: {main.settings.name} and one row of {width} tokens do not fit in "
            f"{memory / 1e9:.0f} GB; batch_size=1 tries it all the same"
        )
    return 2 ** min(5, int(free / row).bit_length() - 1)


def memory_of(device: torch.device) -> int:
    """Bytes that a device has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def choose_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device}: must be auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device}: this machine has no CUDA device; use device=cpu")
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """auto is bfloat16 on CUDA and float32 on a CPU, where bfloat16 products can be hundreds of times slower.
    fastest is bfloat16 on a CPU that multiplies it in hardware (AMX), too."""
    if dtype in ("auto", "fastest"):
        half = device.type == "cuda" or (dtype == "fastest" and has_amx())
        return torch.bfloat16 if half else torch.float32
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype={dtype}: must be auto, fastest, float32, bfloat16 or float16")
    return getattr(torch, dtype)


def has_amx(processor: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether `lscpu` shows amx_bf16; False where the system does not tell."""
    return processor.is_file() and "amx_bf16" in processor.read_text(encoding="utf-8").split()
