"""The live view: a page on this machine that shows a fit, or a run, and has buttons to steer it.

    server.py   opens the page's server (viser): address, port, what it must not do
    nodes.py    what stands in the scene: cameras with photos, points, the region of interest, the mesh
    panel.py    what stands beside it: stage, time, figures, curve, buttons
    pacing.py   how often and how fine the growing mesh is made
    live.py     `fit --view`: the listener that ties these to the pipeline
    replay.py   `view RUN`: the same page for a run folder

viser runs its server in a thread of its own and calls back from others. These callbacks only note actions or send
what is already made; everything that touches the fit happens in the fit's own thread, between two of its steps.
"""
