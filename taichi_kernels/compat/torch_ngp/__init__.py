"""The extension modules of torch-ngp, RAD-NeRF and ER-NeRF, on this package's kernels.

Programs of that family compile four CUDA extensions and import them as `raymarching`, `gridencoder`,
`freqencoder` and `shencoder`. After

    from taichi_kernels.compat.torch_ngp import install
    install("er-nerf")

these imports resolve to the modules here: the same functions, arguments, results and gradients, without
a compiler, on the CPU too. Tensors stay on the device where they are.
"""

import importlib
import sys
from types import ModuleType

from taichi_kernels.checks import expect

# Name, the modules here per family if they differ, and the submodule where the family's packages keep the code.
_RAY_MARCHING = {"er-nerf": "raymarching", "rad-nerf": "raymarching", "torch-ngp": "raymarching_torch_ngp"}
_SUBMODULES = {
    "raymarching": "raymarching",
    "gridencoder": "grid",
    "freqencoder": "freq",
    "shencoder": "sphere_harmonics",
}
FAMILIES = tuple(_RAY_MARCHING)


def install(family: str = "er-nerf") -> None:
    """Make `import raymarching`, `gridencoder`, `freqencoder` and `shencoder` resolve to the modules here.

    Call it before the program's own imports. It holds for the process; a second call may choose another
    family, for the imports that come after it.

    Args:
        family: "er-nerf", "rad-nerf" or "torch-ngp". torch-ngp's `composite_rays_train` takes no ambient
            term, and its `deltas` hold steps where those of the others hold distances; ER-NeRF and RAD-NeRF
            share one module. The encoders serve all three.

    Raises:
        ValueError: an unknown family.
        ImportError: one of the names is taken by a module that has been imported already.
    """
    expect(family in FAMILIES, "family", f"one of {', '.join(FAMILIES)}", family, "name the program's family")
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in _SUBMODULES}
    modules["raymarching"] = importlib.import_module(f"{__name__}.{_RAY_MARCHING[family]}")
    for name in modules:
        _check_is_free(name)
    for name, module in modules.items():
        submodule = _SUBMODULES[name]
        setattr(module, submodule, module)
        sys.modules[name] = sys.modules[f"{name}.{submodule}"] = module


def _check_is_free(name: str) -> None:
    module = sys.modules.get(name)
    if isinstance(module, ModuleType) and not module.__name__.startswith(f"{__name__}."):
        raise ImportError(
            f"{name}: expected a name that is not imported yet, got the module "
            f"{getattr(module, '__file__', None) or module.__name__}; call install() before the program's imports"
        )
