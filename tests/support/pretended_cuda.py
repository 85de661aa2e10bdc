"""A CUDA device that is only pretended: the arithmetic is the CPU's, the rules are CUDA's.

Every storage is on the CPU; those in `places` are said to be on the GPU. A function of torch, an operator or a method
that is called while the device is pretended comes here first (`TorchFunctionMode`), is checked, counted and recorded,
and then runs as it is, forwards and backwards. So a number that differs from the CPU's is a fault of the library.

* A tensor on the GPU cannot meet one on the CPU, but for a CPU scalar, and a CPU index into a tensor on the GPU.
* NumPy refuses a tensor on the GPU.
* What makes the host wait for the GPU is a host synchronisation (`syncs`), and an error while a graph is captured.
* A captured graph is a tape of calls. A replay makes the calls again and puts their results into the storages of the
  capture, as a GPU does: what the capture did not read from a storage stays as it was then. As on a GPU, a capture
  itself computes nothing: until the first replay its results are not numbers.
* A process that may have a part of the memory (`set_per_process_memory_fraction`) gets an error for more.

Not pretended: streams and the order in which they run, random numbers of the GPU's own, what a backward pass does
inside, and how much memory a kernel needs beside its results.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TOTAL = 80 * 2**30  # bytes of the pretended memory

#: wait for the result, or for the size of the result
WAITING = set(
    "item tolist __bool__ __int__ __float__ __index__ __contains__ __format__ __repr__ is_nonzero equal allclose"
    " nonzero argwhere masked_select unique unique_consecutive bincount multinomial".split()
)
UPLOADING = {"tensor", "as_tensor", "asarray", "new_tensor"}  # read Python numbers, which are on the host
NUMPY = {"numpy", "__array__"}
#: take tensors of two devices
CROSSING = {"to", "copy_", "type_as", "__getitem__", "__setitem__", "_has_compatible_shallow_copy_type", "result_type"}
NO_SCALAR = {"cat", "stack", "concat", "embedding", "linear", "matmul", "__matmul__", "gather", "index_select"}
BOTH = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
CAPTURING = "CUDA error: operation not permitted when stream is capturing"


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in arguments or results."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def parts_of(index: Any) -> tuple[Any, ...]:
    """What stands between the brackets, dimension by dimension."""
    return index if isinstance(index, tuple) else (index,)


def is_in_place(name: str) -> bool:
    """Whether a function of this name writes into its first argument."""
    if name.startswith("__"):
        return name == "__setitem__" or name.startswith("__i") and name not in ("__invert__", "__int__", "__index__")
    return name.endswith("_")


def storage_of(tensor: torch.Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()._cdata


def as_device(value: Any) -> torch.device | None:
    """A device in any form that torch takes; None for something else."""
    return torch.device(value) if isinstance(value, str | torch.device) else None


class Generator(torch.Generator):
    """A generator that says where it is. Its numbers are those of the CPU."""

    place = CPU

    def __new__(cls, device: Any = "cpu") -> Generator:
        generator = super().__new__(cls, device="cpu")
        generator.place = CUDA if torch.device(device).type == "cuda" else torch.device(device)
        return generator

    def __init__(self, device: Any = "cpu"):
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place


class Graph:
    """`torch.cuda.CUDAGraph`: the calls of a capture, with their arguments and results."""

    def __init__(self) -> None:
        self.tape: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.count = SimpleNamespace(replays=0)  # outlives the graph, whose tensors do not outlive it

    def replay(self) -> None:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for function, args, kwargs, result in self.tape:
                again = function(*args, **kwargs)
                for old, new in zip(tensors_in(result), tensors_in(again), strict=True):
                    if old.data_ptr() != new.data_ptr():  # neither in place nor a view: its own memory
                        old.copy_(new)
        self.count.replays += 1


class PretendedCuda(TorchFunctionMode):
    """The device, as long as the block runs. `syncs`: what made the host wait, and where in the library it was."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[int, StorageWeakRef] = {}  # storages on the GPU
        self.syncs: list[tuple[str, str]] = []
        self.graphs: list[SimpleNamespace] = []  # how often each was replayed
        self.capturing: Graph | None = None
        self.before: set[int] = set()  # storages that were there when the capture began
        self.written: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # of those, with what was there
        self.peak = 0
        self.limit = TOTAL  # bytes that the process may allocate

    # ------------------------------------------------------------------------------------------ where tensors are

    def on_gpu(self, tensor: torch.Tensor) -> bool:
        return storage_of(tensor) in self.places

    def put(self, result: Any) -> Any:
        """Say that all tensors in a result are on the GPU; torch.OutOfMemoryError if they are more than it may hold."""
        with torch._C.DisableTorchFunction():
            for tensor in tensors_in(result):
                storage = tensor.untyped_storage()
                self.places.setdefault(storage._cdata, StorageWeakRef(storage))  # keeps its address from being reused
            if self.limit < TOTAL and self.allocated() > self.limit:
                raise torch.OutOfMemoryError(f"CUDA out of memory. {self.limit} of {TOTAL} bytes allowed.")
        return result

    def set_limit(self, fraction: float, device: Any = None) -> None:
        """`torch.cuda.set_per_process_memory_fraction`, which knows no device without an index."""
        if device is not None:
            torch.cuda._utils._get_device_index(device)
        self.limit = int(fraction * TOTAL)

    def allocated(self, *_: Any) -> int:
        """Bytes of the tensors on the GPU that are alive."""
        self.places = {place: reference for place, reference in self.places.items() if not reference.expired()}
        alive = [torch.UntypedStorage._new_with_weak_ptr(reference.cdata) for reference in self.places.values()]
        size = sum(storage.nbytes() for storage in alive if storage is not None)
        self.peak = max(self.peak, size)
        return size

    # ---------------------------------------------------------------------------------------- what makes the host wait

    def wait(self, what: str) -> None:
        if self.capturing is not None:
            raise RuntimeError(f"{CAPTURING}: {what}")
        frame = sys._getframe(1)
        while frame is not None and "/favor_lab/" not in frame.f_code.co_filename:
            frame = frame.f_back  # type: ignore[assignment]
        where = "elsewhere" if frame is None else f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        self.syncs.append((what, where))

    def counts(self) -> Counter[str]:
        """How often each line of the library made the host wait."""
        return Counter(f"{where} {what}" for what, where in self.syncs)

    # -------------------------------------------------------------------------------------------------- every call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        if isinstance(func, torch._ops.OpOverload):
            return self.run_operator(func, args, kwargs)
        if name == "__get__":
            return self.get(func, func.__self__.__name__, args)
        if name == "__set__":
            return self.set(func, func.__self__.__name__, *args)
        given = [(tensor, self.on_gpu(tensor)) for tensor in tensors_in((args, kwargs))]
        here = any(on_gpu for _, on_gpu in given)
        if name in ("as_tensor", "asarray") and isinstance(args[0], torch.Tensor):
            name = "to"
        if name in ("to", "cuda", "cpu"):
            return self.move(name, args, kwargs, given)
        device = as_device(kwargs.get("device"))
        if device is not None:
            kwargs = kwargs | {"device": CPU if device.type == "cuda" else device}
            here = device.type == "cuda"
            if (generator := kwargs.get("generator")) is not None and generator.device.type != device.type:
                raise RuntimeError(
                    f"Expected a '{device.type}' device type for generator but found '{generator.device}'"
                )
        elif here or name == "copy_":
            self.check(name, args, given)
        if self.must_wait(name, args, kwargs, given, here):
            self.wait(name)
        if name == "pin_memory":
            pinned = args[0].clone()
            pinned.is_pinned_here = True
            return pinned
        kwargs.pop("pin_memory", None)
        sum_type = kwargs.pop("out_dtype", None)  # of products of narrower numbers, which the CPU cannot sum in it
        if sum_type is not None:
            args = [part.to(sum_type) if isinstance(part, torch.Tensor) else part for part in args]
        if self.capturing is not None and here and given:
            self.keep_what_was_there(name, given[0][0])
        result = func(*args, **kwargs)
        if name == "copy_" or name == "__setitem__":
            here = self.on_gpu(args[0])
        if here:
            self.put(result)
        if self.capturing is not None and here:
            self.capturing.tape.append((func, args, kwargs, result))
        return result

    def run_operator(self, operator: torch._ops.OpOverload, args: Any, kwargs: Any) -> Any:
        """A part of a call that has been checked, under a counter of FLOPs; or a kernel of another library."""
        result = operator(*args, **kwargs)
        if operator.namespace != "aten" and any(map(self.on_gpu, tensors_in((args, kwargs)))):
            self.put(result)
            if self.capturing is not None:
                self.capturing.tape.append((operator, args, kwargs, result))
        return result

    def get(self, func: Any, name: str, args: Any) -> Any:
        """An attribute of a tensor."""
        if name in ("device", "is_cuda", "is_cpu") and self.on_gpu(args[0]):
            return {"device": CUDA, "is_cuda": True, "is_cpu": False}[name]
        result = func(*args)
        if isinstance(result, torch.Tensor) and self.on_gpu(args[0]):
            self.put(result)
            if self.capturing is not None:
                self.capturing.tape.append((func, args, {}, result))
        return result

    def set(self, func: Any, name: str, tensor: torch.Tensor, value: Any) -> None:
        if name == "grad" and value is not None and self.on_gpu(tensor) != self.on_gpu(value):
            raise RuntimeError("assigned grad has data located on a different device")
        func(tensor, value)

    def check(self, name: str, args: Any, given: list[tuple[torch.Tensor, bool]]) -> None:
        """RuntimeError where tensors of both devices meet and must not."""
        outside = [tensor for tensor, on_gpu in given if not on_gpu]
        if name in NUMPY:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory"
            )
        if name in ("__getitem__", "__setitem__"):
            if not self.on_gpu(args[0]) and any(map(self.on_gpu, tensors_in(args[1:2]))):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            advanced = any(hasattr(part, "__len__") for part in parts_of(args[1]))
            if advanced and any(value.dim() and not self.on_gpu(value) for value in tensors_in(args[2:])):
                raise RuntimeError(BOTH)
        elif name not in CROSSING:
            into_the_cpu = is_in_place(name) and not given[0][1]
            if into_the_cpu or any(tensor.dim() > 0 or name in NO_SCALAR for tensor in outside):
                raise RuntimeError(f"{BOTH} (in {name})")

    def must_wait(self, name: str, args: Any, kwargs: Any, given: list[tuple[torch.Tensor, bool]], here: bool) -> bool:
        if name == "copy_":
            return self.on_gpu(args[0]) != self.on_gpu(args[1]) and not self.without_wait(args[1], args[2:], kwargs)
        if not here:
            return name in WAITING and any(on_gpu for _, on_gpu in given)
        if name in ("__getitem__", "__setitem__"):
            parts = parts_of(args[1])
            scalar = len(args) > 2 and (not isinstance(args[2], torch.Tensor) or args[2].dim() == 0)
            masks = [part for part in tensors_in(parts) if part.dtype in (torch.bool, torch.uint8)]
            on_host = [part for part in parts if hasattr(part, "__len__") and not isinstance(part, torch.Tensor)]
            on_host += [part for part in tensors_in(parts) if not self.on_gpu(part)]
            on_host += [value for value in tensors_in(args[2:]) if value.dim() and not self.on_gpu(value)]
            numbers = [part for part in tensors_in(parts) if part.dim() == 0]  # an index that is read, as `item` does
            return bool((masks and not scalar) or on_host or numbers)
        if name == "repeat_interleave":
            repeats = args[1] if len(args) > 1 else kwargs.get("repeats", args[0])
            return isinstance(repeats, torch.Tensor) and kwargs.get("output_size") is None
        if name == "where":
            return len(args) == 1
        if name == "isin":  # few values are compared one by one, many are sorted: torch's own limit
            return args[1].numel() >= 10 * args[0].numel() ** 0.145
        return name in WAITING or name in UPLOADING

    def without_wait(self, source: torch.Tensor, rest: Any, kwargs: Any) -> bool:
        """Whether a copy between devices is one that the host need not wait for: of pinned memory, and asked for."""
        return bool(kwargs.get("non_blocking") or True in rest[:1]) and hasattr(source, "is_pinned_here")

    def move(self, name: str, args: Any, kwargs: Any, given: list[tuple[torch.Tensor, bool]]) -> Any:
        """`to`, `cpu` and `cuda`. A copy to another device has a storage of its own."""
        tensor, now = given[0]
        target = {"cpu": CPU, "cuda": CUDA}.get(name)
        if name == "to":
            values = [*args[1:], *kwargs.values()]
            target = next((device for device in map(as_device, values) if device is not None), target)
            target = CUDA if any(on_gpu for _, on_gpu in given[1:]) else CPU if given[1:] else target
            args = [other.dtype if isinstance(other, torch.Tensor) else other for other in args[1:]]
            args = [tensor, *(None if as_device(value) is not None else value for value in args)]
            kwargs = {key: None if as_device(value) is not None else value for key, value in kwargs.items()}
        else:
            args, kwargs = [tensor, None], {}
        then = now if target is None else target.type == "cuda"
        if then != now and not self.without_wait(tensor, [], kwargs):
            self.wait(f"to {'the GPU' if then else 'the CPU'}")
        result = torch.Tensor.to(*args, **kwargs)
        if then != now and result.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            result = result.clone()
        if then:
            self.put(result)
        if self.capturing is not None and now:
            self.capturing.tape.append((torch.Tensor.to, args, kwargs, result))
        return result

    # ------------------------------------------------------------------------------------------------- torch.cuda

    @contextlib.contextmanager
    def capture(self, graph: Graph, *_: Any, **__: Any) -> Iterator[None]:
        """`torch.cuda.graph`."""
        self.wait("capture of a graph")
        self.graphs.append(graph.count)
        self.capturing, self.written, self.before = graph, {}, set(self.places)
        try:
            yield
        finally:
            self.capturing = None
            with torch._C.DisableTorchFunction(), torch.no_grad():
                for tensor in tensors_in([result for *_, result in graph.tape]):  # nothing was computed
                    if tensor.is_floating_point() and storage_of(tensor) not in self.before:
                        tensor.fill_(torch.nan)
                for storage, copy in self.written.values():
                    storage.copy_(copy)
            self.written = {}

    def keep_what_was_there(self, name: str, tensor: torch.Tensor) -> None:
        """Before a call in a capture: copy what it is about to overwrite."""
        if is_in_place(name):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.written:
                self.written[storage._cdata] = (storage, storage.clone())

    def run_backward(self, run: Callable[..., Any], roots: Any, *args: Any, **kwargs: Any) -> Any:
        """A backward pass; what it computes again, from a checkpoint, is held to the rules too, and so is the backward
        function of a library: the gradients that it is given, which C++ has made, are where the roots are."""
        node, here = torch.autograd.function.BackwardCFunction, any(map(self.on_gpu, tensors_in(roots)))
        apply = node.apply
        with self, pytest.MonkeyPatch.context() as patch:
            if here:
                patch.setattr(node, "apply", lambda function, *gradients: apply(function, *self.put(gradients)))
            return run(roots, *args, **kwargs)

    def grouped(self, grouping: Callable[..., Any], *args: Any) -> Any:
        """torch groups tensors by device in C++, where all are on the CPU."""
        groups = {}
        for (device, dtype), (lists, indices) in grouping(*args).items():
            groups[CUDA if self.on_gpu(lists[0][0]) else device, dtype] = (lists, indices)
        return groups


def pretend(monkeypatch: pytest.MonkeyPatch, bfloat16: bool = False) -> PretendedCuda:
    """A device to use in a `with` block, for which `torch.cuda` and what is not called through tensors answer."""
    device = PretendedCuda()
    facts = SimpleNamespace(name="pretended", total_memory=TOTAL, major=8, minor=0, multi_processor_count=1)
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "get_device_name": lambda *_: facts.name,
        "get_device_properties": lambda *_: facts,
        "get_device_capability": lambda *_: (facts.major, facts.minor),
        "is_bf16_supported": lambda including_emulation=True: bfloat16,
        "mem_get_info": lambda *_: (TOTAL - device.allocated(), TOTAL),
        "memory_allocated": device.allocated,
        "memory_reserved": device.allocated,
        "max_memory_allocated": lambda *_: max(device.allocated(), device.peak),
        "max_memory_reserved": lambda *_: max(device.allocated(), device.peak),
        "set_per_process_memory_fraction": device.set_limit,
        "reset_peak_memory_stats": lambda *_: setattr(device, "peak", 0),
        "empty_cache": lambda: None,
        "synchronize": lambda *_: device.wait("synchronize"),
        "is_current_stream_capturing": lambda: device.capturing is not None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda *_: None,
        "CUDAGraph": Graph,
        "graph": device.capture,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch, "Generator", Generator)
    run = torch.autograd._engine_run_backward
    monkeypatch.setattr(torch.autograd, "_engine_run_backward", functools.partial(device.run_backward, run))
    seen = {"default": lambda tensor: (tensor.shape, tensor.dtype)}  # inside a call of torch no tensor is on the GPU
    monkeypatch.setattr(checkpoint, "_allowed_determinism_checks_to_fns", seen)
    grouping = torch._C._group_tensors_by_device_and_dtype
    monkeypatch.setattr(torch._C, "_group_tensors_by_device_and_dtype", functools.partial(device.grouped, grouping))
    return device
