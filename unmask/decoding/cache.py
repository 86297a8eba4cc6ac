"""Keys and values of a batch whose rows have different lengths and end at different columns."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device. The host does not wait for the transfer: it is of pinned memory."""
    if device.type == "cpu":
        return values
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


class SlotCache(Cache):
    """Slot j of a row holds the keys and values of its column j.

    Allocated once, at the first forward. What a forward feeds is written over what the slots held, and what a
    row must not see is masked: so going back needs no cropping, and no step copies what is kept.

    valid: per row, how many columns from the left hold keys and values that may be used without feeding those
        columns again. `Board` keeps it up to date: forwards raise it, commits lower it.
    causal: whether its forwards were causal.
    aside: keys and values of the last forward, by layer, where it wrote into no slot (`write_aside`).
    """

    def __init__(self, size: int, length: int):
        super().__init__(layers=[])
        self.size, self.length, self.kept = size, length, []  # rows and slots
        self.valid, self.causal, self.aside, self.stays = [0] * size, False, [], False

    def allocate(self, model: torch.nn.Module) -> SlotCache:
        """Allocate all layers now, outside of compiled code, where they stay: a CUDA graph writes to
        addresses."""
        self.stays = True
        c, heads = model.config, model.config.num_key_value_heads or model.config.num_attention_heads
        width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        shape = (2, self.size, heads, self.length + 1, width)
        layers = range(c.num_hidden_layers)
        self.kept = [list(torch.zeros(shape, dtype=model.dtype, device=model.device)) for _ in layers]
        for keys, values in self.kept:
            torch._dynamo.mark_static_address(keys)  # no public name does this
            torch._dynamo.mark_static_address(values)
        return self

    def write_at(self, rows: Tensor | None, slots: Tensor | range, end: int, every: bool = True) -> None:
        """Where the next forward writes: `slots` as a range for all rows, or as `rows` and slots, both
        (rows, n).

        It reads the slots before `end`. every: the rows are the first ones, in order.
        """
        self.rows, self.slots, self.end, self.every, self.aside = rows, slots, end, every, []

    def write_aside(self, rows: Tensor, end: int) -> None:
        """The next forward, of `rows`, writes into no slot. It reads those before `end` and what it feeds."""
        self.rows, self.slots, self.end, self.every, self.aside = rows, None, end, False, []

    def adopt(self, row: int, queries: range, slots: range) -> None:
        """Write some of what the last forward, of all rows, put aside into a row's slots.

        queries: of what the row was fed.
        """
        for layer, states in enumerate(self.aside):
            for kept, new in zip(self._slots(layer, *states), states, strict=True):
                kept[row, :, slots.start : slots.stop] = new[row, :, queries.start : queries.stop]
        self.valid[row] = slots.stop

    def _slots(self, layer: int, keys: Tensor, values: Tensor) -> list[Tensor]:
        """A layer's slots, allocated when it first has something to write."""
        if layer == len(self.kept):  # the slot after the last takes padding
            shape = (self.size, keys.size(1), self.length + 1, keys.size(3))
            self.kept.append([states.new_zeros(shape) for states in (keys, values)])
        return self.kept[layer]

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        states = key_states, value_states
        if self.slots is None:
            self.aside.append(states)
            if not self.end:
                return states
            pairs = zip(self._slots(layer_idx, *states), states, strict=True)
            return tuple(torch.cat((kept[self.rows, :, : self.end], new), 2) for kept, new in pairs)
        found = []
        for kept, new in zip(self._slots(layer_idx, *states), states, strict=True):
            if isinstance(self.slots, range):
                kept[: len(new), :, self.slots.start : self.slots.stop] = new
            else:
                kept[self.rows, :, self.slots] = new.transpose(1, 2)
            mine = slice(len(new)) if self.every else self.rows[:, 0]
            found.append(kept[mine, :, : self.end])
        return tuple(found)

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these."""
        self.size, self.valid = len(rows), [self.valid[i] for i in rows]
        kept = sent(torch.tensor(rows), self.kept[0][0].device) if self.kept else None
        for layer in self.kept:  # one tensor at a time: no second cache beside the first
            for i, states in enumerate(layer):
                if self.stays:
                    states[: len(rows)] = states[kept]
                else:
                    layer[i] = states[kept]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.slots.start if isinstance(self.slots, range) else 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.end + query_length * (self.slots is None), 0
