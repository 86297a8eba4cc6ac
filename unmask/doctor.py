"""The first minutes on a machine:  python -m unmask.doctor, or make gpu

What is here, whether decoders do on this device what they should, and how much of it they use. It prints
tables that can be pasted into an issue, and exits with 1 where something failed:

1. versions and memory;
2. the traces of published code in float32: the same ids, steps and forwards;
3. a document of the embedded task by every decoder, on the tiny family in the device's own dtype;
4. one token a step with compile=true and without: the same ids, milliseconds a step;
5. a forward of random weights in Dream's layout against what the device can do. It must read the weights, and
   do two operations for each parameter and position: the slower of the two is the limit.

--quick takes a few traces and small models and compiles nothing: it looks at a CPU, too.
"""

import unmask.quiet  # noqa: F401, I001  (first: it quiets the libraries below)

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from unmask.configuration.command_line import refusals
from unmask.configuration.composition import CONFIGURATIONS, composed
from unmask.configuration.settings import build_decoder, typed
from unmask.decoding import Decoder, Models, Stop
from unmask.decoding.decoder import synchronise
from unmask.decoding.leftright import LeftRight
from unmask.evaluation.evaluation import Evaluation
from unmask.evaluation.setup import Setup
from unmask.models.loading import on_same_weights
from unmask.models.random_weights import parameters_of, random_config, random_model
from unmask.models.resources import check_device, choose_device, choose_dtype, memory_of
from unmask.models.settings import RandomModel
from unmask.paths import ROOT
from unmask.records.environment import accelerator, commit, machine
from unmask.testing.golden import replay_folder

PACKAGES = ("torch", "transformers", "lm-eval", "peft")
TRACES = ROOT / "tests" / "golden" / "traces"
TINY = {  # of the tiny family, by what a role asks for
    ("causal", "first"): "model=tiny_qwen_large",
    ("diffusion", "first"): "model=tiny_llada",
    ("block_causal", "first"): "model=tiny_d2f_llada",
    ("causal", "other"): "tiny_qwen",
    ("drafter", "other"): "tiny_dflash",
}
REAL = {"layout": "Dream", "width": 3584, "depth": 28}  # 7.6B parameters, 15.2 GB in bfloat16
MIDDLE = {"layout": "Dream", "width": 1024, "depth": 8}  # compiled in a minute
SMALL = {"layout": "Dream", "width": 64, "depth": 2, "vocabulary": 512}
POSITIONS = (1, 16, 64, 256, 1024)  # fed in a forward


class Doctor:
    """The checks, for one device; `failed` says whether anything was wrong."""

    def __init__(self, device: torch.device, quick: bool = False):
        self.device, self.quick = device, quick
        self.dtype, self.failed, self.console = choose_dtype("auto", device), False, Console(width=110)

    def run(self) -> None:
        for title, headings, rows in (
            ("This machine", ("what", "value"), self.machine),
            ("Traces of published code, float32", ("file", "method", "traces", "differ"), self.traces),
            (
                f"A document of each decoder, {self._name}",
                ("decoder", "tokens", "steps", "ms a step"),
                self.decoders,
            ),
            ("One token a step, compiled or not", ("compile", "ms a step", "ids"), self.compiling),
            (
                f"Forwards of random weights, {self._name}",
                ("positions", "ms", "ms at the limit", "limit", "reached"),
                self.roofline,
            ),
        ):
            table = Table(*headings, box=box.MARKDOWN)
            for row in self._guarded(rows, len(headings)):
                table.add_row(*map(str, row))
            self.console.print(f"\n{title}\n", highlight=False)
            self.console.print(table, highlight=False, markup=False)

    @property
    def _name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _guarded(self, rows: Callable[[], Iterator[tuple]], columns: int) -> Iterator[tuple]:
        """Rows of a check; what it raises becomes its last one."""
        try:
            yield from rows()
        except Exception as error:  # whatever a new machine brings
            yield self._failure("stopped", error, columns)

    def _failure(self, what: str, error: Exception, columns: int) -> tuple:
        self.failed = True
        reason = (str(error).splitlines() or [""])[0]
        return what, f"FAILED: {type(error).__name__}: {reason[:200]}", *[""] * (columns - 2)

    # The checks

    def machine(self) -> Iterator[tuple]:
        yield "device", f"{self.device}: {accelerator(self.device) or platform.processor()}"
        yield "machine", machine(self.device)
        yield "memory", f"{memory_of(self.device) / 1e9:.1f} GB free"
        if self.device.type == "cuda":
            yield "CUDA", f"{torch.version.cuda}, capability {torch.cuda.get_device_capability(self.device)}"
        yield "code", commit()
        yield "Python", platform.python_version()
        yield from ((name, version(name)) for name in PACKAGES)

    def traces(self) -> Iterator[tuple]:
        if not TRACES.is_dir():
            yield "skipped", "the traces are in a checkout", "", ""
            return
        for (file, method), replays in replay_folder(
            TRACES, self.device, most=1 if self.quick else None
        ).items():
            done = [replay for replay in replays if replay is not None]
            wrong = sum(replay.fails for replay in done)
            self.failed |= bool(wrong)
            yield file, method, len(done), wrong

    def decoders(self) -> Iterator[tuple]:
        asked = Evaluation.of(TINY["diffusion", "first"], "auxiliary=none", "decoder=confidence", "limit=1")
        (prompt,) = asked.lm.prompts(asked.requests)  # one tokenizer is all models'
        for name in sorted(path.stem for path in (CONFIGURATIONS / "decoder").glob("*.yaml")):
            decoder = build_decoder(composed("eval", [f"decoder={name}"]).decoder)
            if (next(iter(decoder.roles.values())), "first") not in TINY:
                yield name, "no small model of its kind", "", ""
                continue
            try:
                yield name, *self._answer(name, decoder, prompt)
            except Exception as error:  # the next decoder may do
                yield self._failure(name, error, 4)

    def _answer(self, name: str, decoder: Decoder, prompt: torch.Tensor) -> tuple:
        """Tokens, steps and milliseconds a step of one answer."""
        (first, kind), *others = decoder.roles.items()
        kind = "block_causal" if decoder.attention == "block_causal" else kind
        words = [f"{role}={TINY[kind, 'other']}" for role, kind in others]
        words = [TINY[kind, "first"], *([] if words else ["auxiliary=none"]), *words, f"device={self.device}"]
        tokens, block = 8 if self.quick else 64, getattr(decoder, "block_length", None)
        words += [f"decoder.block_length={tokens}"] if block is not None and tokens % block else []
        setup = Setup(typed(composed("eval", [*words, f"decoder={name}"])))
        models, stop = setup.load(), Stop(setup.main.end_ids)
        for _ in range(1 if self.quick else 2):  # the first one warms up
            (answer,) = setup.decoder.decode(models, [prompt], tokens, stop, [0])
        steps = answer.forwards[first]
        return answer.useful, steps, f"{1e3 * answer.seconds / steps:.1f}"

    def compiling(self) -> Iterator[tuple]:
        settings = RandomModel(name="random", kind="diffusion", **(SMALL if self.quick else MIDDLE))
        model = random_model(settings, self.device, self.dtype).eval()
        ways = {"false": Models({"denoiser": model})}
        if not self.quick:
            ways["true"] = Models({"denoiser": on_same_weights(model)}).compiled()
        prompt, found = torch.arange(40), {}
        for name, models in ways.items():

            def decode(models=models):
                begin = time.perf_counter()
                (answer,) = LeftRight().decode(models, [prompt], 8 if self.quick else 64, Stop(), [0])
                return answer.ids, 1e3 * (time.perf_counter() - begin) / answer.forwards["denoiser"]

            models.settled(decode)
            found[name] = models.settled(decode)
        for name, (ids, milliseconds) in found.items():
            same = ids == found["false"][0]
            self.failed |= not same and self.dtype == torch.float32
            yield name, f"{milliseconds:.2f}", "the same" if same else "others"
        if self.quick:
            yield "true", "skipped (--quick)", ""

    def roofline(self) -> Iterator[tuple]:
        size = 2**22 if self.quick else 2**30
        settings = RandomModel(name="random", kind="diffusion", **(SMALL if self.quick else REAL))
        while settings.depth > 1 and parameters_of(random_config(settings)) * 2.5 > memory_of(self.device):
            settings.depth -= 1  # a smaller card: fewer layers
        bytes_per_second = self._bandwidth(size)
        operations_per_second = self._peak(256 if self.quick else 8192)
        copied, multiplied = (
            f"{bytes_per_second / 1e9:.0f} GB/s",
            f"{operations_per_second / 1e12:.2f} TFLOP/s",
        )
        yield f"{settings.depth} layers", copied, multiplied, "measured", ""
        body = random_model(settings, self.device, self.dtype).eval().model
        parameters = sum(p.numel() for p in body.layers.parameters())
        reading = parameters * self.dtype.itemsize / bytes_per_second
        for count in POSITIONS[:2] if self.quick else POSITIONS:
            ids = torch.zeros(1, count, dtype=torch.long, device=self.device)
            seconds = self._seconds(lambda ids=ids: body(input_ids=ids, use_cache=False))
            computing = 2 * parameters * count / operations_per_second
            limit = max(reading, computing)
            which = "weights" if reading >= computing else "operations"
            yield count, f"{1e3 * seconds:.2f}", f"{1e3 * limit:.2f}", which, f"{limit / seconds:.0%}"

    def _bandwidth(self, size: int) -> float:
        """Bytes per second that a copy within the device reads and writes."""
        source = torch.zeros(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * size / self._seconds(lambda: target.copy_(source))

    def _peak(self, width: int) -> float:
        """Operations per second of a product of two square matrices."""
        matrix = torch.zeros(width, width, dtype=self.dtype, device=self.device)
        return 2 * width**3 / self._seconds(lambda: matrix @ matrix)

    def _seconds(self, work: Callable[[], object], repeats: int = 10) -> float:
        """The least that the work took."""
        taken = []
        with torch.inference_mode():
            for _ in range(3 if self.quick else repeats):
                synchronise(self.device)
                begin = time.perf_counter()
                work()
                synchronise(self.device)
                taken.append(time.perf_counter() - begin)
        return min(taken)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m unmask.doctor", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, xpu or mps")
    parser.add_argument("--quick", action="store_true", help="a few traces, small models, nothing compiled")
    options = parser.parse_args(arguments)
    with refusals():
        device = check_device(choose_device(options.device))
        if device.type == "cpu" and not options.quick:
            raise ValueError(
                f"torch {torch.__version__} finds no GPU on this machine; --quick looks at the CPU"
            )
        doctor = Doctor(device, options.quick)
        doctor.run()
        print("\nsomething FAILED: see above" if doctor.failed else "\nall as it should be")
    return int(doctor.failed)


if __name__ == "__main__":
    sys.exit(main())
