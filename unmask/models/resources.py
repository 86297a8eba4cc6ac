"""What a machine has: device, number format, and what fits in memory."""

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from unmask.models.loading import Source, attention_width

LOGITS = 2**28  # bytes of logits, in float32, that are ranked at once (`Marginals.in_parts`)
COPIES = 8  # of logits that ranking holds: Dream's confidence, tempered and with top-p, 7.3
AT_ONCE = 16  # positions of a row whose logits decoders hold that draft from the left
SIZES = (32, 16, 8, 4, 2, 1)  # of batches, where batch_size=auto
ACCELERATORS = ("cuda", "xpu", "mps")
TRIM, MMAP = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
KEPT = 2**28  # bytes


def rows_that_fit(
    sources: Sequence[Source],
    width: int,
    max_new_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    memory: int | None = None,
) -> int:
    """The largest power of two, up to 32, of rows of `width` tokens that fit in four fifths of the memory.

    sources: the models at work, the first role's first. memory: bytes; None = what is free on the device.
    Estimated from shapes: keys and values of all layers, the widest activations, and what is held of logits
    while they are ranked. ValueError where not even one row fits.
    """
    if memory is None:
        memory = memory_of(device)
    main = sources[0]
    vocabulary = main.config.get_text_config(decoder=True).vocab_size
    logits = 4 * max_new_tokens * vocabulary
    free, row = 0.8 * memory, COPIES * 4 * AT_ONCE * vocabulary
    for source in sources:
        c = source.config.get_text_config(decoder=True)
        free -= source.parameters * dtype.itemsize
        kept = 2 * c.num_hidden_layers * attention_width(c, "num_key_value_heads")
        row += width * (kept + 3 * c.intermediate_size + 8 * c.hidden_size) * dtype.itemsize
    fit = [n for n in SIZES if n * row + COPIES * max(min(n * logits, LOGITS), logits) <= free]
    if not fit:
        raise ValueError(
            f"batch_size=auto: {main.settings.name} and one row of {width} tokens do not fit in "
            f"{memory / 1e9:.0f} GB; batch_size=1 tries it all the same"
        )
    return fit[0]


def check_memory(sources: Sequence[Source], device: torch.device, dtype: torch.dtype) -> None:
    """ValueError where the weights of models that are at work together exceed the device's memory. A device
    that is not here is not judged: `check_device` refuses it where something must be decoded."""
    if not is_here(device):
        return
    needed = sum(source.parameters for source in sources) * dtype.itemsize
    if needed > (memory := memory_of(device)):
        names = " and ".join(dict.fromkeys(source.settings.name for source in sources))
        half = "dtype=bfloat16 halves that, " if dtype.itemsize > 2 else ""
        raise ValueError(
            f"{names}: weights of {needed / 1e9:.3g} GB in {str(dtype).removeprefix('torch.')} do not fit in "
            f"the {memory / 1e9:.3g} GB of device={device.type}: {half}a smaller model needs less"
        )


def is_here(device: torch.device) -> bool:
    """Whether this machine has a device of the kind."""
    here = torch.accelerator.current_accelerator(check_available=True)
    return device.type == "cpu" or (here is not None and here.type == device.type)


def memory_of(device: torch.device) -> int:
    """Bytes that are free on an accelerator, what torch holds and does not use included; of a CPU, all."""
    if device.type == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    unused = torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)
    return torch.accelerator.get_memory_info(device)[0] + unused


def choose_device(device: str) -> torch.device:
    """The device that a setting names; auto is this machine's accelerator, or else the CPU.

    Apple's is not chosen unless it is named: nothing was tested on one. ValueError for a name that is none;
    whether the device is here is for `check_device` to say, where it is to compute.
    """
    if device == "auto":
        here = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if here is None or here.type == "mps" else torch.device(here.type)
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        chosen = None
    if chosen is None or chosen.type not in ("cpu", *ACCELERATORS):
        raise ValueError(f"device={device}: must be auto, cpu, cuda, cuda:N, xpu or mps")
    return chosen


def check_device(device: torch.device) -> torch.device:
    """The device; ValueError where this machine has no such device."""
    if device.type == "cpu":
        return device
    if not is_here(device):
        raise ValueError(
            f"device={device}: this machine has no {device.type.upper()} device that torch "
            f"{torch.__version__} can use; use device=cpu"
        )
    if device.index is not None and device.index >= (count := torch.accelerator.device_count()):
        raise ValueError(f"device={device}: this machine has {count} of them, numbered from 0")
    return device


def set_for_cpu(device: torch.device) -> None:
    """What makes decoding on a CPU faster and is set for a whole process: for programs alone (unmask.quiet),
    which own theirs, and what the user has set stays.

    Freed memory is kept for the next step, which needs as much again (glibc gives it back); and heads that
    share keys are not copied, which other devices need.
    """
    if device.type != "cpu" or "unmask.quiet" not in sys.modules:
        return
    os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")
    if hasattr(library := ctypes.CDLL(None), "mallopt"):  # other C libraries have none
        for name, option in (("MALLOC_TRIM_THRESHOLD_", TRIM), ("MALLOC_MMAP_THRESHOLD_", MMAP)):
            if name not in os.environ:
                library.mallopt(option, KEPT)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """auto is bfloat16 on an accelerator and float32 on a CPU, where bfloat16 products can be hundreds of
    times slower. fastest is bfloat16 on a CPU that multiplies it in hardware (AMX), too."""
    if dtype in ("auto", "fastest"):
        half = device.type != "cpu" or (dtype == "fastest" and has_amx())
        return torch.bfloat16 if half else torch.float32
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype={dtype}: must be auto, fastest, float32, bfloat16 or float16")
    return getattr(torch, dtype)


def has_amx(processor: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether `lscpu` shows amx_bf16; False where the system does not tell."""
    return processor.is_file() and "amx_bf16" in processor.read_text(encoding="utf-8").split()
