"""`install()` in processes of their own, and the signatures that programs of the family rely on."""

import inspect
import subprocess
import sys
import textwrap

import pytest

from taichi_kernels.compat import torch_ngp
from taichi_kernels.compat.torch_ngp import (
    freqencoder,
    gridencoder,
    raymarching,
    raymarching_torch_ngp,
    shencoder,
)

MARCH_TRAIN = (
    "rays_o rays_d bound density_bitfield C H nears fars step_counter=None mean_count=-1 perturb=False align=-1 "
    "force_all_rays=False dt_gamma=0 max_steps=1024"
)
MARCH = (
    "n_alive n_step rays_alive rays_t rays_o rays_d bound density_bitfield C H near far align=-1 perturb=False "
    "dt_gamma=0 max_steps=1024"
)
ROUND = "n_alive n_step rays_alive rays_t sigmas rgbs deltas"
SUMS = "weights_sum depth image"
SHARED = {
    "near_far_from_aabb": "rays_o rays_d aabb min_near=0.2",
    "sph_from_ray": "rays_o rays_d radius",
    "morton3D": "coords",
    "morton3D_invert": "indices",
    "packbits": "grid thresh bitfield=None",
    "march_rays_train": MARCH_TRAIN,
    "march_rays": MARCH,
    "composite_rays": f"{ROUND} {SUMS} T_thresh=0.01",
}
SIGNATURES = {
    raymarching: SHARED
    | {
        "morton3D_dilation": "grid",
        "composite_rays_train": "sigmas rgbs ambient deltas rays T_thresh=0.0001",
        "composite_rays_train_sigma": "sigmas rgbs ambient deltas rays T_thresh=0.0001",
        "composite_rays_train_uncertainty": "sigmas rgbs ambient uncertainty deltas rays T_thresh=0.0001",
        "composite_rays_train_triplane": "sigmas rgbs amb_aud amb_eye uncertainty deltas rays T_thresh=0.0001",
        "composite_rays_ambient": f"{ROUND} ambients {SUMS} ambient_sum T_thresh=0.01",
        "composite_rays_ambient_sigma": f"{ROUND} ambients {SUMS} ambient_sum T_thresh=0.01",
        "composite_rays_uncertainty": (
            f"{ROUND} ambients uncertainties {SUMS} ambient_sum uncertainty_sum T_thresh=0.01"
        ),
        "composite_rays_triplane": (
            f"{ROUND} ambs_aud ambs_eye uncertainties {SUMS} amb_aud_sum amb_eye_sum uncertainty_sum T_thresh=0.01"
        ),
    },
    raymarching_torch_ngp: SHARED | {"composite_rays_train": "sigmas rgbs deltas rays T_thresh=0.0001"},
    gridencoder: {
        "grid_encode": (
            "inputs embeddings offsets per_level_scale base_resolution calc_grad_inputs=False gridtype=0 "
            "align_corners=False interpolation=0"
        ),
        "GridEncoder": (
            "input_dim=3 num_levels=16 level_dim=2 per_level_scale=2 base_resolution=16 log2_hashmap_size=19 "
            "desired_resolution=None gridtype=hash align_corners=False interpolation=linear"
        ),
        "GridEncoder.forward": "self inputs bound=1",
        "GridEncoder.grad_total_variation": "self weight=1e-07 inputs=None bound=1 B=1000000",
        "GridEncoder.grad_weight_decay": "self weight=0.1",
    },
    freqencoder: {
        "freq_encode": "inputs degree output_dim",
        "FreqEncoder": "input_dim=3 degree=4",
        "FreqEncoder.forward": "self inputs kwargs",
    },
    shencoder: {
        "sh_encode": "inputs degree calc_grad_inputs=False",
        "SHEncoder": "input_dim=3 degree=4",
        "SHEncoder.forward": "self inputs size=1",
    },
}
CASES = [(module, name) for module, functions in SIGNATURES.items() for name in functions]


@pytest.mark.parametrize(("module", "name"), CASES, ids=lambda x: getattr(x, "__name__", x).split(".")[-1])
def test_signatures(module, name):
    function = module
    for part in name.split("."):
        function = getattr(function, part)
    parameters = inspect.signature(function).parameters.values()
    written = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
    assert " ".join(written) == SIGNATURES[module][name]


@pytest.mark.parametrize("module", [raymarching, raymarching_torch_ngp])
def test_no_public_function_is_missing_in_the_list(module):
    assert set(module.__all__) - {"morton3D_dilation"} == set(SIGNATURES[module]) - {"morton3D_dilation"}
    assert all(callable(getattr(module, name)) for name in module.__all__)


def run(code, folder):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], cwd=folder, capture_output=True, text=True
    )


def test_a_program_of_the_family_imports_ours(tmp_path):
    # In the place where the program's own packages are, which need a compiler.
    for name in ("raymarching", "gridencoder", "freqencoder", "shencoder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('nvcc not found')\n")
    (tmp_path / "encoding.py").write_text(
        textwrap.dedent(
            """
            def get_encoder(name, input_dim=3, **kwargs):
                if name == "frequency":
                    from freqencoder import FreqEncoder as Encoder
                elif name == "spherical_harmonics":
                    from shencoder import SHEncoder as Encoder
                else:
                    from gridencoder import GridEncoder as Encoder
                encoder = Encoder(input_dim, **kwargs)
                return encoder, encoder.output_dim
            """
        )
    )
    result = run(
        """
        from taichi_kernels.compat.torch_ngp import install
        install()
        import torch
        import raymarching, gridencoder, freqencoder, shencoder
        from raymarching import near_far_from_aabb, march_rays_train, composite_rays_train_triplane
        from raymarching.raymarching import morton3D
        from gridencoder import GridEncoder
        from gridencoder.grid import grid_encode
        from shencoder.sphere_harmonics import sh_encode
        from freqencoder.freq import freq_encode
        import gridencoder.grid
        from encoding import get_encoder

        assert gridencoder.grid.GridEncoder is GridEncoder
        x = torch.rand(2, 5, 3)
        for name, n in (("frequency", 27), ("spherical_harmonics", 16), ("hashgrid", 32)):
            encoder, size = get_encoder(name)
            assert encoder(x).shape == (2, 5, n) == (2, 5, size), name
        aabb = torch.tensor([-1.0, -1, -1, 1, 1, 1])
        nears, fars = raymarching.near_far_from_aabb(x, x - 0.5, aabb, 0.05)
        assert nears.shape == (10,) and raymarching.morton3D(torch.tensor([[1, 2, 3]])).tolist() == [53]
        for module in (raymarching, gridencoder, freqencoder, shencoder):
            assert module.__name__.startswith("taichi_kernels.compat.torch_ngp."), module
        print("done")
        """,
        tmp_path,
    )
    assert result.stdout == "done\n", result.stderr


def test_family_decides_what_raymarching_is(tmp_path):
    result = run(
        """
        from taichi_kernels.compat.torch_ngp import install
        for family in ("torch-ngp", "rad-nerf", "er-nerf", "er-nerf"):
            install(family)
            import raymarching
            print(hasattr(raymarching, "composite_rays_train_triplane"))
        """,
        tmp_path,
    )
    assert result.stdout.split() == ["False", "True", "True", "True"], result.stderr


def test_too_late(tmp_path):
    (tmp_path / "freqencoder.py").write_text("")
    result = run(
        """
        import sys
        import freqencoder
        from taichi_kernels.compat.torch_ngp import install
        try:
            install()
        except ImportError as error:
            print(error)
        print("raymarching" in sys.modules)
        """,
        tmp_path,
    )
    assert result.stdout.splitlines() == [
        f"freqencoder: expected a name that is not imported yet, got the module {tmp_path / 'freqencoder.py'}; "
        "call install() before the program's imports",
        "False",
    ], result.stderr


def test_unknown_family():
    with pytest.raises(ValueError) as error:
        torch_ngp.install("nerf")
    assert str(error.value) == (
        "family: expected one of er-nerf, rad-nerf, torch-ngp, got nerf; name the program's family"
    )


def test_importing_the_package_takes_no_name():
    assert not {"raymarching", "gridencoder", "freqencoder", "shencoder"} & set(sys.modules)
