"""The report of a run as one page: quality of the capture and of the mesh, and what to photograph next."""
