"""One training loop for every objective, on one process or many: checkpoint, exact resume, learning curve,
progress."""

import csv
import math
import os
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.parallel import DistributedDataParallel

from unmask.decoding.sampling import step_generator
from unmask.models.loading import choose_device
from unmask.training.data import Stream
from unmask.training.muon import Muon
from unmask.training.objectives import OBJECTIVES, Loss
from unmask.training.validation import Validation

PROGRESS = ("seen", "steps", "seconds", "curve", "window", "sittings", "earlier")


@dataclass
class Schedule:
    """Learning rate over training: linear warm-up, plateau, linear decay to zero over the last `decay` of all
    tokens."""

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


@dataclass(frozen=True)
class Place:
    """Where this process trains: its device, and its number among the processes that share the work
    (torchrun)."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, device: str = "auto") -> "Place":
        """The place that torchrun gives this process, with the process group joined; alone without
        torchrun."""
        world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        chosen = choose_device(device)
        if chosen.type == "cuda" and world > 1:
            chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(chosen)
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(chosen, rank, world)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def mean(self, value: float) -> float:
        """The mean of a number over all processes: for each of them the same."""
        if self.world == 1:
            return value
        shared = torch.tensor(
            value, dtype=torch.float64 if self.device.type == "cpu" else torch.float32, device=self.device
        )
        dist.all_reduce(shared)
        return shared.item() / self.world


@dataclass
class Trainer:
    """Trains `model` on `stream` until `tokens` are seen. `folder` holds state.pt and curve.csv; an existing
    state resumes.

    A step takes `accumulate` batches for each process, one after the other, and averages all their gradients:
    two processes compute what one does with twice the `accumulate`. `dtype` bfloat16 runs the forwards under
    autocast, weights stay float32.
    """

    model: torch.nn.Module
    stream: Stream
    objective: str
    folder: Path
    tokens: int
    schedule: Schedule
    weight_decay: float = 0.01
    seed: int = 0
    settings: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)  # the objective's keyword arguments
    validation: Validation | None = None
    accumulate: int = 1
    place: Place = field(default_factory=Place)
    dtype: torch.dtype = torch.float32
    earlier: dict | None = None  # what the recipe before this one left to tell
    # progress, saved with the weights
    seen: int = 0
    steps: int = 0
    seconds: float = 0.0
    curve: list[dict] = field(default_factory=list)
    window: list[float] = field(default_factory=list)  # losses since the curve's last row
    sittings: list[dict] = field(
        default_factory=list
    )  # where each start began, what it aimed at, where it ran

    def __post_init__(self):
        self.folder, self.model = Path(self.folder), self.model.to(self.place.device).train()
        self.optimizers = optimizers(self.model, self.weight_decay)
        loss = Loss(self.model, OBJECTIVES[self.objective], self.options)
        self.loss = DistributedDataParallel(loss) if self.place.world > 1 else loss

    # -- state
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    #
    # ---------------------------------------------------------------------------------------------------------
    @property
    def state_file(self) -> Path:
        return self.folder / "state.pt"

    def resume(self) -> bool:
        """Continue from the folder's state, if there is one. A state of other settings is refused."""
        if not self.state_file.exists():
            return False
        state = torch.load(self.state_file, weights_only=False, map_location="cpu")
        different = {
            k for k in self.settings | state["settings"] if self.settings.get(k) != state["settings"].get(k)
        }
        if different:
            raise ValueError(
                f"{self.state_file} was trained with other settings ({', '.join(sorted(different))}): "
                "give another `folder`, or delete it to start again"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.stream.position, self.stream.shares = state["position"], state["shares"]
        for name in PROGRESS:
            setattr(self, name, state.get(name) or getattr(self, name))
        return True

    def save(self) -> None:
        if not self.place.leads:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.state_file.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizers": [o.state_dict() for o in self.optimizers],
                "position": self.stream.position,
                "shares": self.stream.shares,
                "settings": self.settings,
                **{k: getattr(self, k) for k in PROGRESS},
            },
            partial,
        )
        os.replace(partial, self.state_file)
        with open(self.folder / "curve.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, ["step", "tokens", "seconds", "loss", "lr", "accuracy"])
            writer.writeheader()
            writer.writerows(self.curve)

    # -- training
    # ------------------------------------------------------------------------------------------------------
    def step(self) -> float:
        """One update; returns its loss. A loss or gradient that is not finite raises ValueError and changes
        no weight."""
        progress = self.seen / self.tokens
        lr = self.schedule(progress)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        world, rank = self.place.world, self.place.rank
        # Every process draws the whole step's batches: so all know what was seen, and none depends on how
        # many there are.
        first = self.steps * self.accumulate * world
        batches = [(first + i, self.stream.next(progress)) for i in range(self.accumulate * world)]
        mine = batches[rank::world]
        total = torch.zeros((), device=self.place.device)
        for i, (number, batch) in enumerate(mine):
            waits = world > 1 and i < len(mine) - 1  # gradients are exchanged once, with the last batch
            with self.loss.no_sync() if waits else nullcontext():
                with torch.autocast(self.place.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    loss = self.loss(
                        batch.to(self.place.device), step_generator(self.seed, number, torch.device("cpu"))
                    )
                (loss / len(mine)).backward()
            total += loss.detach() / len(mine)
        value = self.place.mean(total.item())
        if not math.isfinite(value):
            raise ValueError(
                f"loss is {value} at step {self.steps}: lower `lr`; the last checkpoint is untouched"
            )
        if not torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0).isfinite():
            raise ValueError(
                f"the gradient is not finite at step {self.steps}: lower `lr`; the last checkpoint is untouched"
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.steps += 1
        self.seen += sum(batch.tokens for _, batch in batches)
        return value

    def measure(self) -> float | None:
        """Validation accuracy, if it is due: every so many tokens and at the end."""
        if self.validation is None or not self.place.leads:
            return None
        before = self.curve[-1]["tokens"] if self.curve else 0
        due = self.seen // self.validation.every > before // self.validation.every or self.seen >= self.tokens
        return self.validation(self.model) if due else None

    def run(self, log_every: int = 50, checkpoint_minutes: float = 5.0, on_checkpoint=None) -> None:
        """Train to the end. Ctrl-C (or SIGTERM) saves after the step under way; the same command goes on from
        there."""
        stop = []
        before = {
            name: signal.signal(name, lambda *_: stop.append(True))
            for name in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self._run(stop, log_every, checkpoint_minutes, on_checkpoint)
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
        if self.seen < self.tokens:
            raise KeyboardInterrupt(
                f"stopped at {self.seen:,} tokens and saved; the same command goes on from there"
            )

    def _run(self, stop: list, log_every: int, checkpoint_minutes: float, on_checkpoint) -> None:
        if self.seen < self.tokens:
            self.sittings.append(
                {
                    "from_step": self.steps,
                    "planned_tokens": self.tokens,
                    "device": str(self.place.device),
                    "processes": self.place.world,
                    "threads": torch.get_num_threads(),
                    "dtype": str(self.dtype).removeprefix("torch."),
                }
            )
        saved = time.perf_counter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f}%"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, refresh_per_second=1, disable=not self.place.leads) as progress:
            bar = progress.add_task("training", total=self.tokens, completed=self.seen)
            while self.seen < self.tokens and not self.place.mean(float(bool(stop))):
                start = time.perf_counter()
                self.window.append(self.step())
                self.seconds += time.perf_counter() - start
                progress.update(bar, completed=self.seen)
                if self.steps % log_every == 0 or self.seen >= self.tokens:
                    loss, self.window = sum(self.window) / len(self.window), []
                    text = f"loss {loss:.4f}  {self.seen / self.seconds:,.0f} tokens/s  {self.seen / 1e6:.2f}M tokens"
                    accuracy = self.measure()
                    if accuracy is not None:
                        text += f"  accuracy {accuracy:.1%}"
                    self.curve.append(
                        {
                            "step": self.steps,
                            "tokens": self.seen,
                            "seconds": round(self.seconds, 1),
                            "loss": round(loss, 5),
                            "lr": self.schedule(self.seen / self.tokens),
                            "accuracy": accuracy,
                        }
                    )
                    progress.update(bar, description=text)
                    if self.place.leads and not progress.console.is_terminal:
                        print(f"step {self.steps}  {text}", flush=True)
                if time.perf_counter() - saved > 60 * checkpoint_minutes:
                    self.save()
                    saved = time.perf_counter()
                    if on_checkpoint and self.place.leads:
                        on_checkpoint()
        self.save()
