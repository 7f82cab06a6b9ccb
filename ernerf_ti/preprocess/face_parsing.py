"""Segmentation of head, neck and torso with BiSeNet, if its weights are available.

The network of Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation" (2018), on a
ResNet-18 (He et al. 2016), in the variant of the widely used weights `79999_iter.pth`: the first stages of the
backbone replace the spatial path. Parameters are named as in those weights, which were trained on the 19 classes of
CelebAMask-HQ. The weights are not part of this package, and nothing is downloaded.
"""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ernerf_ti.data.capture_files import BACKGROUND, HEAD, NECK, TORSO

_SIDE = 512  # px; the network was trained on squares of this size
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# CelebAMask-HQ: background; skin, brows, eyes, glasses, ears, earring, nose, mouth, lips; neck, necklace; cloth;
# hair, hat.
_LABELS = np.array([BACKGROUND] + 13 * [HEAD] + 2 * [NECK] + [TORSO] + 2 * [HEAD], np.uint8)
_TRAINING_ONLY = ("conv_out16.", "conv_out32.")  # heads of the auxiliary losses


class FaceParser:
    """Segments head, neck and torso.

    Args:
        weights: the file `79999_iter.pth`, a state dict of BiSeNet.
        device: to run the network on.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a state dict of this network.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu"):
        self._network = _BiSeNet(len(_LABELS))
        self._network.load_state_dict(_read_weights(Path(weights), self._network.state_dict()), strict=False)
        self._network.eval().to(device)
        self._device = device

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Label a frame. It is stretched to a square first, as for the training of the weights.

        Args:
            frame: [H, W, 3] uint8 RGB.

        Returns:
            [H, W] uint8: 0 background, 1 head, 2 neck, 3 torso.

        Raises:
            ValueError: the frame has another shape or dtype.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(
                f"frame: expected [H, W, 3] uint8 RGB, got {list(frame.shape)} {frame.dtype}; decode the video to rgb24"
            )
        image = torch.tensor(np.ascontiguousarray(frame), device=self._device).permute(2, 0, 1)[None].float() / 255
        image = F.interpolate(image, (_SIDE, _SIDE), mode="bilinear", antialias=True)
        mean, std = (image.new_tensor(values)[:, None, None] for values in (_IMAGENET_MEAN, _IMAGENET_STD))
        classes = self._network((image - mean) / std).argmax(1, keepdim=True)
        # Interpolation needs floats, which represent class indices exactly.
        classes = F.interpolate(classes.float(), frame.shape[:2], mode="nearest-exact")[0, 0]
        return _LABELS[classes.cpu().numpy().astype(np.uint8)]


def _read_weights(path: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected BiSeNet's weights (79999_iter.pth), got no such file; pass the path of your copy with "
            "--face-parser, or omit the option"
        )
    advice = "pass BiSeNet's 79999_iter.pth for the 19 classes of CelebAMask-HQ"
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        # torch's own words advise to load without weights_only.
        raise ValueError(f"{path}: expected a state dict, got a file that torch can't load as one; {advice}") from None
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise ValueError(f"{path}: expected a state dict of tensors, got something else; {advice}")
    stored = {key: value for key, value in stored.items() if not key.startswith(_TRAINING_ONLY)}
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):  # used only in training, and missing in old files
            continue
        shape = list(stored[key].shape) if key in stored else "no such key"
        if shape != list(value.shape):
            raise ValueError(f"{path}: expected {key} of shape {list(value.shape)}, got {shape}; {advice}")
    # The weights of a deeper backbone have all of these keys and more.
    unknown = [key for key in stored if key not in wanted]
    if unknown:
        shape = list(stored[unknown[0]].shape)
        raise ValueError(f"{path}: unexpected key {unknown[0]} of shape {shape}; {advice}")
    return stored


class _BiSeNet(nn.Module):
    """[N, 3, H, W] normalized RGB -> [N, n_classes, H, W] logits; H and W are multiples of 32."""

    def __init__(self, n_classes: int):
        super().__init__()
        self.cp = _ContextPath()
        self.ffm = _FeatureFusion(256, 256)
        self.conv_out = _Head(256, 256, n_classes)

    def forward(self, image: Tensor) -> Tensor:
        fine, context = self.cp(image)
        scores = self.conv_out(self.ffm(fine, context))
        return F.interpolate(scores, image.shape[-2:], mode="bilinear", align_corners=True)


class _ConvBlock(nn.Module):
    """Convolution, batch norm and ReLU, without changing the size."""

    def __init__(self, n_in: int, n_out: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _ResidualBlock(nn.Module):
    """The block of two 3x3 convolutions in He et al. 2016, fig. 5 left."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(shortcut + residual)


class _ResNet18(nn.Module):
    """Features at 1/8 [128 channels], 1/16 [256] and 1/32 [512] of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, stride=1)
        self.layer2 = _stage(64, 128, stride=2)
        self.layer3 = _stage(128, 256, stride=2)
        self.layer4 = _stage(256, 512, stride=2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        at_8 = self.layer2(self.layer1(x))
        at_16 = self.layer3(at_8)
        return at_8, at_16, self.layer4(at_16)


def _stage(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_ResidualBlock(n_in, n_out, stride), _ResidualBlock(n_out, n_out, 1))


class _AttentionRefinement(nn.Module):
    """Channel attention computed from the mean features of the image."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv = _ConvBlock(n_in, n_out, 3)
        self.conv_atten = nn.Conv2d(n_out, n_out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(_mean(x))))


class _ContextPath(nn.Module):
    """Features of the backbone [128 channels] and context features [128], both at 1/8 of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = _ResNet18()
        self.arm16 = _AttentionRefinement(256, 128)
        self.arm32 = _AttentionRefinement(512, 128)
        self.conv_head32 = _ConvBlock(128, 128, 3)
        self.conv_head16 = _ConvBlock(128, 128, 3)
        self.conv_avg = _ConvBlock(512, 128, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        at_8, at_16, at_32 = self.resnet(image)
        context = self.arm32(at_32) + self.conv_avg(_mean(at_32))
        context = self.conv_head32(F.interpolate(context, at_16.shape[-2:], mode="nearest"))
        context = self.arm16(at_16) + context
        return at_8, self.conv_head16(F.interpolate(context, at_8.shape[-2:], mode="nearest"))


class _FeatureFusion(nn.Module):
    """Fusion of both paths, followed by residual channel attention."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.convblk = _ConvBlock(n_in, n_out, 1)
        self.conv1 = nn.Conv2d(n_out, n_out // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out // 4, n_out, 1, bias=False)

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat((fine, context), 1))
        return x + x * torch.sigmoid(self.conv2(F.relu(self.conv1(_mean(x)))))


class _Head(nn.Module):
    """Class logits."""

    def __init__(self, n_in: int, n_middle: int, n_classes: int):
        super().__init__()
        self.conv = _ConvBlock(n_in, n_middle, 3)
        self.conv_out = nn.Conv2d(n_middle, n_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


def _mean(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 1, 1]"""
    return x.mean((2, 3), keepdim=True)
