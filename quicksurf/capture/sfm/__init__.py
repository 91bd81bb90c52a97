"""Structure from motion: camera poses from photos alone.

`poses` starts `worker` in a process of its own; `plan` says how hard to look. In the worker: `features` (SIFT),
`matching` (which pairs, their matches), `view_graph` (verified pairs), `mapping` (models of photos), `overlap`
(how many points two photos should share, and do), `joining` (two models to one), `refinement` (the last
bundle adjustment and the lens). Where cameras are given, `given_cameras` finds the points alone, in this process:
`features` and `matching` as above, `tracks` (matches joined and triangulated). `chance` judges pairs for both.
"""
