"""One training loop for every objective: checkpoint, exact resume, learning curve, progress."""

import csv
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from training.data import Stream
from training.muon import Muon
from training.objectives import OBJECTIVES


@dataclass
class Schedule:
    """Learning rate over training: linear warm-up, plateau, linear decay to zero over the last `decay` of all tokens."""

    peak: float
    warmup: float = 0.02
    decay: float = 0.3

    def __call__(self, progress: float) -> float:
        rise = min(1.0, progress / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (1 - progress) / self.decay) if self.decay else 1.0
        return self.peak * max(0.0, min(rise, fall))


def optimizers(model, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, head, norms and biases."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, weight_decay=weight_decay),
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0),
    ]


class Trainer:
    """Trains `model` on `stream` until `tokens` are seen. `folder` holds state.pt and curve.csv; an existing state resumes."""

    def __init__(self, model, stream: Stream, objective: str, folder: Path, tokens: int, schedule: Schedule,
                 weight_decay: float = 0.01, seed: int = 0, settings: dict | None = None):  # fmt: skip
        self.model, self.stream, self.folder, self.tokens = model.train(), stream, Path(folder), tokens
        self.objective, self.schedule = OBJECTIVES[objective], schedule
        self.optimizers = optimizers(model, weight_decay)
        self.generator = torch.Generator().manual_seed(seed)
        self.settings = settings or {}
        self.seen = self.steps = 0
        self.seconds = 0.0
        self.curve: list[dict] = []

    # -- state ---------------------------------------------------------------------------------------------------------
    @property
    def state_file(self) -> Path:
        return self.folder / "state.pt"

    def resume(self) -> bool:
        """Continue from the folder's state, if there is one. A state of other settings is refused."""
        if not self.state_file.exists():
            return False
        state = torch.load(self.state_file, weights_only=False)
        different = {k for k in self.settings | state["settings"] if self.settings.get(k) != state["settings"].get(k)}
        if different:
            raise ValueError(
                f"{self.state_file} was trained with other settings ({', '.join(sorted(different))}): "
                "give another `folder`, or delete it to start again"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.stream.position, self.stream.shares = state["position"], state["shares"]
        self.seen, self.steps, self.seconds, self.curve = (
            state[k] for k in ("seen", "steps", "seconds", "curve")
        )
        return True

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.state_file.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizers": [o.state_dict() for o in self.optimizers],
                "generator": self.generator.get_state(),
                "position": self.stream.position,
                "shares": self.stream.shares,
                "settings": self.settings,
                **{k: getattr(self, k) for k in ("seen", "steps", "seconds", "curve")},
            },
            partial,
        )
        os.replace(partial, self.state_file)
        with open(self.folder / "curve.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, ["step", "tokens", "seconds", "loss", "lr"])
            writer.writeheader()
            writer.writerows(self.curve)

    # -- training ------------------------------------------------------------------------------------------------------
    def step(self) -> float:
        progress = self.seen / self.tokens
        lr = self.schedule(progress)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        batch = self.stream.next(progress)
        loss = self.objective(self.model, batch, self.generator)
        if not math.isfinite(loss.item()):
            raise ValueError(f"loss is {loss.item()} at step {self.steps}: lower `lr`; the last checkpoint is untouched")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.steps += 1
        self.seen += batch.tokens
        return loss.item()

    def run(self, log_every: int = 50, checkpoint_minutes: float = 5.0, on_checkpoint=None) -> None:
        """Train to the end. Ctrl-C (or SIGTERM) saves after the step under way; the same command goes on from there."""
        stop = []
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stop.append(True))
        saved = last = time.perf_counter()
        window: list[float] = []
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>5.1f}%"),
                   TimeRemainingColumn())  # fmt: skip
        with Progress(*columns, refresh_per_second=1) as progress:
            bar = progress.add_task("training", total=self.tokens, completed=self.seen)
            while self.seen < self.tokens and not stop:
                window.append(self.step())
                if self.steps % log_every == 0 or self.seen >= self.tokens:
                    now = time.perf_counter()
                    self.seconds += now - last
                    loss, window, last = sum(window) / len(window), [], now
                    self.curve.append({"step": self.steps, "tokens": self.seen, "seconds": round(self.seconds, 1),
                                       "loss": round(loss, 5), "lr": self.schedule(self.seen / self.tokens)})  # fmt: skip
                    text = f"loss {loss:.4f}  {self.seen / self.seconds:,.0f} tokens/s  {self.seen / 1e6:.2f}M tokens"
                    progress.update(bar, completed=self.seen, description=text)
                    if not progress.console.is_terminal:
                        print(f"step {self.steps}  {text}", flush=True)
                if time.perf_counter() - saved > 60 * checkpoint_minutes:
                    self.save()
                    saved = time.perf_counter()
                    if on_checkpoint:
                        on_checkpoint()
        self.save()
        if stop:
            raise KeyboardInterrupt(f"stopped at {self.seen:,} tokens and saved; the same command goes on from there")
