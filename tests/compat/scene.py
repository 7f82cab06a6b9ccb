"""Samples with every trait that the compositing functions must cope with."""

import torch


def random_samples(counts, device, dtype=torch.float64, density=20.0, n_channels=0, padding=5):
    """sigmas [M], rgbs [M, 3], deltas [M, 2], rays [N, 3] in a random order of rows, channels [M] each.

    They are the same on all devices.
    """
    counts = torch.as_tensor(counts)
    n, n_rays = int(counts.sum()), len(counts)
    sigmas = torch.zeros(n + padding, device=device, dtype=dtype)
    sigmas[:n] = (torch.rand(n, dtype=dtype) * density).to(device)
    rgbs = torch.rand(n + padding, 3, dtype=dtype).to(device)
    deltas = torch.zeros(n + padding, 2, device=device, dtype=dtype)
    deltas[:n] = (torch.rand(n, 2, dtype=dtype) * 0.1 + 0.01).to(device)
    channels = [torch.randn(n + padding, dtype=dtype).to(device).requires_grad_() for _ in range(n_channels)]
    rays = torch.stack((torch.arange(n_rays), counts.cumsum(0) - counts, counts), 1)[torch.randperm(n_rays)]
    return sigmas.requires_grad_(), rgbs.requires_grad_(), deltas, rays.int().to(device), channels
