"""Start Taichi where the tensors live, quietly, and launch kernels with little overhead.

Every public function of this package calls :func:`start` with the device of its tensors before it
launches. Nothing happens at import: Taichi itself is imported on first use, because its import
prints a banner, changes the warning filters and costs 0.4 s.
"""

import contextlib
import functools
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch

from taichi_kernels import cuda_launcher, ready_made
from taichi_kernels.kernel_cache import StartMark, usable_cache
from taichi_kernels.process_environment import environment, home
from taichi_kernels.ptx import UnsuitableKernel, pass_by_value, ptx_of

_TAICHI_DTYPES = {
    torch.float16: "f16",
    torch.float32: "f32",
    torch.float64: "f64",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.uint8: "u8",
}

# Taichi indexes with int32; on CUDA its loops step past the end by up to a grid of threads.
MAX_ELEMENTS = 2**31 - 2**22

_start_lock = threading.Lock()
_first_launch_lock = threading.Lock()
_compile_lock = threading.Lock()  # Taichi compiles with global state, and other threads may run meanwhile
_forked_after_start = False


class _Session:
    """What is known of the Taichi program that is running; replaced when the host re-initialises."""

    def __init__(self, program: Any, device_type: str, debug: bool):
        # Weak, so that Taichi alone decides when its program ends.
        self.program = weakref.ref(program)
        self.device_type = device_type
        self.device: torch.device | None = None  # the last one that start() accepted
        # kernel -> function that launches it; None: every launch goes through Taichi's public call,
        # which debug mode needs to translate assertion errors.
        self.launchers: dict[Any, Callable[[tuple[Any, ...]], None]] | None = None if debug else {}
        # kernel -> its launch by the CUDA driver, None where Taichi has to launch it; None: Taichi launches all.
        by_driver = device_type == "cuda" and not debug and cuda_launcher.is_switched_on()
        self.driver_kernels: dict[Any, cuda_launcher.DriverKernel | None] | None = {} if by_driver else None
        self.ready_made = ready_made.load(ready_made.options(program.config())) if by_driver else {}

    @functools.cached_property
    def kept_code(self) -> ready_made.KeptCode:
        """Code that earlier processes compiled for device 0, as Taichi does."""
        return ready_made.KeptCode(_running_program().config(), torch.cuda.get_device_capability(0))


_session: _Session | None = None
_start_mark: StartMark | None = None  # until the first launch


@functools.cache
def taichi() -> Any:
    """The taichi module, imported without its banner and with the caller's warning filters kept."""
    with (
        environment(ENABLE_TAICHI_HEADER_PRINT="0", TI_ENABLE_PYBUF="0", **home()),
        warnings.catch_warnings(),
    ):
        # Under `-W error` these would stop the import: locale.getdefaultlocale is deprecated, and from Python 3.12 on
        # compiling Taichi's sources raises a SyntaxWarning for invalid escapes (earlier: a DeprecationWarning).
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        import taichi as ti
    return ti


def array(dtype: torch.dtype) -> Any:
    """Annotation of a flat kernel argument that holds a tensor of `dtype`."""
    return taichi().types.ndarray(dtype=scalar(dtype), ndim=1, needs_grad=False)


def scalar(dtype: torch.dtype) -> Any:
    """The Taichi scalar type of a torch dtype.

    In kernels write constants as ``real(0.5)``: a bare literal has Taichi's default precision,
    float32, also in a float64 kernel.
    """
    return getattr(taichi(), _TAICHI_DTYPES[dtype])


def is_cuda() -> bool:
    """True if Taichi runs on CUDA. Call :func:`start` first."""
    assert _session is not None
    return _session.device_type == "cuda"


def can_capture(device: torch.device) -> bool:
    """Whether the capture of a CUDA graph on `device` may launch kernels. Starts nothing.

    It may where the driver launches them (:mod:`taichi_kernels.cuda_launcher`). Each kernel has to run there once
    before the capture, or its call raises RuntimeError.

    Raises ValueError if the environment variable that chooses the launcher has neither of its values.
    """
    if device.type != "cuda" or not cuda_launcher.is_switched_on():
        return False
    return _session is None or _session.driver_kernels is not None


def start(device: torch.device, name: str = "tensor") -> None:
    """Initialise Taichi for `device`, or check that the running program can take its tensors.

    A program that the host started with ``ti.init`` is used as it is, never re-initialised.

    Args:
        device: where the tensors of the coming launch live.
        name: the argument to name in an error.

    Raises:
        ValueError: the device is not the one Taichi runs on, or one that it can't use.
        RuntimeError: Taichi can't start there, or this process was forked after it started.
    """
    global _session
    if _session is not None and _session_is_current() and device == _session.device and not _forked_after_start:
        return
    if _forked_after_start:
        raise RuntimeError(
            "taichi_kernels: expected a process in which Taichi was started, got one forked from it, "
            "where Taichi's threads do not exist and a launch would hang; start the worker with "
            "multiprocessing.get_context('spawn') (DataLoader: multiprocessing_context='spawn'), "
            "or launch kernels in the parent only"
        )
    if not _session_is_current():
        with _start_lock:
            if _running_program() is None:
                _initialise(device, name)
            program = _running_program()
            _session = _Session(program, _program_device_type(), program.config().debug)
    assert _session is not None
    if _session.device_type not in ("cpu", "cuda"):
        raise RuntimeError(
            f"taichi_kernels: expected Taichi to run on cpu or cuda, got arch={_session.device_type} from this "
            "program's ti.init; use ti.init(arch=ti.cpu) or ti.init(arch=ti.cuda)"
        )
    if device.type != _session.device_type:
        raise ValueError(
            f"{name}: expected a tensor on {_session.device_type}, where Taichi runs in this process, got one on "
            f"{device}; move it with .to('{_session.device_type}'), or use the other device in a process of its own"
        )
    if _session.driver_kernels is None:
        _check_first_device(device, name)
    _session.device = device


def _check_first_device(device: torch.device, name: str) -> None:
    if device.type == "cuda" and device.index not in (0, None):
        raise ValueError(
            f"{name}: expected a tensor on cuda:0, the one device that Taichi uses, got one on {device}; "
            f"set CUDA_VISIBLE_DEVICES={device.index} before the process starts and use cuda:0"
        )


def launch(kernel: Any, *args: Any) -> None:
    """Run a kernel over contiguous tensors (passed flat) and Python numbers.

    Callers have checked dtype, device and contiguity, and called :func:`start` (in a backward pass:
    before the forward pass; the host may have re-initialised Taichi since). A launch through
    Taichi's public call costs about 30 us a tensor in Python, more than many of our kernels run
    for, so after the first one the arguments are handed to the compiled kernel directly. That uses
    private calls of Taichi 1.7; where they are missing the public call serves.

    Raises ValueError if a tensor is larger than int32 indices reach or has no storage, RuntimeError
    inside the capture of a CUDA graph.
    """
    if not _session_is_current():
        start(next(a for a in args if isinstance(a, torch.Tensor)).device)
    assert _session is not None
    if _session.device_type != "cuda":
        _launch_now(kernel, args)
    elif _session.driver_kernels is None or not _launch_by_driver(_session.driver_kernels, kernel, args):
        _launch_on_torch_stream(kernel, args, _launch_now)


def launch_by_taichi(kernel: Any, *args: Any) -> None:
    """:func:`launch` for kernels that the driver can't launch: those that use fields or Taichi's own memory."""
    if not _session_is_current():
        start(next(a for a in args if isinstance(a, torch.Tensor)).device)
    assert _session is not None
    if _session.device_type != "cuda":
        _launch_now(kernel, args)
        return
    _check_first_device(torch.device("cuda", cuda_launcher.device_of(args)), _name(kernel))
    _launch_on_torch_stream(kernel, args, _launch_now)


def _launch_now(kernel, args) -> None:
    global _start_mark
    assert _session is not None
    launchers = _session.launchers
    launcher = None if launchers is None else launchers.get(kernel)
    if launcher is not None:
        launcher(args)
        return
    mark = _start_mark  # which another thread may remove meanwhile
    if mark is not None:
        mark.launching()
    _public_launch(kernel, args)
    if mark is not None:
        mark.remove()
        _start_mark = None
    if launchers is not None:
        with _compile_lock:
            launchers[kernel] = _fast_launcher(kernel, args)


def _public_launch(kernel, args) -> None:
    for a in args:
        if isinstance(a, torch.Tensor):
            _check_launchable(a)
    with _compile_lock:
        kernel(*_flat(args))


def _check_launchable(tensor: torch.Tensor) -> None:
    if tensor.numel() > MAX_ELEMENTS:
        raise ValueError(
            f"taichi_kernels: expected tensors of at most {MAX_ELEMENTS} elements, which 32-bit indices reach, "
            f"got one of shape {list(tensor.shape)} among inputs and results; split the inputs over several calls"
        )
    if tensor.data_ptr() == 0 and tensor.numel() > 0:
        raise ValueError(
            f"taichi_kernels: expected tensors with memory, got one of shape {list(tensor.shape)} without storage; "
            "allocate its storage before the call"
        )


def _flat(args) -> list:
    # Detached: for a tensor that requires a gradient Taichi allocates .grad on it.
    return [a.detach().view(-1) if isinstance(a, torch.Tensor) else a for a in args]


def _launch_on_torch_stream(kernel, args, launch_now) -> None:
    # Taichi launches on device 0's legacy default stream only, and leaves that device current. Work on
    # another stream of torch's has to be ordered with it by hand; on the default one it is already.
    with torch.cuda.device(0):
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "taichi_kernels: expected a launch outside of a CUDA graph, got one while torch captures; "
                "Taichi's launches can't be captured, so leave these calls out of the graph"
            )
        current, default = torch.cuda.current_stream(), torch.cuda.default_stream()
        if current == default:
            launch_now(kernel, args)
            return
        default.wait_stream(current)
        launch_now(kernel, args)
        current.wait_stream(default)


def _launch_by_driver(known: dict[Any, cuda_launcher.DriverKernel | None], kernel, args) -> bool:
    """Launch without Taichi's launcher. Returns False if Taichi has to launch this kernel, and can."""
    if kernel not in known:
        with _first_launch_lock:
            if kernel not in known:
                return _launch_first(known, kernel, args)
    driver_kernel = known[kernel]
    if driver_kernel is None:
        _check_first_device(torch.device("cuda", cuda_launcher.device_of(args)), _name(kernel))
        return False
    driver_kernel.launch(args)
    return True


def _launch_first(known: dict[Any, cuda_launcher.DriverKernel | None], kernel, args) -> bool:
    """Prepare the launches of a kernel by the driver, and launch it. Returns False if Taichi has to."""
    assert _session is not None
    name, device_index = _name(kernel), cuda_launcher.device_of(args)
    cuda_launcher.refuse_in_capture(name, device_index)
    has_run = False
    try:
        layout = cuda_launcher.argument_layout(args, _annotations(kernel))
        code, instance = None, getattr(kernel, "instance", None)  # of kernels that a host program has written: none
        if instance is not None:
            if torch.cuda.get_device_capability(device_index) >= ready_made.OLDEST_CAPABILITY:
                code = _session.ready_made.get(instance)
            code = code or _session.kept_code.load(instance)
        if code is None:
            codes = _compile_by_launch(kernel, args, device_index)
            has_run = True
            if len(codes) != 1:
                raise UnsuitableKernel(f"Taichi wrote {len(codes)} files of code for it")
            code = pass_by_value(codes[0], layout.size)
            if instance is not None:
                _session.kept_code.save(instance, code)
    except UnsuitableKernel as reason:
        known[kernel] = None
        warnings.warn(f"taichi_kernels: {name} is launched by Taichi, because {reason}", RuntimeWarning, stacklevel=2)
        _check_first_device(torch.device("cuda", device_index), name)
        return has_run
    driver_kernel = cuda_launcher.DriverKernel(name, code, layout, MAX_ELEMENTS, _check_launchable)
    driver_kernel.load(device_index)
    known[kernel] = driver_kernel
    if not has_run or device_index != 0:
        driver_kernel.launch(args)
    return True


def _compile_by_launch(kernel, args, device_index: int) -> list[str]:
    """The code of a kernel, which Taichi compiles when it launches it."""
    inputs = args
    if device_index != 0:  # Taichi compiles for device 0 only, where it then computes in vain
        inputs = tuple(a.to("cuda:0") if isinstance(a, torch.Tensor) else a for a in args)
    codes: list[str] = []
    taichi().lang.impl.get_runtime().materialize()  # fields of the host program: only in the thread that it started in

    def compile_and_launch(kernel, args) -> None:
        codes.extend(ptx_of(functools.partial(_launch_now, kernel, args), _running_program().config()))

    _launch_on_torch_stream(kernel, inputs, compile_and_launch)
    return codes


def _name(kernel) -> str:
    return f"{kernel.__module__}.{getattr(kernel, '__name__', type(kernel).__name__)}"


def _annotations(kernel) -> list[Any]:
    """Types of the arguments, by private attributes of Taichi 1.7."""
    try:
        return [argument.annotation for argument in kernel._primal.arguments]
    except AttributeError:
        raise UnsuitableKernel("Taichi does not tell the types of its arguments") from None


def _fast_launcher(kernel, args):
    """A function that launches the instance of `kernel` which the public call has just compiled."""
    program = _running_program()
    try:
        primal = kernel._primal
        instance = primal.compiled_kernels[primal.ensure_compiled(*_flat(args))]
        compiled = program.compile_kernel(program.config(), program.get_device_caps(), instance)
        make_context = instance.make_launch_context
        context_type = type(make_context())
        set_array, set_int, set_float = (
            context_type.set_arg_external_array_with_shape,
            context_type.set_arg_int,
            context_type.set_arg_float,
        )
        reals = (taichi().f16, taichi().f32, taichi().f64)
        setters = [
            ((i,), None if isinstance(a, torch.Tensor) else set_float if argument.annotation in reals else set_int)
            for i, (a, argument) in enumerate(zip(args, primal.arguments, strict=True))
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return functools.partial(_public_launch, kernel)

    def run(args):
        context = make_context()  # a new one each time: a CUDA launch overwrites it
        for a, (index, set_number) in zip(args, setters, strict=True):
            if set_number is not None:
                set_number(context, index, a)
                continue
            n_elements, address = a.numel(), a.data_ptr()
            if n_elements > MAX_ELEMENTS or address == 0:
                _check_launchable(a)
            set_array(context, index, address, a.nbytes, (n_elements,), 0)
        _session.program().launch_kernel(compiled, context)

    return run


def _session_is_current() -> bool:
    if _session is None:
        return False
    program = _session.program()
    return program is not None and program is _running_program()


def _running_program():
    return taichi().lang.impl.get_runtime().prog


def _program_device_type() -> str:
    name = taichi().cfg.arch.name
    return "cpu" if name in ("x64", "arm64") else name


def _initialise(device: torch.device, name: str) -> None:
    global _start_mark
    ti = taichi()
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name}: expected a tensor on cpu or cuda, got one on {device}; move it with .to('cpu')")
    options = {
        "arch": ti.cuda if device.type == "cuda" else ti.cpu,
        "log_level": ti.WARN,
        # No measured gain, and it lets NaN comparisons go either way. CUDA keeps fused multiply-adds,
        # approximate division and flushed denormals all the same.
        "fast_math": False,
        "cpu_max_num_threads": _usable_threads(),
    }
    if "TI_OFFLINE_CACHE_FILE_PATH" not in os.environ:
        options["offline_cache_file_path"] = usable_cache()
        _start_mark = StartMark(options["offline_cache_file_path"])
    if device.type == "cuda":
        # Enough threads to fill the device. By default Taichi launches, and keeps random states for, 32
        # times as many, which takes 170 MB on a large card.
        n_multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
        options |= {"max_block_dim": 128, "saturating_grid_dim": 16 * n_multiprocessors}
    # A TI_<NAME> variable of the user's goes before; Taichi warns when it is given both.
    options = {key: value for key, value in options.items() if f"TI_{key.upper()}" not in os.environ}
    with (
        environment(TI_SKIP_VERSION_CHECK="ON", **home()),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        try:
            ti.init(enable_fallback=False, **options)
            # Sets up what the first launch would, which must happen in the thread that initialised.
            ti.sync()
        except RuntimeError as error:
            raise RuntimeError(
                f"taichi_kernels: expected Taichi to start on {device.type} (for {name}), got: {error}; "
                "check the driver, or move the tensors to the CPU"
            ) from error


def _after_fork_in_child() -> None:
    global _forked_after_start, _start_lock, _first_launch_lock, _compile_lock
    _start_lock, _first_launch_lock, _compile_lock = (
        threading.Lock() for _ in range(3)
    )  # the parent may have held them
    # A worker forked before Taichi runs may start its own; one forked later hangs at its first launch.
    if "taichi" in sys.modules and _running_program() is not None:
        _forked_after_start = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _usable_threads() -> int:
    # Taichi would take every hardware thread, whatever the affinity mask or torch.set_num_threads say.
    if hasattr(os, "sched_getaffinity"):
        return min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
    return torch.get_num_threads()
