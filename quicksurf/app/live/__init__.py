"""The live view: a local page that shows a fit or a run and has buttons to steer the fit.

    server.py   opens the page's server (viser): address and port
    gate.py     who may connect, and which messages pass
    nodes.py    the scene: cameras with photos, points, the region of interest, the mesh
    panel.py    the panel beside it: stage, time, figures, curve, buttons
    preview.py  the mesh during the fit: extraction, schedule and resolution
    session.py  `fit --view`: the listener that connects these to the fit
    replay.py   `view RUN`: the same page for a run folder

viser runs its server in a thread of its own and calls back from others. These callbacks only queue actions or change
the display; everything that touches the fit happens in the fit's own thread, between two of its steps.
"""
