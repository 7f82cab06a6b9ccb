"""Launches by the CUDA driver, on a stub of it: arguments, launch dimensions, streams, order and errors."""

import textwrap

import pytest
import torch

from taichi_kernels import cuda_launcher
from taichi_kernels.ptx import UnsuitableKernel, pass_by_value
from tests.cuda_stub import needs_stub, run_on_stub

KERNELS = """
import warnings
import pytest

Floats, Doubles, Ints = (runtime.array(d) for d in (torch.float32, torch.float64, torch.int32))

@ti.kernel
def mixed(n: ti.i32, x: Floats, k: ti.i64, s: ti.f32, y: Doubles, d: ti.f64, z: Ints, u: ti.u32):
    for thread in range(2**18):
        i = thread
        while i < n:
            y[i] = ti.cast(x[i] * s, ti.f64) * d
            z[i] = z[i] + ti.cast(k, ti.i32) + ti.cast(u, ti.i32)
            i += 2**18

@ti.kernel
def one_block(x: Floats, s: ti.f32):
    x[0] = s

@ti.kernel
def with_runtime_bound(n: ti.i32, x: Floats):
    for i in range(n):
        x[i] = 1.0

@ti.kernel
def random(x: Floats):
    for i in range(2**18):
        x[i % 8] = ti.random()

def arguments(n=10):
    tensors = torch.zeros(n), torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.int32)
    return (n, tensors[0], -2**40, 0.5, tensors[1], 1 / 3, tensors[2], 2**32 - 1)

launches = lambda: [event for event in events() if not isinstance(event, str)]
"""


def run(folder, code, **environment):
    environment = {"TAICHI_KERNELS_CUDA_LAUNCHER": "driver"} | environment
    return run_on_stub(folder, textwrap.dedent(KERNELS) + textwrap.dedent(code), **environment)


@needs_stub
def test_driver_gets_what_taichi_gives_it(tmp_path):
    run(
        tmp_path,
        """
        import struct
        args = arguments()
        field = ti.field(ti.f32, 3)  # of the host program, not laid out yet
        runtime.launch(mixed, *args)
        compiled = launches()[-1]  # Taichi's own
        assert len(compiled.parameter) == 32 and compiled.stream == 0
        now.stream = Stream(77)
        runtime.launch(mixed, *args)
        launch, = events()  # and nothing else, such as a copy
        assert launch.entry == compiled.entry and launch.entry.startswith("mixed_c")
        assert (launch.stream, launch.context, launch.shared) == (77, 1, 0)
        assert len(launch.parameter) == len(compiled.buffer) == 88
        n, x, k, s, y, d, z, u = args
        fields = {  # where they are, by hand
            0: ("i", n), 8: ("i", 10), 16: ("Q", x.data_ptr()), 24: ("q", k), 32: ("f", s), 40: ("i", 10),
            48: ("Q", y.data_ptr()), 56: ("d", d), 64: ("i", 10), 72: ("Q", z.data_ptr()), 80: ("I", u),
        }
        for offset, (letter, value) in fields.items():
            for bytes_ in (launch.parameter, compiled.buffer):
                assert struct.unpack_from(letter, bytes_, offset) == (value,), (offset, letter)
        # other values, seen by both
        other = arguments(20)
        runtime._launch_now(mixed, other)
        runtime.launch(mixed, *other)
        by_taichi, by_driver = launches()
        layout = cuda_launcher.argument_layout(other, [a.annotation for a in mixed._primal.arguments])
        assert layout.unpack(by_taichi.buffer) == layout.unpack(by_driver.parameter)
        assert layout.unpack(by_driver.parameter)[1] == 20
        """,
    )
    # The last code is the rewritten one, and reads no buffer.
    (first, second) = (path.read_text() for path in sorted((tmp_path / "ptx").iterdir())[-2:])
    assert "_param_0[32]" in first and "_param_0[88]" in second
    assert second.count("ld.param") == 8 and "cvta.to.global" not in second


@needs_stub
def test_launch_dimensions(tmp_path):
    run(
        tmp_path,
        """
        x = torch.zeros(1)
        for kernel, args in ((mixed, arguments(1)), (one_block, (x, 1.0))):
            runtime.launch(kernel, *args)
        events()
        # The stub has 4 multiprocessors: at least a block on each, at most 2,048 threads.
        for n, blocks in ((1, 4), (512, 4), (513, 5), (8192, 64), (8193, 64), (100_000, 64)):
            runtime.launch(mixed, *arguments(n))
            assert [launch.shape for launch in events()] == [(f"{blocks}x1x1", "128x1x1")], n
        runtime.launch(mixed, *arguments(0))  # no memory, and nothing to do
        assert [launch.shape for launch in events()] == [("4x1x1", "128x1x1")]
        runtime.launch(one_block, torch.zeros(1000), 1.0)
        assert [launch.shape for launch in events()] == [("1x1x1", "1x1x1")]
        """,
    )


@needs_stub
def test_first_launch_is_ordered_with_torch(tmp_path):
    run(
        tmp_path,
        """
        now.stream = Stream(77)
        events()
        runtime.launch(mixed, *arguments())
        compiled = events()
        runtime.launch(mixed, *arguments())
        words = [event for event in compiled if isinstance(event, str) and event.startswith(("wait", "load"))]
        assert words == ["wait 0 77", "load 0001", "wait 77 0", "load 0002"]
        assert not any(isinstance(e, str) for e in events())  # the driver's launch is on the stream itself
        """,
    )


@needs_stub
def test_any_device_and_thread(tmp_path):
    run(
        tmp_path,
        """
        import threading
        torch.Tensor.to = lambda tensor, device: tensor.clone()
        now.device, now.stream = 1, Stream(5)
        runtime.launch(mixed, *arguments())
        by_taichi, by_driver = launches()  # Taichi compiles on device 0
        assert (by_taichi.context, by_taichi.stream, by_taichi.buffer is None) == (1, 0, False)
        assert (by_driver.context, by_driver.stream, by_driver.buffer) == (2, 5, None)
        runtime.launch(mixed, *arguments())
        pushed, launch, popped = events()
        assert (pushed, launch.context, popped) == ("push 0x2", 2, "pop 0x2")
        now.device = 0
        runtime.launch(mixed, *arguments())  # loaded there now
        assert [launch.context for launch in launches()] == [1]
        thread = threading.Thread(target=runtime.launch, args=(mixed, *arguments()))  # which has no context
        thread.start()
        thread.join()
        pushed, launch, popped = events()
        assert (pushed, launch.context, popped) == ("push 0x1", 1, "pop 0x1")
        """,
    )


@needs_stub
def test_capture(tmp_path):
    run(
        tmp_path,
        """
        now.stream = Stream(9)
        now.is_capturing = True
        events()
        with pytest.raises(RuntimeError, match="mixed: expected a kernel that has run on cuda:0 before the capture"):
            runtime.launch(mixed, *arguments())
        assert events() == []
        now.is_capturing = False
        runtime.launch(mixed, *arguments())
        events()
        now.is_capturing = True
        for n in (10, 20, 30):
            runtime.launch(mixed, *arguments(n))
        captured = events()  # launches alone, in order, on the stream that is captured
        assert [(launch.stream, launch.parameter[0]) for launch in captured] == [(9, 10), (9, 20), (9, 30)]
        device = torch.device("cuda")
        assert runtime.can_capture(device) and not runtime.can_capture(torch.device("cpu"))
        now.device = 1
        with pytest.raises(RuntimeError, match="has run on cuda:1 before the capture"):
            runtime.launch(mixed, *arguments())
        """,
    )


@needs_stub
def test_kernels_that_taichi_has_to_launch(tmp_path):
    run(
        tmp_path,
        """
        for kernel, args, reason in (
            (with_runtime_bound, (10, torch.zeros(10)), "Taichi makes 2 CUDA kernels of it"),
            (random, (torch.zeros(8),), "it uses Taichi's runtime"),
        ):
            with pytest.warns(RuntimeWarning, match=f"{kernel.__name__} is launched by Taichi, because {reason}"):
                runtime.launch(kernel, *args)
            n_first = len(launches())
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # said once
                runtime.launch(kernel, *args)
            again = launches()
            assert len(again) == n_first and all(launch.buffer for launch in again)
            now.is_capturing = True
            with pytest.raises(RuntimeError, match="outside of a CUDA graph"):
                runtime.launch(kernel, *args)
            now.is_capturing = False
            now.device = 1
            with pytest.raises(ValueError, match="expected a tensor on cuda:0, the one device that Taichi uses"):
                runtime.launch(kernel, *args)
            now.device = 0
        """,
    )


@needs_stub
def test_errors_of_the_driver(tmp_path):
    run(
        tmp_path,
        """
        runtime.launch(mixed, *arguments())
        os.environ["STUB_FAIL"] = "cuLaunchKernel:719"
        words = r"launch __main__.mixed, got error 719 from cuLaunchKernel: CUDA_ERROR_STUB, asked to fail"
        with pytest.raises(RuntimeError, match=words):
            runtime.launch(mixed, *arguments())
        os.environ["STUB_FAIL"] = "cuModuleLoadDataEx:218"
        now.device = 1
        with pytest.raises(RuntimeError, match="load __main__.mixed, got error 218 from cuModuleLoadDataEx"):
            runtime.launch(mixed, *arguments())
        now.device = 0
        os.environ["STUB_FAIL"] = ""
        with pytest.raises(ValueError, match="mixed: expected numbers that fit their types"):
            runtime.launch(mixed, 2**31, *arguments()[1:])
        runtime.launch(one_block, torch.zeros(1), 1.0)
        empty = torch.zeros(1)
        empty.untyped_storage().resize_(0)
        events()
        with pytest.raises(ValueError, match="expected tensors with memory"):
            runtime.launch(one_block, empty, 1.0)
        with pytest.raises(ValueError, match="expected tensors of at most"):
            runtime.launch(one_block, torch.zeros(1).expand(2**31), 1.0)
        assert events() == []
        """,
    )


@needs_stub
def test_taichi_launches_if_asked(tmp_path):
    run(
        tmp_path,
        """
        for _ in range(2):
            runtime.launch(mixed, *arguments())
        assert not runtime.can_capture(torch.device("cuda"))
        assert all(launch.buffer is not None and len(launch.parameter) == 32 for launch in launches())
        """,
        TAICHI_KERNELS_CUDA_LAUNCHER="taichi",
    )


def test_switch(monkeypatch):
    monkeypatch.delenv(cuda_launcher.SWITCH, raising=False)
    assert cuda_launcher.is_switched_on()
    for value, is_on in (("driver", True), ("taichi", False), ("", True)):
        monkeypatch.setenv(cuda_launcher.SWITCH, value)
        assert cuda_launcher.is_switched_on() == is_on
    monkeypatch.setenv(cuda_launcher.SWITCH, "on")
    with pytest.raises(ValueError, match="expected driver or taichi, got 'on'"):
        cuda_launcher.is_switched_on()


PTX = """
.version 7.1
.target sm_86
.visible .entry k_range_for(
	.param .align 8 .b8 k_range_for_param_0[32]
)
.maxntid 128, 1, 1
{
	ld.param.u64 	%rd1, [k_range_for_param_0];
	cvta.to.global.u64 	%rd2, %rd1;
	mov.u32 	%r1, %ctaid.x;
	mov.u32 	%r2, %nctaid.x;
	ld.global.u64 	%rd3, [%rd2+8];
	@%p1 ld.global.v2.u32 	{%r3, %r4}, [%rd2];
	add.s64 	%rd20, %rd2, 16;
	ld.global.u32 	%r5, [%rd20+-8];
	st.global.u32 	[%rd3], %r3;
	ret;
}
"""


def test_loads_of_arguments_become_loads_of_the_parameter():
    code = pass_by_value(PTX, 24)
    assert (code.entry, code.n_threads, code.is_loop) == ("k_range_for", 128, True)
    expected = PTX.replace("align 8", "align 16").replace("[32]", "[24]")
    expected = expected.replace(
        "	ld.param.u64 	%rd1, [k_range_for_param_0];\n	cvta.to.global.u64 	%rd2, %rd1;\n", ""
    )
    expected = expected.replace("ld.global.u64 	%rd3, [%rd2+8]", "ld.param.u64 	%rd3, [k_range_for_param_0+8]")
    expected = expected.replace(
        "ld.global.v2.u32 	{%r3, %r4}, [%rd2]", "ld.param.v2.u32 	{%r3, %r4}, [k_range_for_param_0+0]"
    )
    expected = expected.replace("	add.s64 	%rd20, %rd2, 16;\n", "")
    expected = expected.replace("ld.global.u32 	%r5, [%rd20+-8]", "ld.param.u32 	%r5, [k_range_for_param_0+8]")
    assert code.text.split("\n") == expected.split("\n")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("st.global.u32 	[%rd3]", "st.global.u32 	[%rd2]"), "does more with its arguments than load them"),
        (
            ("mov.u32 	%r2, %nctaid.x", "add.s64 	%rd9, %rd2, %rd8"),
            "does not stride|does more with its arguments",
        ),
        (("ret;", "add.s64 	%rd9, %rd2, %rd8;"), "does more with its arguments than load them"),
        (("ret;", "add.s64 	%rd20, %rd2, 8;"), "does more with its arguments than load them"),
        (("ld.global.u64 	%rd3", "ld.global.u64 	%rd2"), "does more with its arguments than load them"),
        (("ret;", "ld.param.u64 	%rd7, [k_range_for_param_0+8];"), "uses Taichi's runtime"),
        (
            ("ret;", "mov.b64 	%rd7, k_range_for_param_0;\n	ld.param.u64 	%rd8, [%rd7+24];"),
            "uses Taichi's runtime",
        ),
        ((".visible .entry k", ".extern .func vprintf;\n.visible .entry k"), "calls functions of the driver"),
        ((".maxntid 128", ".minntid 128"), "does not look like that of Taichi"),
        (("%nctaid.x", "%laneid"), "does not stride by the size of the launch"),
        (("ret;", "ret; }\n.visible .entry other() {"), "makes 2 CUDA kernels"),
    ],
)
def test_code_that_does_more_is_refused(change, reason):
    assert change[0] in PTX
    with pytest.raises(UnsuitableKernel, match=reason):
        pass_by_value(PTX.replace(*change), 24)


def test_arguments_of_other_kinds_are_refused():
    class Annotation:
        ndim, needs_grad = 2, False

        def to_string(self):
            return "f16"

    for argument in (torch.zeros(1), 1.0):
        with pytest.raises(UnsuitableKernel):
            cuda_launcher.argument_layout([argument], [Annotation()])
