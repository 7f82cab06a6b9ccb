"""Starting Taichi: silently, once, on the right device, beside a host program that has its own.

Each case is a process of its own, since Taichi's state is global.
"""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from taichi_kernels import GridConfig, frequency_encode, grid_encode, morton_encode, runtime

ROOT = Path(__file__).resolve().parents[1]

LAUNCH = """
import torch
import taichi_kernels as tk
x = torch.tensor([[0.5, 1.0]])
assert torch.allclose(tk.frequency_encode(x, 1), torch.cat((x, x.sin(), x.cos()), 1))
"""


@pytest.fixture
def run(tmp_path):
    """Run Python code in a new process, from a file since Taichi reads its kernels' sources."""

    def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(code))
        ti_free = {k: v for k, v in os.environ.items() if not k.startswith("TI_")}
        result = subprocess.run(
            [sys.executable, *arguments, str(script)],
            env=ti_free | {"PYTHONPATH": str(ROOT)} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    return run


def test_import_has_no_side_effect(run, tmp_path):
    result = run(
        """
        import os, signal, sys, threading, warnings
        import torch
        def state():
            return (dict(os.environ), list(warnings.filters), threading.active_count(), torch.get_num_threads(),
                    [signal.getsignal(s) for s in signal.valid_signals()], sys.stdout, sys.getrecursionlimit())
        before = state()
        import taichi_kernels
        assert state() == before
        assert "taichi" not in sys.modules
        """,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert result.stdout == result.stderr == ""
    assert not (tmp_path / "cache").exists()


def test_first_launch_is_silent_and_leaves_the_process_as_it_was(run):
    result = run(
        """
        import os, threading, warnings
        import torch
        before = dict(os.environ), list(warnings.filters), threading.active_count()
        """
        + textwrap.indent(LAUNCH, " " * 8)
        + """
        assert (dict(os.environ), list(warnings.filters), threading.active_count()) == before  # no phone-home thread
        """
    )
    assert result.stdout == result.stderr == ""


def test_collection_of_the_tests_starts_nothing(run):
    run(
        f"""
        import sys
        import pytest
        options = ["--collect-only", "-qq", "--device", "cuda", "-p", "no:cacheprovider"]
        folders = [f'{ROOT}/tests/{{name}}' for name in ("kernels", "compat", "portrait")]
        assert pytest.main([*options, *folders]) == 0
        assert "taichi" not in sys.modules
        """
    )


def test_warnings_as_errors(run):
    run(LAUNCH, "-W", "error")


def test_warnings_of_taichis_sources_are_no_errors(run, tmp_path):
    # Python 3.12 raises a SyntaxWarning for Taichi's invalid escapes where no bytecode is cached.
    (tmp_path / "taichi.py").write_text("import warnings; warnings.warn('invalid escape sequence', SyntaxWarning)")
    run("from taichi_kernels import runtime; runtime.taichi()", "-W", "error")


def test_host_program_keeps_its_taichi(run):
    run(
        """
        import taichi as ti
        ti.init(arch=ti.cpu, default_fp=ti.f64, default_ip=ti.i64, random_seed=5, cpu_max_num_threads=1)
        field = ti.field(ti.f32, 3)
        field.fill(7.0)
        program = ti.lang.impl.get_runtime().prog
        """
        + textwrap.indent(LAUNCH, " " * 8)
        + """
        assert ti.lang.impl.get_runtime().prog is program
        assert field.to_numpy().tolist() == [7, 7, 7]
        assert ti.cfg.cpu_max_num_threads == 1
        rays_o, rays_d = torch.tensor([[0.0, 3.2, 0.0]]), torch.tensor([[0.0, -1.0, 0.0]])
        near, far = tk.intersect_aabb(rays_o, rays_d, (-1, -0.5, -1, 1, 0.5, 1))
        full = torch.full((128**3 // 8,), 255, dtype=torch.uint8)
        assert tk.march_rays(rays_o, rays_d, near, far, full, max_steps=16).packed_info.tolist() == [[0, 16]]
        """
    )


def test_host_program_re_initialises(run):
    run(
        LAUNCH
        + """
import taichi as ti
for _ in range(3):
    ti.init(arch=ti.cpu, log_level=ti.ERROR)
    for _ in range(3):
        assert torch.allclose(tk.frequency_encode(x, 1), torch.cat((x, x.sin(), x.cos()), 1))
"""
    )


def test_host_program_re_initialises_between_forward_and_backward(run):
    run(
        LAUNCH
        + """
import taichi as ti
y = torch.ones(3, 2, requires_grad=True)
for _ in range(3):
    z = tk.frequency_encode(y, 1)
    ti.init(arch=ti.cpu, log_level=ti.ERROR)
    (grad,) = torch.autograd.grad(z.sum(), y)
    assert torch.allclose(grad, 1 + y.cos() - y.sin())
    z = tk.frequency_encode(y, 1)
    ti.reset()
    (grad,) = torch.autograd.grad(z.sum(), y)
    assert torch.allclose(grad, 1 + y.cos() - y.sin())
"""
    )


def test_host_program_on_an_arch_without_tensors(run):
    run(
        """
        import torch
        import taichi_kernels as tk
        from taichi_kernels import runtime
        runtime._program_device_type = lambda: "vulkan"
        try:
            tk.frequency_encode(torch.zeros(1, 1), 1)
        except RuntimeError as error:
            assert "got arch=vulkan from this program's ti.init; use ti.init(arch=ti.cpu)" in str(error)
        else:
            raise AssertionError
        """
    )


def test_host_program_on_another_arch(run):
    run(
        """
        import torch
        import taichi_kernels as tk
        from taichi_kernels import runtime
        runtime._program_device_type = lambda: "cuda"  # as after the host's ti.init(arch=ti.cuda)
        try:
            tk.frequency_encode(torch.zeros(1, 1), 1)
        except ValueError as error:
            assert str(error) == (
                "x: expected a tensor on cuda, where Taichi runs in this process, got one on cpu; "
                "move it with .to('cuda'), or use the other device in a process of its own")
        else:
            raise AssertionError
        """
    )


def test_device_that_taichi_cannot_use(run):
    run(
        """
        import torch
        from taichi_kernels import runtime
        try:
            runtime.start(torch.device("mps"), "x")
        except ValueError as error:
            assert str(error) == "x: expected a tensor on cpu or cuda, got one on mps; move it with .to('cpu')"
        else:
            raise AssertionError
        runtime.start(torch.device("cpu"), "x")
        """
    )


def test_unwritable_cache_folder(run):
    result = run(LAUNCH, XDG_CACHE_HOME=os.devnull + "/no")
    assert result.stdout == result.stderr == ""


@pytest.mark.parametrize("home", ["user database", "nowhere", "empty"])
def test_process_without_home(run, home):
    remove = "import os, pwd; os.environ.pop('HOME', None); os.environ.pop('XDG_CACHE_HOME', None)"
    if home == "nowhere":  # a user that the database does not know, as in some containers
        remove += "; pwd.getpwuid = lambda uid: {}[uid]"
    if home == "empty":
        remove += "; os.environ['HOME'] = ''"
    result = run(f"{remove}; before = dict(os.environ)\n{LAUNCH}assert dict(os.environ) == before")
    assert result.stdout == result.stderr == ""


def test_tensors_without_storage_are_an_error(run):
    run(
        """
        import torch
        import taichi_kernels as tk
        for _ in range(2):  # the first launch of a kernel and later ones take different paths
            x = torch.rand(4, 3)
            x.untyped_storage().resize_(0)
            try:
                tk.frequency_encode(x, 2)
            except ValueError as error:
                assert "expected tensors with memory, got one of shape [4, 3] without storage" in str(error)
            else:
                raise AssertionError
            tk.frequency_encode(torch.rand(0, 3), 2)
            tk.frequency_encode(torch.rand(4, 3), 2)
        """
    )


def test_threads_follow_torch_and_affinity(run):
    code = LAUNCH + "import os, taichi as ti; print(ti.cfg.cpu_max_num_threads)"
    assert run("import torch; torch.set_num_threads(1)\n" + code).stdout.strip() == "1"
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert run(pinned + code).stdout.strip() == "1"
    assert run(code, TI_CPU_MAX_NUM_THREADS="3").stdout.strip() == "3"


def test_dataloader_workers_of_a_parent_that_launched(run):
    run(
        """
        import torch
        import taichi_kernels as tk

        class Points(torch.utils.data.Dataset):
            def __len__(self):
                return 8
            def __getitem__(self, i):
                return torch.full((4, 2), float(i))

        if __name__ == "__main__":
            tk.frequency_encode(torch.zeros(3, 2), 2)
            for batch in torch.utils.data.DataLoader(Points(), batch_size=2, num_workers=2):
                tk.frequency_encode(batch.reshape(-1, 2), 2)
        """
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("owner", ["ours", "host's"])
def test_a_launch_after_fork_says_what_to_do(run, owner):
    start = "tk.frequency_encode(torch.zeros(1, 1), 1)" if owner == "ours" else "import taichi; taichi.init()"
    result = run(
        f"""
        import multiprocessing, torch
        import taichi_kernels as tk
        def work():
            try:
                tk.frequency_encode(torch.zeros(1, 1), 1)
            except RuntimeError as error:
                print(error)
        if __name__ == "__main__":
            {start}
            worker = multiprocessing.get_context("fork").Process(target=work)
            worker.start()
            worker.join(60)
            assert worker.exitcode == 0, worker.exitcode
        """
    )
    assert "got one forked from it" in result.stdout and "multiprocessing.get_context('spawn')" in result.stdout


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_started_before_or_by_spawn_can_launch(run, method):
    launch_first = "tk.frequency_encode(torch.zeros(1, 1), 1)" if method == "spawn" else "pass"
    run(
        f"""
        import multiprocessing, torch
        import taichi_kernels as tk
        def work():
            tk.frequency_encode(torch.zeros(1, 1), 1)
        if __name__ == "__main__":
            {launch_first}
            worker = multiprocessing.get_context("{method}").Process(target=work)
            worker.start()
            worker.join(60)
            assert worker.exitcode == 0, worker.exitcode
        """
    )


@pytest.mark.parametrize("debug", ["0", "1"])
def test_threads_compile_and_launch_at_once(run, debug):
    run(
        """
        import sys, threading
        import torch
        import taichi_kernels as tk
        sys.setswitchinterval(1e-6)  # threads change places as often as they can

        def work():
            barrier.wait()
            y = torch.ones(100, 2, requires_grad=True)
            for _ in range(20):
                tk.frequency_encode(y, 3).sum().backward()
                tk.morton_encode(torch.zeros(5, 3, dtype=torch.int32))
            results.append(y.grad)

        results, barrier = [], threading.Barrier(4)
        threads = [threading.Thread(target=work) for _ in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert len(results) == 4 and all(torch.equal(r, results[0]) for r in results)
        """,
        TI_DEBUG=debug,
    )


def test_fast_launch_gives_the_same_as_the_public_call(device, monkeypatch):
    config = GridConfig(2, 6, 8, 128, 10, 2)
    positions = (torch.rand(3000, 2, device=device) * 2 - 1).requires_grad_()
    table = torch.randn(config.n_entries, 2, device=device).requires_grad_()
    cells = torch.randint(0, 1024, (3000, 3), dtype=torch.int32, device=device)
    upstream = torch.randn(3000, config.n_outputs, device=device)

    def results():
        features = grid_encode(positions, table, config, bound=1.25)
        grads = torch.autograd.grad(features, (positions, table), upstream)
        return [features, *grads, frequency_encode(positions, 3), morton_encode(cells)]

    results()  # compiles: the first launch of a kernel goes through the public call
    debug = runtime._session.launchers is None
    fast = results()
    assert debug or len(runtime._session.launchers) >= 5
    monkeypatch.setattr(runtime._session, "launchers", None)
    slow = results()
    for a, b in zip(fast, slow, strict=True):
        if device.type == "cpu":
            assert torch.equal(a, b)
        else:
            torch.testing.assert_close(a, b)
    assert positions.grad is None and table.grad is None


def test_without_the_private_calls_the_public_one_serves(device, monkeypatch):
    x = torch.randn(10, 2, device=device)
    expected = frequency_encode(x, 2)
    monkeypatch.setattr(runtime._session, "launchers", {})
    kernel_type = type("Kernel", (), {"__call__": lambda self, *a: None})  # has no _primal
    with pytest.warns(RuntimeWarning) if runtime.can_capture(device) else contextlib.nullcontext():
        runtime.launch(kernel_type(), x, 3)
    assert torch.equal(frequency_encode(x, 2), expected)
    (launcher,) = (v for k, v in runtime._session.launchers.items() if isinstance(k, kernel_type))
    launcher((x, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_side_stream_is_ordered(device):
    if device.type != "cuda":
        pytest.skip("run with --device cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.zeros(2_000_000, 2, device=device)
        frequency_encode(x, 1)
        torch.cuda._sleep(50_000_000)  # the launch has to wait for what comes before it on this stream ...
        x.fill_(3.0)
        torch.cuda.default_stream().synchronize()
        y = frequency_encode(x, 1)
        x.fill_(5.0)  # ... and what comes after has to wait for the launch
        assert (y[:, :2] == 3).all()


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
@pytest.mark.parametrize("locked", [False, True])
def test_damaged_cache_is_put_aside(run, tmp_path, locked):
    # The sizes in its index claim more than there is memory: Taichi aborts, in some runs before it removes its lock.
    code = """
    import torch
    from taichi_kernels import morton_encode, runtime
    morton_encode(torch.zeros(1, 3, dtype=torch.int32))
    runtime.taichi().reset()
    """
    folder = tmp_path / "taichi"
    run(code, XDG_CACHE_HOME=str(tmp_path))
    assert [path.name for path in folder.iterdir()] == ["ticache"], "no mark is left"
    index = next((folder / "ticache").glob("*.tcb"))
    index.write_bytes(index.read_bytes()[:20] + b"\xff" * 4 + index.read_bytes()[24:])
    with pytest.raises(AssertionError):
        run(code, XDG_CACHE_HOME=str(tmp_path))
    if locked:
        (folder / "ticache" / "ticache.lock").touch()
    assert "damaged, renamed" in run(code, XDG_CACHE_HOME=str(tmp_path)).stderr
    assert run(code, XDG_CACHE_HOME=str(tmp_path)).stderr == ""
    assert sorted(path.name for path in folder.iterdir()) == ["ticache", "ticache.damaged"]


@pytest.mark.parametrize(("age", "kept"), [(3600.0, False), (0.0, True)])
def test_old_lock_of_the_cache_is_removed(run, tmp_path, age, kept):
    code = """
    import torch
    from taichi_kernels import morton_encode, runtime
    morton_encode(torch.zeros(1, 3, dtype=torch.int32))
    runtime.taichi().reset()
    """
    lock = tmp_path / "taichi" / "ticache" / "ticache.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (time.time() - age,) * 2)
    run(code, XDG_CACHE_HOME=str(tmp_path))
    assert lock.exists() == kept
    assert any(lock.parent.glob("*.tic")) != kept, "kernels are saved where no other process holds the lock"
