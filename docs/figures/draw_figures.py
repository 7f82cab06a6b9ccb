"""Draw the figures of docs/concepts.md: `python docs/figures/draw_figures.py` (needs matplotlib)."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

FOLDER = Path(__file__).resolve().parent
INK, PALE, SKY = "#263238", "#eceff1", "#bbdefb"
BLUE, ORANGE, GREEN, RED, GRAY = "#1976d2", "#f57c00", "#388e3c", "#c62828", "#90a4ae"
mpl.rcParams.update({"svg.hashsalt": "ernerf-ti", "font.size": 11, "text.color": INK, "font.family": "DejaVu Sans"})


def canvas(width: float, height: float):
    figure, axes = plt.subplots(figsize=(width, height))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    return axes


def save(axes, name: str) -> None:
    axes.figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    plt.close(axes.figure)


def box(axes, x, y, width, height, text, color=INK, fill=PALE, size=10):
    style = FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.08", ec=color, fc=fill, lw=1.4)
    axes.add_patch(style)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", size=size)


def arrow(axes, start, end, color=INK, style="-|>", width=1.4, bend=0.0):
    connection = f"arc3,rad={bend}"
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle=style, mutation_scale=12, color=color, lw=width, connectionstyle=connection,
            shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


def face(axes, x, y, scale, mouth=0.0, eyes=0.0):
    """A schematic head; `mouth` and `eyes` shade these regions."""
    axes.add_patch(Ellipse((x, y), 1.5 * scale, 2 * scale, fc="#ffe0b2", ec=INK, lw=1.2))
    for side in (-1, 1):
        center = (x + side * 0.32 * scale, y + 0.22 * scale)
        if eyes:
            axes.add_patch(Ellipse(center, 0.52 * scale, 0.34 * scale, fc=BLUE, alpha=eyes, ec="none"))
        axes.add_patch(Ellipse(center, 0.3 * scale, 0.14 * scale, fc="white", ec=INK, lw=1))
        axes.add_patch(Circle(center, 0.05 * scale, fc=INK))
    if mouth:
        axes.add_patch(Ellipse((x, y - 0.45 * scale), 0.95 * scale, 0.6 * scale, fc=ORANGE, alpha=mouth, ec="none"))
    axes.add_patch(Ellipse((x, y - 0.45 * scale), 0.5 * scale, 0.2 * scale, fc="#8d2b2b", ec=INK, lw=1))
    axes.plot([x, x - 0.07 * scale, x + 0.05 * scale], [y + 0.1 * scale, y - 0.12 * scale, y - 0.14 * scale], c=INK)


def overview() -> None:
    axes = canvas(11, 4.9)
    box(axes, 0.2, 3.9, 1.9, 0.7, "position of a\nsample (x, y, z)")
    box(axes, 2.7, 3.9, 1.9, 0.7, "tri-plane hash\nencoding", BLUE)
    box(axes, 0.2, 2.7, 1.9, 0.7, "audio features,\n8 windows")
    box(axes, 2.7, 2.7, 1.9, 0.7, "audio encoder", ORANGE)
    box(axes, 0.2, 1.7, 1.9, 0.6, "eye closure")
    box(axes, 5.2, 2.25, 1.7, 1.15, "region\nattention", ORANGE)
    box(axes, 7.5, 3.2, 1.5, 1.4, "density\nand color\nnetworks", BLUE)
    box(axes, 9.5, 3.2, 1.3, 1.4, "composite\nsamples of\neach ray")
    box(axes, 0.2, 0.3, 1.9, 0.8, "head pose,\npixel (u, v)")
    box(axes, 2.7, 0.3, 1.9, 0.8, "adaptive pose\nencoding", GREEN)
    box(axes, 5.2, 0.3, 1.7, 0.8, "deformation,\n2-D hash grid", GREEN)
    box(axes, 7.5, 0.3, 1.5, 0.8, "torso color\nand alpha", GREEN)
    box(axes, 9.5, 0.3, 1.3, 2.2, "head\nover torso\nover\nbackground", RED)
    for start, end in [
        ((2.1, 4.25), (2.7, 4.25)), ((4.6, 4.25), (7.5, 4.25)), ((2.1, 3.05), (2.7, 3.05)), ((4.6, 3.05), (5.2, 3.05)),
        ((2.1, 2.0), (5.2, 2.45)), ((6.9, 2.85), (7.5, 3.4)), ((9.0, 3.9), (9.5, 3.9)), ((10.15, 3.2), (10.15, 2.5)),
        ((2.1, 0.7), (2.7, 0.7)), ((4.6, 0.7), (5.2, 0.7)), ((6.9, 0.7), (7.5, 0.7)), ((9.0, 0.7), (9.5, 0.7)),
        ((6.05, 4.25), (6.05, 3.4)),
    ]:  # fmt: skip
        arrow(axes, start, end)
    save(axes, "overview")


def triplane() -> None:
    axes = canvas(11, 4.4)
    right, up, depth = np.array([2.0, 0.0]), np.array([0.0, 2.0]), np.array([0.85, 0.6])
    origin = np.array([0.7, 0.6])
    corners = [origin + a * right + b * up + c * depth for c in (0, 1) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
    edges = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
    for i, j in edges:
        axes.plot(*zip(corners[i], corners[j], strict=True), c=GRAY, lw=1)
    point = origin + 0.62 * right + 0.55 * up + 0.45 * depth
    shadows = {
        "frontal": (point - 0.45 * depth, BLUE),
        "side": (point + 0.38 * right, ORANGE),
        "top": (point - 0.55 * up, GREEN),
    }
    for shadow, color in shadows.values():
        axes.plot(*zip(point, shadow, strict=True), c=color, ls=":", lw=1.6)
        axes.add_patch(Circle(shadow, 0.06, fc=color, ec="none"))
    axes.add_patch(Circle(point, 0.09, fc=RED, ec=INK))
    axes.text(1.9, 0.25, "sample in the scene cube", ha="center", size=9.5)
    for row, (name, color) in enumerate((("plane xy", BLUE), ("plane yz", ORANGE), ("plane xz", GREEN))):
        y = 3.05 - 1.35 * row
        for column, cells in enumerate((3, 5, 8)):
            x = 4.6 + 1.35 * column
            for k in range(cells + 1):
                t = k / cells
                axes.plot([x + t, x + t], [y, y + 1], c=color, lw=0.7, alpha=0.8)
                axes.plot([x, x + 1], [y + t, y + t], c=color, lw=0.7, alpha=0.8)
            u, v = 0.62, 0.55 if row != 1 else 0.4
            cell = np.floor(np.array([u, v]) * cells) / cells
            axes.add_patch(Rectangle((x + cell[0], y + cell[1]), 1 / cells, 1 / cells, fc=color, alpha=0.35))
            axes.add_patch(Circle((x + u, y + v), 0.05, fc=RED, ec=INK, lw=0.7))
        axes.text(4.45, y + 0.5, name, ha="right", va="center", size=9.5, color=color)
        arrow(axes, (8.5, y + 0.5), (9.1, y + 0.5), color)
        axes.add_patch(Rectangle((9.15, y + 0.35), 1.5, 0.3, fc=color, alpha=0.35, ec=color))
        for k in range(1, 6):
            axes.plot([9.15 + 0.25 * k] * 2, [y + 0.35, y + 0.65], c=color, lw=0.8)
    axes.text(6.6, 4.17, "levels, coarse to fine; four corners interpolated", ha="center", size=9.5)
    axes.text(9.9, 4.17, "features, concatenated", ha="center", size=9.5)
    save(axes, "triplane")


def attention() -> None:
    axes = canvas(11, 3.6)
    box(axes, 0.2, 2.55, 2.0, 0.7, "position features", BLUE)
    box(axes, 2.9, 2.55, 1.5, 0.7, "small MLP", ORANGE)
    box(axes, 2.9, 1.45, 1.5, 0.7, "audio code", ORANGE)
    box(axes, 5.0, 1.95, 1.7, 0.9, "multiply\nchannel by\nchannel", ORANGE, size=9.5)
    box(axes, 2.9, 0.3, 1.5, 0.7, "small MLP,\nsigmoid", BLUE, size=9.5)
    box(axes, 0.2, 0.3, 2.0, 0.7, "eye closure")
    box(axes, 5.0, 0.3, 1.7, 0.7, "multiply", BLUE)
    arrow(axes, (2.2, 2.9), (2.9, 2.9))
    arrow(axes, (4.4, 2.9), (5.0, 2.6))
    arrow(axes, (4.4, 1.8), (5.0, 2.2))
    arrow(axes, (1.2, 2.55), (2.9, 0.8), bend=0.25)
    arrow(axes, (4.4, 0.65), (5.0, 0.65))
    axes.plot([1.2, 1.2, 5.85], [0.3, 0.12, 0.12], c=INK, lw=1.4)
    arrow(axes, (5.85, 0.12), (5.85, 0.3))
    arrow(axes, (6.7, 2.4), (7.3, 2.4))
    arrow(axes, (6.7, 0.65), (7.3, 0.65))
    axes.text(7.4, 2.4, "to the\ndensity\nnetwork", va="center", size=9.5)
    axes.text(7.4, 0.65, "to the\ndensity\nnetwork", va="center", size=9.5)
    face(axes, 9.7, 1.9, 1.35, mouth=0.55, eyes=0.4)
    axes.text(9.7, 0.2, "audio acts at the mouth (orange),\neye closure at the eyes (blue)", ha="center", size=9)
    save(axes, "region_attention")


def marching() -> None:
    axes = canvas(11, 4.2)
    x0, y0, cell, n = 3.6, 0.25, 0.37, 10
    centers = [(x0 + (i + 0.5) * cell, y0 + (j + 0.5) * cell) for i in range(n) for j in range(n)]
    middle = np.array([x0 + n * cell / 2, y0 + n * cell / 2])

    def occupied(p):
        return 0.62 < np.hypot((p[0] - middle[0]) / 0.85, p[1] - middle[1]) < 1.55

    for p in centers:
        fill = SKY if occupied(p) else "white"
        axes.add_patch(Rectangle((p[0] - cell / 2, p[1] - cell / 2), cell, cell, fc=fill, ec=GRAY, lw=0.7))
    eye = np.array([0.6, 2.75])
    for target, absorbed in ((np.array([x0 + n * cell, 1.05]), 9), (np.array([x0 + n * cell, 3.85]), 99)):
        direction = (target - eye) / np.linalg.norm(target - eye)
        end = eye + direction * 8.6
        arrow(axes, eye, end, INK, width=1.1)
        count = 0
        for t in np.arange(2.5, 8, 0.155):
            p = eye + direction * t
            index = np.floor((p - (x0, y0)) / cell)
            if (index < 0).any() or (index >= n).any():
                continue
            if occupied((x0 + (index[0] + 0.5) * cell, y0 + (index[1] + 0.5) * cell)):
                count += 1
                color = RED if count <= absorbed else "white"
                axes.add_patch(Circle(p, 0.055, fc=color, ec=RED, lw=1))
    axes.add_patch(Polygon([eye + (-0.35, 0.25), eye + (-0.35, -0.25), eye], fc=INK))
    axes.text(0.45, 2.2, "camera", ha="center", size=9.5)
    notes = [
        (3.55, Rectangle((8.7, 3.45), 0.25, 0.25, fc=SKY, ec=GRAY), "occupied cell, one bit;\nfrom past densities"),
        (2.65, Rectangle((8.7, 2.55), 0.25, 0.25, fc="white", ec=GRAY), "empty cell: skipped"),
        (1.75, Circle((8.82, 1.77), 0.07, fc=RED, ec=RED), "sample: field evaluated"),
        (0.85, Circle((8.82, 0.87), 0.07, fc="white", ec=RED), "behind opaque samples:\nnot evaluated"),
    ]  # fmt: skip
    for y, patch, text in notes:
        axes.add_patch(patch)
        axes.text(9.1, y + 0.03, text, va="center", size=9)
    save(axes, "marching")


def pose_encoding() -> None:
    axes = canvas(11, 4.0)
    axes.add_patch(Polygon([(0.35, 2.3), (0.35, 1.7), (0.8, 2.0)], fc=INK))
    axes.text(0.55, 1.35, "camera", ha="center", size=9.5)
    image = Polygon([(1.7, 0.7), (2.3, 1.1), (2.3, 3.5), (1.7, 3.1)], fc=PALE, ec=INK, lw=1.2)
    axes.add_patch(image)
    axes.text(2.0, 0.35, "image plane", ha="center", size=9.5)
    face(axes, 4.6, 2.2, 1.15)
    for anchor, color in (((4.35, 3.05), BLUE), ((5.15, 2.3), ORANGE), ((4.1, 1.55), GREEN)):
        eye = np.array([0.8, 2.0])
        a = np.array(anchor)
        axes.plot(*zip(eye, a, strict=True), c=color, lw=1.2, ls="--")
        axes.add_patch(Circle(a, 0.09, fc=color, ec=INK))
        axes.add_patch(Circle(eye + (a - eye) * (1.2 / (a[0] - 0.8)), 0.06, fc=color, ec=INK, lw=0.7))
    axes.text(4.6, 0.35, "three learned points,\nfixed to the head", ha="center", size=9.5, va="center")
    box(axes, 6.4, 2.55, 1.9, 0.9, "their 6 image\ncoordinates", GREEN)
    box(axes, 6.4, 1.1, 1.9, 0.9, "pixel (u, v),\nappearance\nembedding", GREEN, size=9.5)
    arrow(axes, (5.6, 2.9), (6.4, 3.0))
    box(axes, 8.9, 1.8, 1.9, 0.9, "offset of the\npixel, then\ngrid lookup", GREEN, size=9.5)
    arrow(axes, (8.3, 3.0), (8.9, 2.5))
    arrow(axes, (8.3, 1.55), (8.9, 2.0))
    arrow(axes, (9.85, 1.8), (9.85, 1.15))
    axes.text(9.85, 0.85, "torso color and alpha", ha="center", size=9.5)
    save(axes, "pose_encoding")


def compositing() -> None:
    axes = canvas(7.4, 3.6)

    def sheet(x, color, alpha=1.0):
        points = [(x, 0.7), (x + 1.3, 1.25), (x + 1.3, 3.35), (x, 2.8)]
        axes.add_patch(Polygon(points, fc=color, ec=INK, lw=1.2, alpha=alpha))

    sheet(5.2, "#c5cae9")
    axes.text(5.85, 0.35, "background", ha="center", size=9.5)
    sheet(3.0, "white", 0.85)
    axes.add_patch(Polygon([(3.05, 0.75), (4.25, 1.25), (4.15, 1.9), (3.65, 2.1), (3.15, 1.5)], fc="#80cbc4", ec=INK))
    axes.text(3.65, 0.35, "torso", ha="center", size=9.5)
    sheet(0.8, "white", 0.85)
    axes.add_patch(Ellipse((1.45, 2.35), 0.62, 0.95, fc="#ffe0b2", ec=INK))
    axes.text(1.45, 0.35, "head", ha="center", size=9.5)
    arrow(axes, (0.1, 2.0), (6.9, 2.0), RED, width=1.2)
    axes.text(0.1, 2.1, "ray", color=RED, size=9.5)
    save(axes, "compositing")


def stages() -> None:
    axes = canvas(11, 3.9)
    columns = [
        (0.2, "1  head", BLUE, "random pixels (small: more\nof them at lips and eyes);\nsquared error, regularizers"),
        (3.85, "2  finetune", ORANGE, "patches and the lip region\nin turn; perceptual loss\nbeside the squared error"),
        (7.5, "3  torso", GREEN, "random pixels;\nthe head stays as it is;\nsquared error"),
    ]
    for x, title, color, text in columns:
        axes.add_patch(
            FancyBboxPatch((x, 1.5), 3.2, 2.2, "round,pad=0,rounding_size=0.1", ec=color, fc="white", lw=1.8)
        )
        axes.text(x + 0.2, 3.35, title, size=12, weight="bold", color=color, va="center")
        axes.text(x + 0.2, 2.35, text, size=10, va="center")
    arrow(axes, (3.4, 2.6), (3.85, 2.6))
    arrow(axes, (7.05, 2.6), (7.5, 2.6))
    rows = [
        (0.85, "occupancy grid of the head, updated every 16 steps", 0.2, 6.85, BLUE),
        (0.3, "moving average of the weights: what is validated, saved for rendering, and passed on", 0.2, 10.5, GRAY),
    ]
    for y, text, x, width, color in rows:
        axes.add_patch(Rectangle((x, y), width, 0.4, fc=color, alpha=0.25, ec=color))
        axes.text(x + 0.15, y + 0.2, text, va="center", size=9.5)
    axes.add_patch(Rectangle((7.5, 0.85), 3.2, 0.4, fc=GREEN, alpha=0.25, ec=GREEN))
    axes.text(7.65, 1.05, "occupancy grid of the torso", va="center", size=9.5)
    save(axes, "stages")


if __name__ == "__main__":
    for draw in (overview, triplane, attention, marching, pose_encoding, compositing, stages):
        draw()
