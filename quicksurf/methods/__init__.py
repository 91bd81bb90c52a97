"""Rendering methods: how samples on a ray become weights."""
