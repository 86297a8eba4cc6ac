"""One token a forward from a causal model with a KV cache: the baseline that parallel decoding has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import DynamicCache

from decoding.canvas import left_padded
from decoding.generation import Decoder, Models, Observer, Role, Row, Stop
from decoding.sampling import Sampling, step_generator


@dataclass(frozen=True)
class Autoregressive(Sampling, Decoder):
    """temperature, top_p, top_k: see Sampling."""

    causal = True

    def run(self, models: Models, rows: list[Row], stop: Stop, observer: Observer | None) -> None:
        role, cache = Role("autoregressive", models.main), DynamicCache(config=models.main.config)
        ids, padding = left_padded([row.prompt for row in rows], pad=0)
        mask, fed = padding.get("attention_mask"), padding.get("fed")
        step = 0
        while rows:
            extra = {}
            if mask is not None:
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.size(1) :]
                extra = {"attention_mask": mask, "position_ids": positions, "fed": fed}
            logits = role(rows, ids, cache=cache, logits_to_keep=1, **extra).logits[:, -1].float()
            picked = []
            for row, scores in zip(rows, logits, strict=True):
                noise = self.noise(step_generator(row.seed, step, models.device), scores.shape)
                picked.append(self.pick(scores, noise))
            for row, token in zip(rows, torch.stack(picked).tolist(), strict=True):
                row.commit([row.prefix], [token], stop, observer)
            keep = [i for i, row in enumerate(rows) if not row.finished]
            ids = torch.stack(picked)[:, None]
            if 0 < len(keep) < len(rows):  # finished rows leave the batch
                index = torch.tensor(keep, device=models.device)
                cache.batch_select_indices(index)
                ids, mask = ids[index], None if mask is None else mask[index]
            rows = [rows[i] for i in keep]
            mask = None if mask is None or not rows else torch.nn.functional.pad(mask, (0, 1), value=1)
            fed, step = None, step + 1
