"""The ops as torch operators: contracts checked by torch, tensors without memory, tracing, autocast."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import taichi_kernels as tk
from taichi_kernels import reference
from taichi_kernels.checks import ArgumentCheck
from tests.kernels.scene import random_rays, shell_bitfield

OPERATORS = torch.ops.taichi_kernels
CONFIG = tk.GridConfig(2, 2, 3, 7, 5, 2, interpolation="smoothstep")


def grid_arguments(*axes):
    return (
        *(CONFIG.n_dims, axes, CONFIG.level_offsets, CONFIG.level_scales),
        *(CONFIG.n_features, CONFIG.kind, CONFIG.interpolation, CONFIG.align_corners, 1.25),
    )


def operator_arguments(name, n, dtype, device):
    """Arguments of the operator `name` for n points, directions, cells or rays; differentiable where it is."""

    def new(*shape):
        return torch.rand(*shape, dtype=dtype, device=device) * 2 - 1

    def leaf(*shape):
        return new(*shape).requires_grad_()

    def integers(*shape):
        return torch.randint(0, 8, shape, dtype=torch.int32, device=device)

    counts = torch.arange(n, dtype=torch.int32, device=device)
    info = torch.stack((counts.cumsum(0).int() - counts, counts), 1)
    m = int(counts.sum())
    ids = torch.arange(n, dtype=torch.int32, device=device)
    twos = torch.full_like(ids, 2)
    samples = (new(m).abs(), new(m).abs(), new(m, 3), new(m, 2))
    sums = (new(n, 3), new(n, 2), new(n).abs())
    grid, planes = grid_arguments(0, 1), grid_arguments(0, 1, 1, 2, 0, 2)
    table = (CONFIG.n_entries, 2)
    rays = random_rays(n, device, dtype)
    codes = torch.randint(0, 6, (4, 4, 4), dtype=torch.int32, device=device)
    corners = (new(2, 3, 3, 3), torch.zeros(2, 3, 3, 3, 1, 3, dtype=torch.uint8, device=device), new(1, 3), new(3))
    box = torch.tensor((-1, -1, -1, 1, 1, 1), dtype=dtype, device=device)
    blocks = torch.zeros(n, 3, dtype=torch.int32, device=device)
    steps = (1.0, 32, 1, 0.0, 2 * 3**0.5 / 32, 2 * 3**0.5 / 32, 8)
    return {
        "frequency_encode": (leaf(n, 2), 3),
        "frequency_encode_backward": (leaf(n, 14), leaf(n, 14), 2, 3),
        "spherical_harmonics": (leaf(n, 3), 3),
        "spherical_harmonics_backward": (leaf(n, 3), leaf(n, 9), 3),
        "spherical_harmonics_second_backward": (new(n, 3), new(n, 9), new(n, 3), 3),
        "grid_encode": (leaf(n, 2), leaf(*table), *grid),
        "triplane_encode": (leaf(n, 3), leaf(3, CONFIG.n_entries, 2), *planes),
        "grid_grad_positions": (leaf(n, 2), leaf(*table), leaf(n, 4), *grid),
        "grid_grad_tables": (leaf(n, 2), leaf(n, 4), table, dtype, *grid),
        "grid_encode_along": (new(n, 2), new(*table), new(n, 2), *grid),
        "grid_grad_positions_along": (new(n, 2), new(*table), new(n, 4), new(n, 2), *grid),
        "grid_grad_tables_along": (new(n, 2), new(n, 4), new(n, 2), table, dtype, *grid),
        "morton_encode": (integers(n, 3),),
        "morton_decode": (integers(n),),
        "dilate_density": (new(n, 64),),
        "pack_bits": (new(n, 64), new(1)[0]),
        "intersect_aabb": (*rays[:2], None, (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0), 0.05),
        "march_rays": (
            *(x.clone().requires_grad_() for x in rays[:2]),
            *(*rays[2:], new(n).abs()),
            *(shell_bitfield(device), None, *steps),
        ),
        "march_rays_backward": (new(m, 3), new(m, 3), new(m), info),
        "composite": (leaf(m), samples[1], leaf(m, 3), leaf(m, 2), info, 1e-4),
        "composite_backward": (*samples[:3], info, *sums[::2], *sums, 1e-4),
        "find_samples_": (
            *(new(n, 2), *rays[:2], new(12), torch.zeros(32**3, dtype=torch.uint8, device=device)),
            *(ids, 2, True, 0.05, *steps),
        ),
        "locate_samples": (*rays[:2], new(n, 2), ids, 2 * ids, twos, 2 * n, 1.0),
        "blend_samples_": (new(n, 8), new(6, 2 * n).abs(), new(n, 2), ids, 2 * ids, twos, 1e-4, *steps[3:6]),
        "march_baked_grid": (
            *(
                torch.eye(4, dtype=dtype, device=device),
                codes,
                *corners,
                box,
                blocks,
                4.0,
                4.0,
                2.0,
                2.0,
                4,
                max(n, 1),
                1.0,
            ),
            *(0.0, 0.8, 0.8, 0.05, 1e-4, 8),
        ),
        "composite_baked": (new(4, m), *samples[:2], info, new(n, 5), new(m, 5), True, 1e-4),
        "place_in_tiles": (new(n, 3), integers(3, 5, 5) * 0, 3, 1.0),
        "show_layers": (
            *(torch.zeros(n, 4, dtype=torch.uint8, device=device), new(n, 3), ids[:n]),
            *(new(n, 3), new(n)),
        ),
        "accumulate_": (*sums, counts, *samples, info, 1e-4),
    }[name]


IN_PLACE = ("accumulate_", "blend_samples_", "find_samples_")
NAMES = (
    *IN_PLACE,
    *("composite", "composite_backward", "composite_baked", "dilate_density"),
    *("frequency_encode", "frequency_encode_backward"),
    *("grid_encode", "grid_encode_along", "grid_grad_positions", "grid_grad_positions_along"),
    *("grid_grad_tables", "grid_grad_tables_along", "intersect_aabb", "locate_samples", "march_baked_grid"),
    "march_rays",
    *(
        "march_rays_backward",
        "morton_decode",
        "morton_encode",
        "pack_bits",
        "place_in_tiles",
        "show_layers",
        "spherical_harmonics",
    ),
    *("spherical_harmonics_backward", "spherical_harmonics_second_backward", "triplane_encode"),
)


def test_every_operator_is_tested():
    registered = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if "taichi_kernels::" in name}
    assert registered == set(NAMES)


@pytest.mark.parametrize(("n", "dtype"), [(5, torch.float32), (0, torch.float64)])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name, n, dtype, device):
    torch.library.opcheck(getattr(OPERATORS, name).default, operator_arguments(name, n, dtype, device))


def test_opcheck_of_a_box_on_the_device(device):
    rays_o, rays_d, *_ = random_rays(5, device)
    box = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], device=device)
    torch.library.opcheck(OPERATORS.intersect_aabb.default, (rays_o, rays_d, box, (), 0.05))


@pytest.mark.parametrize(("n", "capacity"), [(5, 30), (5, 1), (5, 0), (0, 3)])
def test_opcheck_of_a_march_with_a_capacity(n, capacity, device):
    arguments = list(operator_arguments("march_rays", n, torch.float32, device))
    names = [argument.name for argument in OPERATORS.march_rays.default._schema.arguments]
    arguments[names.index("capacity")] = capacity
    torch.library.opcheck(OPERATORS.march_rays.default, tuple(arguments))


@pytest.mark.parametrize("name", ["triplane_encode", "grid_grad_tables", "grid_grad_tables_along"])
def test_opcheck_of_float16_tables(name, device):
    arguments = list(operator_arguments(name, 5, torch.float32, device))
    schema = getattr(OPERATORS, name).default._schema
    for i, argument in enumerate(schema.arguments):
        if argument.name in ("table", "tables", "grad_features"):
            arguments[i] = arguments[i].detach().half().requires_grad_(arguments[i].requires_grad)
        if argument.name == "dtype":
            arguments[i] = torch.float16
    torch.library.opcheck(getattr(OPERATORS, name).default, tuple(arguments))


@pytest.mark.parametrize("name", NAMES)
def test_operators_take_any_memory_layout(name, device):
    arguments = operator_arguments(name, 5, torch.float32, device)
    operator = getattr(OPERATORS, name)
    with torch.no_grad():
        spread = [
            torch.stack((a, a), -1)[..., 0] if isinstance(a, torch.Tensor) and name not in IN_PLACE else a
            for a in arguments
        ]
        expected, results = operator(*arguments), operator(*spread)
        if name in IN_PLACE:
            columns = torch.stack((arguments[0], arguments[0]), -1)[..., 0]
            with pytest.raises(ValueError, match="expected contiguous tensors to write to, got strides"):
                operator(columns, *arguments[1:])
    for a, b in zip(_as_list(results), _as_list(expected), strict=True):
        if name not in IN_PLACE:
            torch.testing.assert_close(a, b)


def _as_list(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def public_calls(device, dtype=torch.float32):
    """Public ops on tensors made when called, so that a mode can replace them."""

    def new(*shape):
        return torch.rand(*shape, device=device, dtype=dtype)

    def zeros(*shape):
        return torch.zeros(*shape, device=device, dtype=torch.int32)

    box, bits = (-1, -1, -1, 1, 1, 1), torch.zeros(512 // 8, dtype=torch.uint8, device=device)
    return {
        "frequency_encode": lambda: tk.frequency_encode(new(4, 3), 2),
        "spherical_harmonics": lambda: tk.spherical_harmonics(new(4, 3), 3),
        "grid_encode": lambda: tk.grid_encode(new(4, 2), new(CONFIG.n_entries, 2), CONFIG),
        "triplane_encode": lambda: tk.triplane_encode(new(4, 3), new(3, CONFIG.n_entries, 2), CONFIG),
        "morton_encode": lambda: tk.morton_encode(zeros(4, 3)),
        "morton_decode": lambda: tk.morton_decode(zeros(4)),
        "cell_centers": lambda: tk.cell_centers(4, device=device),
        "dilate_density": lambda: tk.dilate_density(new(2, 64)),
        "pack_bits": lambda: tk.pack_bits(new(2, 64), 0.5),
        "pack_bits with a tensor": lambda: tk.pack_bits(new(2, 64), new(1)[0]),
        "intersect_aabb": lambda: tk.intersect_aabb(new(4, 3), new(4, 3), box),
        "intersect_aabb with a tensor": lambda: tk.intersect_aabb(new(4, 3), new(4, 3), new(6)),
        "march_rays": lambda: tk.march_rays(new(4, 3), new(4, 3), new(4), new(4), bits),
        "march_rays with a capacity": lambda: tk.march_rays(new(4, 3), new(4, 3), new(4), new(4), bits, capacity=9),
        "composite": lambda: tk.composite(new(4), new(4), new(4, 3), None, zeros(2, 2)),
        "accumulate_": lambda: tk.accumulate_(
            tk.CompositedRays(new(5, 3), new(5, 0), new(5)), zeros(2), new(4), new(4), new(4, 3), None, zeros(2, 2)
        ),
    }


@pytest.mark.parametrize("name", sorted(set(public_calls("cpu")) - {"march_rays"}))
def test_fake_and_meta_tensors_have_the_shapes_of_results(name, device):
    expected = _as_list(public_calls(device)[name]())
    meta = _as_list(public_calls("meta")[name]())
    with FakeTensorMode():
        fake = _as_list(public_calls(device)[name]())
    assert {x.device.type for x in meta} == {"meta"} and {x.device.type for x in fake} == {device.type}
    for results in (fake, meta):
        for result, x in zip(results, expected, strict=True):
            assert (result.shape, result.dtype) == (x.shape, x.dtype)
            # The meta device stands for none in particular, and some results are channel-major on CUDA alone.
            if results is fake or device.type == "cpu":
                assert result.stride() == x.stride()


def test_fake_harmonics_on_cuda_are_channel_major():
    mode = FakeTensorMode()
    with mode:
        directions = FakeTensor(mode, torch.empty(4, 3, device="meta"), torch.device("cuda", 0))
        harmonics = tk.spherical_harmonics(directions, 3)
    assert harmonics.device == directions.device and harmonics.stride() == (1, 4)


def test_fake_march_has_a_symbolic_number_of_samples(device):
    with FakeTensorMode(shape_env=ShapeEnv()):
        samples = public_calls(device)["march_rays"]()
    assert isinstance(samples.ts.shape[0], torch.SymInt)
    assert samples.positions.shape[1] == 3 and samples.packed_info.shape == (4, 2)
    with pytest.raises(RuntimeError, match="Meta Tensors don't support operators with outputs that have"):
        public_calls("meta")["march_rays"]()


def test_checks_work_on_fake_tensors(device):
    with FakeTensorMode():
        with pytest.raises(ValueError, match=r"x: expected shape \[N, D\], got \[3\]"):
            tk.frequency_encode(torch.rand(3, device=device), 2)
        with pytest.raises(ValueError, match="directions: expected dtype float32 or float64, got int64"):
            tk.spherical_harmonics(torch.zeros(4, 3, dtype=torch.int64, device=device), 2)


def test_no_gradient_is_left_out_silently(device):
    sigmas, deltas, weighted, summed, info, threshold = operator_arguments("composite", 4, torch.float32, device)
    results = OPERATORS.composite(sigmas, deltas.requires_grad_(), weighted, summed, info, threshold)
    with pytest.raises(RuntimeError, match="expected argument 1 without requires_grad"):
        results[0].sum().backward()
    rays = [x.requires_grad_() for x in operator_arguments("intersect_aabb", 4, torch.float32, device)[:2]]
    t_near, _ = OPERATORS.intersect_aabb(*rays, None, (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0), 0.05)
    with pytest.raises(RuntimeError, match="expected argument 0 without requires_grad"):
        t_near.sum().backward()


def test_in_place_accumulation_is_seen_by_autograd(device):
    arguments = operator_arguments("accumulate_", 4, torch.float32, device)
    weight = torch.ones_like(arguments[2]).requires_grad_()
    loss = (weight * arguments[2]).sum()
    tk.accumulate_(tk.CompositedRays(*arguments[:3]), *arguments[3:])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch, when the mode starts
def test_forward_mode_is_refused(device):
    x = torch.rand(4, 3, device=device)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"forward AD|jvp|forward mode"):
        tk.frequency_encode(forward_ad.make_dual(x, torch.ones_like(x)), 2)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("transform", [lambda f: f, torch.func.vmap])
def test_forward_mode_of_torch_func_is_refused(transform, device):
    x = torch.rand(4, 3, device=device)

    def encode(x):
        return tk.frequency_encode(x.view(-1, 3), 2)

    with pytest.raises(NotImplementedError, match=r"frequency_encode.*use torch.func.vjp or jacrev"):
        torch.func.jvp(transform(encode), (x,), (torch.ones_like(x),))
    product, tangent = torch.func.jvp(lambda factor: factor * encode(x), (torch.ones((), device=device),), (x[0, 0],))
    torch.testing.assert_close(tangent, x[0, 0] * product)  # of what does not depend on the input


def test_gradients_of_torch_func(device):
    positions, table = torch.rand(6, 2, device=device) * 1.8 - 0.9, torch.randn(CONFIG.n_entries, 2, device=device)
    results = []
    for encode in (tk.grid_encode, reference.grid_encode):
        of_sample = torch.func.grad(lambda x, encode=encode: encode(x[None], table, CONFIG).square().sum())
        results.append(
            (
                torch.func.jacrev(lambda x, encode=encode: encode(x, table, CONFIG))(positions),
                torch.func.vmap(of_sample)(positions),
                torch.func.grad(lambda t, encode=encode: encode(positions, t, CONFIG).square().sum())(table),
                torch.func.vmap(lambda x, encode=encode: encode(x[None], table, CONFIG)[0])(positions),
            )
        )
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["composite", "grid_encode", "march_rays", "spherical_harmonics", "triplane_encode"])
def test_batches_of_upstream_gradients(name, device):
    arguments = operator_arguments(name, 6, torch.float32, device)
    leaves = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    results = getattr(OPERATORS, name)(*arguments)
    results = [r for r in (results if isinstance(results, tuple) else (results,)) if r.requires_grad]
    upstream = [torch.randn(3, *r.shape, device=device) for r in results]
    batched = torch.autograd.grad(results, leaves, upstream, is_grads_batched=True, retain_graph=True)
    singly = [torch.autograd.grad(results, leaves, [u[i] for u in upstream], retain_graph=True) for i in range(3)]
    torch.testing.assert_close(batched, tuple(map(torch.stack, zip(*singly, strict=True))))


def test_vectorized_derivatives(device):
    x = torch.rand(4, 3, device=device)
    results = []
    for of in (tk, reference):
        jacobian = torch.autograd.functional.jacobian(lambda x, of=of: of.frequency_encode(x, 2), x, vectorize=True)
        hessian = torch.autograd.functional.hessian(
            lambda x, of=of: of.frequency_encode(x, 2).square().sum(), x, vectorize=True
        )
        results.append((jacobian, hessian))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torch_jit_trace_records_operators(device):
    directions, others = (F.normalize(torch.randn(n, 3, device=device)) for n in (10, 20))
    traced = torch.jit.trace(lambda d: tk.spherical_harmonics(d, 3), directions, check_trace=False)
    torch.testing.assert_close(traced(others), tk.spherical_harmonics(others, 3))


class Field(nn.Module):
    """Density and color from both position encoders and the direction."""

    def __init__(self, capacity):
        super().__init__()
        self.capacity = capacity
        self.grid, self.planes = tk.GridEncoding(CONFIG), tk.TriplaneEncoding(CONFIG)
        nn.init.normal_(self.grid.table)
        nn.init.normal_(self.planes.tables)
        self.layers = nn.ModuleList((nn.Linear(4 + 12 + 9 + 21, 16), nn.Linear(16, 4)))

    def forward(self, rays_o, rays_d, bitfield):
        t_near, t_far = tk.intersect_aabb(rays_o.detach(), rays_d.detach(), (-1, -1, -1, 1, 1, 1))
        samples = tk.march_rays(rays_o, rays_d, t_near, t_far, bitfield, max_steps=32, capacity=self.capacity)
        x, d = samples.positions, samples.directions
        floor = x[:, :2].contiguous()
        h = torch.cat((self.grid(floor), self.planes(x), tk.spherical_harmonics(d, 3), tk.frequency_encode(x, 3)), 1)
        h = self.layers[1](F.relu(self.layers[0](h)))
        sigmas, colors = h[:, 0].exp().contiguous(), h[:, 1:].contiguous()
        return tk.composite(sigmas, samples.deltas, colors, None, samples.packed_info)


@pytest.mark.parametrize("capacity", [None, 1000])
def test_compiled_field_has_no_graph_break(capacity, device):
    field, bitfield = Field(capacity).to(device), shell_bitfield(device)
    rays_o, rays_d, *_ = random_rays(50, device)
    leaves = [rays_o.requires_grad_(), rays_d.requires_grad_(), *field.parameters()]
    expected = field(rays_o, rays_d, bitfield)
    upstream = [torch.randn_like(x) for x in expected]
    expected_gradients = torch.autograd.grad(expected, leaves, upstream, materialize_grads=True)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=capacity is None):
        compiled = torch.compile(field, fullgraph=True, backend="aot_eager")
        results = compiled(rays_o, rays_d, bitfield)
        gradients = torch.autograd.grad(results, leaves, upstream, materialize_grads=True)
    assert expected.opacity.max() > 0.1
    for a, b in zip((*results, *gradients), (*expected, *expected_gradients), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(set(public_calls("cpu")) - {"morton_encode", "morton_decode", "cell_centers"}))
def test_autocast_computes_in_float32(name, dtype, device):
    call = public_calls(device, dtype)[name]
    if name == "accumulate_":  # its sums are written in place and stay what they are
        sums = tk.CompositedRays(*(torch.zeros(5, *s, device=device) for s in ((3,), (0,), ())))
        info = torch.tensor([[0, 2], [2, 2]], dtype=torch.int32, device=device)
        ids = info[:, 1] - 2
        half = [torch.rand(4, *s, device=device, dtype=dtype) for s in ((), (), (3,))]

        def call():
            return tk.accumulate_(sums, ids, *half, None, info)

    with pytest.raises(ValueError, match="expected dtype float32 or float64"):
        call()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        results = _as_list(call())
    floats = {x.dtype for x in results if x.is_floating_point()}
    half_table = name in ("grid_encode", "triplane_encode") and dtype == torch.float16
    assert floats <= {torch.float16 if half_table else torch.float32}


def test_autocast_of_a_render_equals_float32(device):
    rays = random_rays(50, device)
    bitfield = shell_bitfield(device)

    def field(samples):
        sigmas, colors = samples.ts * 3, samples.positions.abs()
        return (
            (sigmas.bfloat16(), colors.bfloat16(), None)
            if torch.is_autocast_enabled(device.type)
            else (
                sigmas.bfloat16().float(),
                colors.bfloat16().float(),
                None,
            )
        )

    rounded = [x.bfloat16() for x in rays]
    expected = tk.render_rays(field, *(x.float() for x in rounded), bitfield, max_steps=32)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        results = tk.render_rays(field, *rounded, bitfield, max_steps=32)
    for a, b in zip(results, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b)


def test_operators_have_autocast_rules(device):
    x, table, *grids = operator_arguments("grid_encode", 4, torch.float32, device)
    with torch.autocast(device.type, dtype=torch.bfloat16), torch.no_grad():
        directions = torch.randn(4, 3, device=device, dtype=torch.bfloat16)
        assert OPERATORS.spherical_harmonics(directions, 2).dtype == torch.float32
        assert OPERATORS.grid_encode(x.bfloat16(), table.half(), *grids).dtype == torch.float16


def test_gradients_flow_through_the_cast(device):
    x = torch.rand(4, 3, device=device, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        tk.frequency_encode(x, 2).sum().backward()
    assert x.grad.dtype == torch.bfloat16 and x.grad.abs().sum() > 0


def test_argument_checks_see_sizes_once():
    check = ArgumentCheck()
    check.tensor("a", torch.rand(3), ("N",), torch.float32)
    with pytest.raises(ValueError, match=r"b: expected shape \[N\] with N = 3 \(from a\), got \[4\]"):
        check.tensor("b", torch.rand(4), ("N",), torch.float32)
