"""A face recognition network: IResNet [Deng et al. 2019, ArcFace; Duta et al. 2020, the residual blocks].

Layers, input and weight names are those of the `backbone.pth` files of insightface's arcface_torch.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACE_SIDE = 112
"""Width and height of a face crop in pixels."""
EMBEDDING = 512
"""Length of the vector that a face gives."""
_WIDTHS = (64, 128, 256, 512)
_EPS = 1e-5
# Right eye, left eye, tip of the nose, right and left corner of the mouth in a crop (the person's right), with pixel
# centers at integers: the places that the published weights were trained with.
_TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
_RIGHT_EYE, _LEFT_EYE, _NOSE, _MOUTH = (33, 133, 159, 145), (263, 362, 386, 374), 4, (61, 291)


class IResNet(nn.Module):
    """The network; the number of blocks of each layer tells the 18, 34, 50, 100 and 200 layers deep ones apart.

    Args:
        n_blocks: of the four layers.
    """

    def __init__(self, n_blocks: tuple[int, ...]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0], _EPS)
        self.prelu = nn.PReLU(_WIDTHS[0])
        before = _WIDTHS[0]
        for k, (n, width) in enumerate(zip(n_blocks, _WIDTHS, strict=True), 1):
            blocks = [_Block(before if i == 0 else width, width, 2 if i == 0 else 1) for i in range(n)]
            self.add_module(f"layer{k}", nn.Sequential(*blocks))
            before = width
        self.bn2 = nn.BatchNorm2d(before, _EPS)
        self.fc = nn.Linear(before * (FACE_SIDE // 16) ** 2, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING, _EPS)

    def forward(self, faces: Tensor) -> Tensor:
        """[N, 3, 112, 112] RGB in [0, 1] -> [N, 512] of unit length."""
        x = self.prelu(self.bn1(self.conv1(2 * faces - 1)))
        for k in range(1, len(_WIDTHS) + 1):
            x = self.get_submodule(f"layer{k}")(x)
        return F.normalize(self.features(self.fc(self.bn2(x).flatten(1))))


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(n_in, _EPS)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out, _EPS)
        self.prelu = nn.PReLU(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out, _EPS)
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out, _EPS))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (self.downsample(x) if hasattr(self, "downsample") else x)


def iresnet_for(weights: dict[str, Tensor]) -> IResNet:
    """A network as deep as weights of these names need, with at least one block in each layer."""
    blocks = [
        {name.split(".")[1] for name in weights if name.startswith(f"layer{k}.") and name.endswith(".conv1.weight")}
        for k in range(1, len(_WIDTHS) + 1)
    ]
    return IResNet(tuple(max(1, len(found)) for found in blocks))


def identity_crop(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The face in an image, moved, turned and scaled so that eyes, nose and mouth lie where the network expects them.

    Args:
        image: [H, W, 3] uint8 RGB.
        points: [478, 2 or 3] mesh points in pixels.

    Returns:
        [112, 112, 3] uint8.
    """
    places = np.stack([points[list(_RIGHT_EYE)].mean(0), points[list(_LEFT_EYE)].mean(0), *points[[_NOSE, *_MOUTH]]])[
        :, :2
    ].astype(np.float64)
    places -= 0.5  # pixel centers are at half-integers in our coordinates
    # Complex numbers turn and scale by one multiplication; least squares over the five points.
    source, target = (xy[:, 0] + 1j * xy[:, 1] for xy in (places, _TEMPLATE))
    centered = source - source.mean()
    turn = (centered.conj() * (target - target.mean())).sum() / (np.abs(centered) ** 2).sum()
    shift = target.mean() - turn * source.mean()
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    return cv2.warpAffine(image, matrix, (FACE_SIDE, FACE_SIDE), flags=cv2.INTER_LINEAR)


@torch.no_grad()
def embeddings(network: IResNet, crops: np.ndarray, device: torch.device | str) -> np.ndarray:
    """[N, 112, 112, 3] uint8 crops -> [N, 512] float32 of unit length."""
    faces = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 255
    return network(faces).cpu().numpy()
