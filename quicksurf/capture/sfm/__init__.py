"""Structure from motion: camera poses from photos alone.

`poses` starts `worker` in a process of its own; `plan` chooses the effort. In the worker: `matching` (SIFT features,
pairs, matches), `view_graph` (verified pairs), `mapping` (models of photos, bundle adjustment), `overlap` (how many
points two photos should have in common, and do), `joining` (merge two models), `resection` (photos placed by the points
of a model), `reconstruct` (all of this in order). Where cameras are given, `given_cameras` finds the points alone, in
this process: `matching` as above, `tracks` (matches joined and triangulated).
"""
