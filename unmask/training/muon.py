"""Muon in the parameters' own dtype, all matrices of one shape at once.

torch.optim.Muon orthogonalises in bfloat16, which many CPUs multiply hundreds of times slower than float32,
and takes one matrix at a time. Same update rule (Keller Jordan, https://kellerjordan.github.io/posts/muon),
with the learning rate scaled to AdamW's update size (Moonlight, arXiv 2502.16982), so that one learning rate
serves both optimizers.
"""

from collections import defaultdict

import torch


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration on (k, rows, columns): singular values move to about 1, singular vectors
    stay."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.mT if matrices.size(1) > matrices.size(2) else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if matrices.size(1) > matrices.size(2) else x


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz, for the 2-D weights inside the network (no embeddings, no
    head)."""

    def __init__(self, parameters, lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(buffer, group["momentum"]))  # Nesterov
                scale = 0.2 * max(shape) ** 0.5
                for p, update in zip(params, orthogonalise(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)
