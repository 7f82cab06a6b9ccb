"""Kernels under the names that programs for other kernel packages import."""
