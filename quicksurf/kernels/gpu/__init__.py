"""Kernels for NVIDIA GPUs: tiny-cuda-nn where it is installed, else Triton."""
