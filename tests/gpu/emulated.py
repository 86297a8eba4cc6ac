"""A CUDA device without a GPU: tensors that say cuda:0 and hold CPU memory.

    python tests/gpu/emulated.py eval.py device=cuda limit=2      # a script
    python tests/gpu/emulated.py -m pytest -m gpu                 # a module

What CUDA refuses raises here (tensors of two devices in one operation, a CPU generator for a CUDA tensor,
.numpy()). What makes a GPU wait is counted with the line that asked for it, and so are kernels and bytes.
Memory ends where EMULATED_MEMORY says (80e9 bytes). It takes a CPU build of PyTorch and, once, g++
to compile what such a build lacks.

What it is not: numbers are a CPU's (a GPU rounds otherwise and draws other noise); `torch.inference_mode`
becomes `no_grad`; a CPU tensor without dimensions passes everywhere (CUDA takes it in elementwise operations
alone); CUDA graphs and Inductor are out of reach.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# A device guard and hooks that do nothing: without them C++ refuses tensors that say cuda:0.
GUARD = r"""
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
using namespace c10;
struct Guard final : public impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device getDevice() const override { return {DeviceType::CUDA, 0}; }
  Device exchangeDevice(Device) const override { return {DeviceType::CUDA, 0}; }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, {DeviceType::CUDA, 0}); }
  Stream getDefaultStream(Device d) const override { return getStream(d); }
  Stream exchangeStream(Stream s) const noexcept override { return s; }
};
static Guard guard;
static impl::DeviceGuardImplRegistrar registrar(DeviceType::CUDA, &guard);
namespace at {
struct CUDAHooks final : public CUDAHooksInterface {
  CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
};
REGISTER_CUDA_HOOKS(CUDAHooks)
}
"""


def library() -> Path:
    """The compiled guard, made once for a version of torch; subprocess.CalledProcessError without a compiler
    that can."""
    name = hashlib.sha256(f"{version('torch')} {GUARD}".encode()).hexdigest()[:12]
    file = Path(tempfile.gettempdir()) / f"emulated-{name}-{os.getuid()}.so"
    if not file.exists():
        torch = Path(next(iter(find_spec("torch").submodule_search_locations)))
        command = [
            "g++",
            "-O1",
            "-std=c++20",
            "-shared",
            "-fPIC",
            "-xc++",
            "-",
            "-o",
            f"{file}.{os.getpid()}",
        ]
        command += [f"-I{torch}/include", f"-I{torch}/include/torch/csrc/api/include", f"-L{torch}/lib"]
        command += [f"-Wl,-rpath,{torch}/lib", "-ltorch_cpu", "-lc10"]
        subprocess.run(command, check=True, input=GUARD.encode())
        os.replace(f"{file}.{os.getpid()}", file)
    return file


assert "torch" not in sys.modules, "torch asks once what it is linked with: import emulated before it"
ctypes.CDLL(str(library()), ctypes.RTLD_GLOBAL)

import torch  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes  # noqa: E402

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
ROOT = str(Path(__file__).resolve().parents[2]) + "/"


class OnCuda(torch.Tensor):
    """A CPU tensor (`held`) that reports cuda:0."""

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=CUDA,
            requires_grad=held.requires_grad,
        )
        made.held, made.token = held, memory.hold(held)
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    def __repr__(self):
        return f"OnCuda({self.held!r})"

    def __reduce_ex__(self, protocol):  # torch.save
        return self.held.__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        return wrap(self.held.clone())


class Memory:
    """Bytes of the storages that tensors on the device hold, and the most at once."""

    def __init__(self):
        self.live: dict[int, list[int]] = {}  # address -> tensors that hold it, bytes
        self.now = self.peak = 0
        self.total = int(float(os.environ.get("EMULATED_MEMORY", 80e9)))

    def hold(self, held: torch.Tensor) -> Token | None:
        storage = held.untyped_storage()
        if not (key := storage.data_ptr()):
            return None
        if key not in self.live:
            if self.now + storage.nbytes() > self.total:
                raise torch.OutOfMemoryError(f"CUDA out of memory: {storage.nbytes()} bytes (emulated)")
            self.live[key] = [0, storage.nbytes()]
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        self.live[key][0] += 1
        return Token(key)

    def drop(self, key: int) -> None:
        entry = self.live[key]
        entry[0] -= 1
        if not entry[0]:
            self.now -= self.live.pop(key)[1]


class Token:
    """Goes with its tensor."""

    def __init__(self, key: int):
        self.key = key

    def __del__(self):
        if memory is not None:  # else the interpreter is at its end
            memory.drop(self.key)


memory = Memory()
counts: Counter = Counter()  # kind -> how often: kernels, waits, to device, to host
waits: Counter = Counter()  # (line of the project, what) -> how often a GPU would have waited there


def wait(what: str) -> None:
    counts["waits"] += 1
    frame = sys._getframe(1)
    while frame is not None and not (
        frame.f_code.co_filename.startswith(ROOT)
        and "/site-packages/" not in frame.f_code.co_filename
        and frame.f_code.co_filename != __file__
    ):
        frame = frame.f_back
    where = f"{frame.f_code.co_filename.removeprefix(ROOT)}:{frame.f_lineno}" if frame else "elsewhere"
    waits[where, what] += 1


def wrap(x):
    return OnCuda(x) if isinstance(x, torch.Tensor) and not isinstance(x, OnCuda) else x


def unwrap(x):
    return x.held if isinstance(x, OnCuda) else x


def is_cuda(device) -> bool:
    return device is not None and torch.device(device).type == "cuda"


RealGenerator = torch.Generator
cuda_generators: set[int] = set()


class CudaGenerator(RealGenerator):
    """A generator that says cuda."""

    def __new__(cls, device="cpu"):
        if not is_cuda(device):
            return RealGenerator(device)
        made = super().__new__(cls, "cpu")
        cuda_generators.add(made._cdata)
        return made

    def __init__(self, device="cpu"):
        pass

    def __del__(self):
        if cuda_generators is not None:
            cuda_generators.discard(self._cdata)

    device = property(lambda self: CUDA)


INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten.index.Tensor_hacked_twin,
    aten.index_put_.hacked_twin,
    aten._unsafe_index.Tensor,
}
WAITS = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
    aten.equal.default,
    aten.bincount.default,
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten._linalg_check_errors.default,
}
FREE = {  # launch no kernel
    f"aten::{name}"
    for name in (
        *("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "lift_fresh", "set_"),
        *("detach", "detach_", "alias", "_unsafe_view", "_reshape_alias", "unsafe_split", "resize_"),
        *("_local_scalar_dense", "is_same_size"),
    )
}


@functools.cache
def traits(func) -> tuple[bool, bool, bool]:
    """(is a view, writes into its first argument and returns it, is composite)."""
    returns = [r.alias_info for r in func._schema.returns]
    view = bool(returns) and all(a is not None and not a.is_write for a in returns)
    writes = bool(returns) and all(a is not None and a.is_write for a in returns)
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return view, writes, composite


def refuse(func):
    raise RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
        f"(emulated; {func})"
    )


def count(func, args, kwargs, tensors: list, onto: bool, view: bool) -> bool:
    """Count what an operation costs, and refuse what CUDA refuses; whether its result is on the device."""
    target, on_device = kwargs.get("device"), isinstance(args[0] if args else None, OnCuda)
    free = kwargs.get("non_blocking")
    if func is aten._to_copy.default:
        copy(on_device, onto or target is None, free)
        return onto or target is None
    if func is aten.copy_.default:
        free = args[2] if len(args) > 2 else free
        copy(isinstance(args[1], OnCuda), on_device, free)
        return on_device
    if func in INDEXING:
        if not on_device or (len(args) > 2 and not isinstance(args[2], OnCuda) and args[2].dim()):
            refuse(func)
        for index in args[1]:
            if index is None:
                continue
            if not isinstance(index, OnCuda):
                counts["to device"] += 1
                wait("an index from the host")
            if index.dtype in (torch.bool, torch.uint8):
                wait("a boolean index")
        counts["kernels"] += 1
        return True
    plain = [x for x in tensors if type(x) is not OnCuda]
    if len(plain) < len(tensors) and any(x.dim() for x in plain):  # not: empty_like(x, device)
        refuse(func)
    if func in WAITS:
        wait(str(func.overloadpacket).removeprefix("aten."))
    if not view and func._schema.name not in FREE:
        counts["kernels"] += 1
    return func is not aten._local_scalar_dense.default and (onto or target is None)


def copy(source_on_device: bool, target_on_device: bool, non_blocking: bool) -> None:
    if source_on_device == target_on_device:
        counts["kernels"] += 1
        return
    direction = "to device" if target_on_device else "to host"
    counts[direction] += 1
    if not non_blocking:
        wait(f"a copy {direction}")


def held(x, tensors: list):
    """x with what its tensors on the device hold; all its tensors go to the list, as they were."""
    kind = type(x)
    if kind is OnCuda:
        tensors.append(x)
        return x.held
    if kind is list or kind is tuple:
        return kind([held(each, tensors) for each in x])
    if isinstance(x, torch.Tensor):
        tensors.append(x)
    return x


def wrapped(result):
    if isinstance(result, torch.Tensor):
        return wrap(result)
    return type(result)(map(wrapped, result)) if type(result) in (list, tuple) else result


def dispatch(func, args, kwargs):
    view, writes, composite = traits(func)
    if composite and func is not aten.is_nonzero.default:
        with mode:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    tensors: list = []
    inner_args = [held(x, tensors) for x in args]
    inner_kwargs = {key: held(x, tensors) for key, x in kwargs.items()} if kwargs else {}
    onto = "device" in kwargs and is_cuda(kwargs["device"])
    if not onto and not any(type(x) is OnCuda for x in tensors):
        return func(*args, **kwargs)
    generator = kwargs.get("generator")
    if generator is not None and generator._cdata not in cuda_generators:
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' (emulated; {func})")
    on_device = count(func, args, kwargs, tensors, onto, view)
    if inner_kwargs.get("device") is not None:
        inner_kwargs["device"] = torch.device("cpu")
    if inner_kwargs.get("pin_memory"):
        inner_kwargs["pin_memory"] = False
    result = func(*inner_args, **inner_kwargs)
    if writes and isinstance(result, torch.Tensor):
        if isinstance(args[0] if args else None, torch.Tensor):
            return args[0]
        outs = [x for x in kwargs.values() if isinstance(x, torch.Tensor)]
        if len(outs) == 1:
            return outs[0]
    return wrapped(result) if on_device else result


class Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


mode = Dispatch()


def plain(f, *args, **kwargs):
    """f on what is held, outside of all modes."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        return f(*args, **kwargs)


def index_on_device(index):
    """Lists in an index become tensors on the device, as C++ makes them: a copy that waits."""
    if isinstance(index, tuple):
        return tuple(index_on_device(part) for part in index)
    if not isinstance(index, (list, range)):
        return index
    counts["to device"] += 1
    wait("an index list")
    return wrap(plain(torch.tensor, list(index)))


class Function(TorchFunctionMode):
    """Calls that C++ would answer before the dispatcher sees them."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if device is not None and func in (torch.tensor, torch.as_tensor) and is_cuda(device):
            data = args[0] if args else kwargs.get("data")
            if isinstance(data, torch.Tensor):
                return data.to(device)
            counts["to device"] += 1
            wait("torch.tensor")
            return wrap(plain(torch.tensor, data, dtype=kwargs.get("dtype")))
        first = args[0] if args else None
        if not isinstance(first, OnCuda):
            return func(*args, **kwargs)
        if func is torch.Tensor.tolist:
            counts["to host"] += 1
            wait("tolist")
            return plain(torch.Tensor.tolist, first.held)
        if func is torch.Tensor.data_ptr:
            return first.held.data_ptr()
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() (emulated)")
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (first, index_on_device(args[1]), *args[2:])
        if func is torch.nn.functional.scaled_dot_product_attention:
            return sdpa(func, args, kwargs)
        return func(*args, **kwargs)


def sdpa(func, args, kwargs):
    """One kernel, where CUDA has one for it."""
    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
    if any(not isinstance(x, OnCuda) for x in tensors):
        refuse(func)
    if any(x.requires_grad for x in tensors) or torch.is_autocast_enabled("cuda"):
        return func(*args, **kwargs)
    counts["kernels"] += 1 + any(x.dtype == torch.bool for x in tensors)  # a boolean mask becomes floats
    held = {key: unwrap(value) for key, value in kwargs.items()}
    return wrap(plain(func, *[unwrap(x) for x in args], **held))


class Properties:
    name = "NVIDIA Emulated (CPU)"
    major, minor, multi_processor_count, warp_size = 9, 0, 132, 32
    total_memory = property(lambda self: memory.total)


class Event:
    """One of a stream that has always done everything."""

    def __init__(self, *args, **kwargs):
        pass

    def record(self, stream=None):
        pass

    def synchronize(self):
        counts["synchronize"] += 1

    def query(self):
        return True


def install() -> None:
    """From here on this process has a CUDA device."""

    def reset(device=None):
        memory.peak = memory.now

    def synchronise(device=None):
        counts["synchronize"] += 1

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    alike = {  # of torch.cuda and torch.accelerator
        "is_available": lambda: True,
        "device_count": lambda: (
            visible.count(",") + 1 if visible else int(os.environ.get("EMULATED_DEVICES", 1))
        ),
        "synchronize": synchronise,
        "empty_cache": lambda: None,
        "memory_allocated": lambda device=None: memory.now,
        "memory_reserved": lambda device=None: memory.now,
        "max_memory_allocated": lambda device=None: memory.peak,
        "reset_peak_memory_stats": reset,
    }
    of_cuda = alike | {
        "_lazy_init": lambda: None,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "is_bf16_supported": lambda *args, **kwargs: True,
        "get_device_name": lambda device=None: Properties.name,
        "get_device_properties": lambda device=None: Properties(),
        "get_device_capability": lambda device=None: (9, 0),
        "mem_get_info": lambda device=None: (memory.total - memory.now, memory.total),
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "is_current_stream_capturing": lambda: False,
    }
    of_accelerators = alike | {
        "current_device_index": lambda: 0,
        "set_device_index": lambda device: None,
        "get_memory_info": of_cuda["mem_get_info"],
    }
    for module, functions in ((torch.cuda, of_cuda), (torch.accelerator, of_accelerators)):
        for name, function in functions.items():
            setattr(module, name, function)
    torch.Generator, torch.Event = CudaGenerator, Event
    torch.Tensor.pin_memory = lambda tensor, device=None: tensor
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter becomes an OnCuda, ties stay
    import safetensors.torch as safe  # it asks for addresses

    for name in ("storage_ptr", "storage_size"):
        real = getattr(safe, name)
        setattr(safe, name, lambda tensor, real=real: real(unwrap(tensor)))
    torch.inference_mode = lambda mode=True: torch.set_grad_enabled(not mode)  # views of parameters need it
    Function().__enter__()
    mode.__enter__()
    run = threading.Thread.run

    def with_modes(thread):  # they are a thread's own
        with Function(), Dispatch():
            run(thread)

    threading.Thread.run = with_modes


if __name__ == "__main__":
    sys.modules["emulated"] = sys.modules["__main__"]  # what tests import is this module, not a second copy
    module, arguments = sys.argv[1] == "-m", sys.argv[1 + (sys.argv[1] == "-m") :]
    sys.path[0] = os.getcwd()
    install()
    sys.argv = arguments
    if module:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(arguments[0], run_name="__main__")
