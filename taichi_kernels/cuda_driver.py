"""The few calls of the CUDA driver that load and launch a kernel, through ctypes.

The library is the one that torch has loaded already. Every call works in the primary context of a device, which
is also torch's.
"""

import contextlib
import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_void_p

_Handle = c_void_p
_ARGUMENTS = {
    "cuInit": [c_uint],
    "cuDeviceGet": [POINTER(c_int), c_int],
    "cuDeviceGetAttribute": [POINTER(c_int), c_int, c_int],
    "cuDevicePrimaryCtxRetain": [POINTER(_Handle), c_int],
    "cuCtxGetCurrent": [POINTER(_Handle)],
    "cuCtxPushCurrent_v2": [_Handle],
    "cuCtxPopCurrent_v2": [POINTER(_Handle)],
    "cuModuleLoadDataEx": [POINTER(_Handle), c_char_p, c_uint, POINTER(c_int), POINTER(c_void_p)],
    "cuModuleGetFunction": [POINTER(_Handle), _Handle, c_char_p],
    "cuLaunchKernel": [_Handle, *[c_uint] * 7, _Handle, POINTER(c_char_p), POINTER(c_void_p)],
    "cuGetErrorName": [c_int, POINTER(c_char_p)],
    "cuGetErrorString": [c_int, POINTER(c_char_p)],
}
_N_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_LOG_OPTIONS = (c_int * 2)(5, 6)  # CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
_LOG_SIZE = 4096
_OnePointer = c_char_p * 1


class LoadedFunction:
    """A kernel on one device.

    It stays loaded for the rest of the process, because a captured graph may launch it at any later time.

    Args:
        device_index: torch's number of the device.
        code: PTX.
        entry: name of the kernel in it.
        name: of the kernel, for errors.

    Raises RuntimeError, with the driver's words, if the driver does not take the code.
    """

    def __init__(self, device_index: int, code: str, entry: str, name: str):
        self._purpose = f"launch {name}"
        self._driver = _driver()
        self._context, self.n_multiprocessors = self._driver.device(device_index)
        self._function = self._driver.load(self._context, code, entry, name)

    def launch(self, n_blocks: int, n_threads: int, stream: int, parameter: bytes) -> None:
        """Launch with one parameter, passed by value, on a stream of the device (its handle). Does not wait.

        Raises RuntimeError, with the driver's words, if the driver does not launch; it may also report here that
        an earlier launch has failed.
        """
        pointers = _OnePointer(parameter)  # to the bytes, which the driver copies before it returns
        arguments = (self._function, n_blocks, 1, 1, n_threads, 1, 1, 0, stream, pointers, None)
        if self._driver.current_context() == self._context:  # as a rule; entering one takes as long as the launch
            self._driver.call(self._purpose, "cuLaunchKernel", *arguments)
        else:
            with self._driver.in_context(self._context):
                self._driver.call(self._purpose, "cuLaunchKernel", *arguments)


@functools.cache
def _driver() -> "_Driver":
    return _Driver()


class _Driver:
    def __init__(self) -> None:
        library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        try:
            self._library = ctypes.CDLL(library)
            for name, arguments in _ARGUMENTS.items():
                function = getattr(self._library, name)
                function.argtypes, function.restype = arguments, c_int
        except (OSError, AttributeError) as error:
            raise RuntimeError(f"taichi_kernels: expected the CUDA driver {library}, got: {error}") from error
        self._devices: dict[int, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self.call("start", "cuInit", 0)

    def call(self, purpose: str, function: str, *args: object) -> None:
        """Call a function; RuntimeError if it fails."""
        result = getattr(self._library, function)(*args)
        if result != 0:
            name, text = c_char_p(), c_char_p()
            self._library.cuGetErrorName(result, byref(name))
            self._library.cuGetErrorString(result, byref(text))
            words = ", ".join(part.value.decode(errors="replace") for part in (name, text) if part.value)
            raise RuntimeError(
                f"taichi_kernels: expected the CUDA driver to {purpose}, got error {result} from {function}: "
                f"{words or 'unknown to the driver'}"
            )

    @contextlib.contextmanager
    def in_context(self, context: int) -> Iterator[None]:
        """Make a context current in this thread, where another or none is, and take it back."""
        if self.current_context() == context:
            yield
            return
        self.call("change its context", "cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self.call("change its context", "cuCtxPopCurrent_v2", byref(_Handle()))

    def current_context(self) -> int | None:
        """The context that is current in this thread."""
        context = _Handle()
        self.call("tell its context", "cuCtxGetCurrent", byref(context))
        return context.value

    def device(self, index: int) -> tuple[int, int]:
        """Primary context and number of multiprocessors of a device."""
        with self._lock:
            if index not in self._devices:
                device, context, n_multiprocessors = c_int(), _Handle(), c_int()
                purpose = f"use device {index}"
                self.call(purpose, "cuDeviceGet", byref(device), index)
                self.call(purpose, "cuDevicePrimaryCtxRetain", byref(context), device)
                self.call(purpose, "cuDeviceGetAttribute", byref(n_multiprocessors), _N_MULTIPROCESSORS, device)
                assert context.value is not None
                self._devices[index] = context.value, n_multiprocessors.value
            return self._devices[index]

    def load(self, context: int, code: str, entry: str, name: str) -> int:
        """Handle of a kernel."""
        module, function = _Handle(), _Handle()
        log = ctypes.create_string_buffer(_LOG_SIZE)
        values = (c_void_p * 2)(ctypes.addressof(log), _LOG_SIZE)
        purpose = f"load {name}"
        with self.in_context(context):
            try:
                self.call(purpose, "cuModuleLoadDataEx", byref(module), code.encode(), 2, _LOG_OPTIONS, values)
            except RuntimeError as error:
                said = " ".join(log.value.decode(errors="replace").split())
                raise RuntimeError(
                    f"{error}{said and f'; its assembler says: {said}'}; with TAICHI_KERNELS_CUDA_LAUNCHER=taichi in "
                    "the environment, Taichi launches the kernels"
                ) from None
            self.call(purpose, "cuModuleGetFunction", byref(function), module, entry.encode())
        assert function.value is not None
        return function.value
