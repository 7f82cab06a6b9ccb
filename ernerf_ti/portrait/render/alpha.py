"""Alpha compositing [Porter and Duff 1984] of colors that are premultiplied by their opacity."""

from torch import Tensor


def over(rgb: Tensor, opacity: Tensor, background_rgb: Tensor | None) -> Tensor:
    """Composite a layer over a background.

    Args:
        rgb: [..., 3] color times opacity.
        opacity: [...] in [0, 1].
        background_rgb: [..., 3]; None for black, which leaves the layer as it is.

    Returns:
        [..., 3]. Differentiable in all arguments.
    """
    return rgb if background_rgb is None else rgb + (1 - opacity)[..., None] * background_rgb
