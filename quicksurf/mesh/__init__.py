"""From a fitted field to triangles on disk."""

from quicksurf.mesh.types import Field, Mesh

__all__ = ["Field", "Mesh"]
