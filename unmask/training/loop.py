"""One training loop for every objective, on one process or many: checkpoint, exact resume, learning curve,
progress."""

from __future__ import annotations

import csv
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.nn.parallel import DistributedDataParallel

from unmask.decoding.sampling import step_generator
from unmask.processes import Processes
from unmask.training.data import Batch, Stream
from unmask.training.objectives import Objective
from unmask.training.optimization import Schedule, optimizers
from unmask.training.refusal import reason
from unmask.training.validation import Validation

FORMAT = 3  # of state.pt
PROGRESS = ("seen", "steps", "seconds", "curve", "window", "sessions", "earlier")
COLUMNS = ("step", "tokens", "seconds", "loss", "lr", "accuracy")  # of curve.csv, and one a further decoder
CPU = torch.device("cpu")


@dataclass
class Trainer:
    """Trains what the objective says on `stream` until `tokens` are seen.

    `folder` holds state.pt and curve.csv; an existing state resumes, batch for batch and bit for bit on the
    same machine. It holds the trained parameters alone: the frozen ones are loaded again and compared.

    A step takes `accumulate` batches for each process, one after the other, and averages all their gradients:
    two processes compute what one does with twice the `accumulate`. `dtype` bfloat16 runs the forwards under
    autocast, trained weights stay float32.
    """

    objective: Objective
    stream: Stream
    folder: Path
    tokens: int
    schedule: Schedule
    weight_decay: float = 0.01
    seed: int = 0
    settings: dict = field(default_factory=dict)  # a state of other ones is refused
    validation: Validation | None = None
    accumulate: int = 1
    processes: Processes = field(default_factory=Processes)
    dtype: torch.dtype = torch.float32
    earlier: dict | None = None  # training.json of the recipe before this one
    # progress, saved with the weights
    seen: int = 0
    steps: int = 0
    seconds: float = 0.0
    curve: list[dict] = field(default_factory=list)
    window: list[float] = field(default_factory=list)  # losses since the curve's last row
    sessions: list[dict] = field(default_factory=list)  # where each start began, aimed at and ran

    def __post_init__(self):
        self.folder = Path(self.folder)
        self.objective = self.objective.to(self.processes.device).train()
        self.trained = self.objective.trained
        self.frozen = self.objective.frozen_digest()
        self.optimizers = optimizers(self.trained, self.weight_decay)
        shared = self.processes.world_size > 1
        self.loss = DistributedDataParallel(self.objective) if shared else self.objective
        self.rate = 0.0  # of the last step

    # --- state ---

    @property
    def state_file(self) -> Path:
        return self.folder / "state.pt"

    def resume(self) -> bool:
        """Continue from the folder's state, if there is one.

        ValueError for a state that cannot be read, that other settings made, or that other frozen models did.
        """
        if not self.state_file.exists():
            return False
        state = self._read_state()
        ours, theirs = self.settings, state["settings"]
        if different := {key for key in ours | theirs if ours.get(key) != theirs.get(key)}:
            raise ValueError(
                f"{self.state_file} was trained with other settings ({', '.join(sorted(different))}): "
                "give another `folder`, or delete it to start again"
            )
        if state["frozen"] != self.frozen:
            raise ValueError(
                f"{self.state_file} was trained beside other frozen weights: the model that `init_from` or "
                "`frozen` names has changed. Put it back, give another `folder`, or delete the file to start "
                "again"
            )
        shapes = {name: parameter.shape for name, parameter in self.trained.items()}
        if shapes != {name: weights.shape for name, weights in state["trained"].items()}:
            raise ValueError(
                f"{self.state_file} holds the weights of another model: the one that `init_from` names has "
                "changed. Put it back, give another `folder`, or delete the file to start again"
            )
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state["trained"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.stream.position, self.stream.shares = state["position"], state["shares"]
        for name in PROGRESS:
            setattr(self, name, state[name] or getattr(self, name))
        return True

    def _read_state(self) -> dict:
        try:
            state = torch.load(self.state_file, weights_only=True, map_location="cpu")
            found = state.get("format")
        except Exception as error:  # damaged, or no state: each its own type
            raise ValueError(
                f"{self.state_file} cannot be read ({reason(error)}): delete it to start again, or give "
                "another `folder`"
            ) from error
        if found != FORMAT:
            raise ValueError(
                f"{self.state_file} is of another version of this program: delete it to start again, or give "
                "another `folder`"
            )
        return state

    def save(self) -> None:
        """Replace state.pt and curve.csv, each whole."""
        if not self.processes.is_main:
            return
        state = {
            "format": FORMAT,
            "trained": {name: parameter.detach() for name, parameter in self.trained.items()},
            "frozen": self.frozen,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "position": self.stream.position,
            "shares": self.stream.shares,
            "settings": self.settings,
        }
        state |= {name: getattr(self, name) for name in PROGRESS}
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.state_file.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.state_file)
        columns = list(dict.fromkeys((*COLUMNS, *(key for row in self.curve for key in row))))
        partial = self.folder / "curve.partial"
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.curve)
        os.replace(partial, self.folder / "curve.csv")

    # --- training ---

    def step(self) -> float:
        """One update; returns its loss.

        ValueError for a loss or a gradient that is not finite: no weight has changed then.
        """
        # Every process draws the whole step's batches: so all know what was seen, and none depends on how
        # many there are.
        count = self.accumulate * self.processes.world_size
        progress = self.seen / self.tokens
        first = self.steps * count
        batches = [(first + i, self.stream.next(progress)) for i in range(count)]
        seen = self.seen + sum(batch.tokens for _, batch in batches)

        loss = self._backward(batches[self.processes.rank :: self.processes.world_size])
        if not math.isfinite(loss):
            raise ValueError(
                f"loss is {loss} at step {self.steps}: lower `lr`; the last checkpoint is untouched"
            )
        if not torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0).isfinite():
            raise ValueError(
                f"the gradient is not finite at step {self.steps}: lower `lr`; the last checkpoint is "
                "untouched"
            )
        self.rate = self.schedule(progress, seen / self.tokens)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate
            optimizer.step()
            optimizer.zero_grad()
        self.steps += 1
        self.seen = seen
        return loss

    def _backward(self, batches: list[tuple[int, Batch]]) -> float:
        """Leaves the mean gradient over all processes; returns the mean loss. batches: this process's,
        numbered."""
        device = self.processes.device
        total = torch.zeros((), device=device)
        for number, batch in batches:
            generator = step_generator(self.seed, number, CPU)
            torch.manual_seed(generator.initial_seed())  # of dropout: by batch, so that resuming repeats it
            # Gradients are exchanged once, with the last batch.
            waits = self.processes.world_size > 1 and number != batches[-1][0]
            with self.loss.no_sync() if waits else nullcontext():
                with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
                    loss = self.loss(batch.to(device), generator) / len(batches)
                loss.backward()
            total += loss.detach()
        return self.processes.mean(total.item())

    def run(
        self,
        log_every: int = 50,
        checkpoint_minutes: float = 5.0,
        on_checkpoint: Callable[[], None] | None = None,
    ) -> None:
        """Train to the end and save.

        Ctrl-C (or SIGTERM) saves after the step under way and raises KeyboardInterrupt; the same command goes
        on from there. `on_checkpoint` is called by the main process after each checkpoint but the last.
        """
        if self.seen < self.tokens:
            self.sessions.append(self._session())
        saved = time.perf_counter()
        with stop_signals() as stopped, self._progress() as (progress, bar):
            # All processes stop after the same step.
            while self.seen < self.tokens and not self.processes.mean(float(stopped())):
                start = time.perf_counter()
                self.window.append(self.step())
                self.seconds += time.perf_counter() - start
                progress.update(bar, completed=self.seen)
                if self.steps % log_every == 0 or self.seen >= self.tokens:
                    self._log(progress, bar)
                if time.perf_counter() - saved > 60 * checkpoint_minutes:
                    self.save()
                    if on_checkpoint and self.processes.is_main:
                        on_checkpoint()
                    saved = time.perf_counter()
            self.save()
        if self.seen < self.tokens:
            raise KeyboardInterrupt(
                f"stopped at {self.seen:,} of {self.tokens:,} tokens and saved; the same command goes on "
                "from there"
            )

    def measure(self) -> dict[str, float]:
        """What validation measures, by column, if it is due: every so many tokens and at the end."""
        if self.validation is None or not self.processes.is_main:
            return {}
        before = self.curve[-1]["tokens"] if self.curve else 0
        passed = self.seen // self.validation.every > before // self.validation.every
        return self.validation(self.objective) if passed or self.seen >= self.tokens else {}

    def _log(self, progress: Progress, bar: TaskID) -> None:
        """A row of the curve, and what a person sees of it."""
        loss, self.window = sum(self.window) / len(self.window), []
        measured = self.measure()
        row = {"step": self.steps, "tokens": self.seen, "seconds": round(self.seconds, 1)}
        row |= {"loss": round(loss, 5), "lr": self.rate, "accuracy": None} | measured
        self.curve.append(row)
        text = f"loss {loss:.4f}  {self.seen / self.seconds:,.0f} tokens/s  {self.seen / 1e6:.2f}M tokens"
        for column, value in measured.items():
            if column.startswith("accuracy"):
                low, high = (100 * measured.get(f"{end}_{column}", value) for end in ("low", "high"))
                text += f"  {column} {value:.1%} [{low:.1f}, {high:.1f}]"
            elif not column.startswith(("low_", "high_")):
                text += f"  {column} {value:.4g}"
        progress.update(bar, description=text)
        if self.processes.is_main and not progress.console.is_terminal:
            print(f"step {self.steps}  {text}", flush=True)

    def _session(self) -> dict:
        return {
            "from_step": self.steps,
            "planned_tokens": self.tokens,
            "device": str(self.processes.device),
            "processes": self.processes.world_size,
            "threads": torch.get_num_threads(),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @contextmanager
    def _progress(self) -> Iterator[tuple[Progress, TaskID]]:
        text = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>5.1f}%"))
        hidden = not self.processes.is_main
        with Progress(*text, TimeRemainingColumn(), refresh_per_second=1, disable=hidden) as progress:
            yield progress, progress.add_task("training", total=self.tokens, completed=self.seen)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM set what the yielded function returns, and have their old meaning again
    afterwards."""
    received = []
    before = {
        name: signal.signal(name, lambda *_: received.append(True))
        for name in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(received)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
