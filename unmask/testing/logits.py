"""The published code's logits on tiny models in published layouts (expected.safetensors), and ours."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from unmask.decoding.visibility import attention_mask, block_causal
from unmask.models.layouts import LAYOUTS, layout_of

EXPECTED = "expected.safetensors"
CLOSE = 1e-4  # the largest difference that is rounding
MASK = 319


def expected_in(folder: Path) -> list[Path]:
    """The models in a folder that come with expected logits: in their own file, or in one beside them."""
    found = {path.parent for path in folder.glob(f"*/{EXPECTED}")}
    if (shared := folder / EXPECTED).exists():
        with safe_open(shared, "pt") as tensors:
            found |= {folder / name.partition("/")[0] for name in tensors.keys()}  # noqa: SIM118
    return sorted(found)


def expected_of(folder: Path) -> dict[str, Tensor]:
    """What the published code computed on a model; in a file of several models names are MODEL/TENSOR."""
    if (own := folder / EXPECTED).exists():
        return load_file(own)
    shared, mine = load_file(folder.parent / EXPECTED), f"{folder.name}/"
    return {name.removeprefix(mine): tensor for name, tensor in shared.items() if name.startswith(mine)}


def blocks_mask(block: int, columns: Tensor, end: int) -> Tensor:
    """(1, 1, n, end) for columns (1, n): blocks counted from column 0."""
    return attention_mask(block_causal(columns, torch.zeros(1, dtype=torch.long), block), torch.arange(end))


@torch.no_grad()
def check_logits(folder: Path) -> tuple[float, str]:
    """The largest difference from the published logits, and the forwards that were compared."""
    raw = json.loads((folder / "config.json").read_text())
    layout = layout_of(raw, folder.name if folder.name in LAYOUTS else None)
    options = {"mask_token_id": MASK} if layout.mask_id else {}
    model = layout.model.from_pretrained(folder, dtype=torch.float32, **options).eval()
    expected = expected_of(folder)
    ours = dict(
        _diffusion_gemma(model, expected) if layout.name == "diffusion_gemma" else _rows(model, expected)
    )
    return max(float((ours[name] - expected[name]).abs().max()) for name in ours), ", ".join(ours)


def _diffusion_gemma(model, expected: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    given = {"input_ids": expected["prompt_ids"], "decoder_input_ids": expected["canvas_ids"]}
    yield "logits", model(**given).logits
    guess = expected["self_conditioning_logits"]
    yield "logits_self_conditioned", model(**given, self_conditioning_logits=guess).logits


def _rows(model, expected: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our logits by the names of those that the file holds."""
    ids = expected["input_ids"]
    columns, width = torch.arange(ids.size(1))[None], ids.size(1)
    for name in ("aligned_logits", "full.aligned_logits"):
        if name in expected:
            yield name, model(ids).logits
    if (name := "right_padding.aligned_logits") in expected:
        padded = expected.get("right_padding.input_ids", ids)
        logits = model(padded, expected["right_padding.attention_mask"]).logits
        yield name, logits[:, : expected[name].size(1)]
    for block in (4, 8, 12):
        first, mask = width - block, blocks_mask(block, columns, width)
        if (name := f"block{block}.aligned_logits") in expected:
            yield name, model(ids, mask).logits
        if (name := f"block{block}.logits") in expected:
            yield name, model(ids, mask, aligned=False).logits
        if (name := f"block{block}_prefill_last.logits") in expected:
            logits = model(
                ids[:, :first], blocks_mask(block, columns[:, :first], first), aligned=False
            ).logits
            yield name, logits[:, -1].reshape(expected[name].shape)
        for name in (f"block{block}_cached.aligned_logits", f"block{block}_cached.logits"):
            if name in expected:
                cache = model(ids[:, :first], blocks_mask(block, columns[:, :first], first), use_cache=True)
                fed = blocks_mask(block, columns[:, first:], width)
                found = model(ids[:, first:], fed, past_key_values=cache.past_key_values, aligned=False)
                yield name, found.logits
    if "block.aligned_logits" in expected:
        ids, positions = expected["block.input_ids"], expected["block.position_ids"]
        mask, pads = expected["block.attention_mask"].bool()[None, None], 7
        yield "block.aligned_logits", model(ids, mask, positions).logits[:, pads:]
        cache = model(ids[:, :16], mask[..., :16, :16], positions[:, :16], use_cache=True).past_key_values
        last = model(ids[:, 16:], mask[..., 16:, :], positions[:, 16:], past_key_values=cache)
        yield "block_cached.aligned_logits", last.logits
