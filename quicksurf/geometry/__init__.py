"""Cameras, rays, paths and colours: pure functions of tensors."""
