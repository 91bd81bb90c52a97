"""The texture of a mesh, baked from its photos."""
