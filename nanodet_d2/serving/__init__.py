"""Detecting for clients over HTTP: pictures in, detections out.

A request's body becomes pictures (``body.py``), which threads with a detector each take from one
queue (``pool.py``); ``service.py`` holds the models by name and refuses what is too much
(``limits.py``). ``app.py`` makes an ASGI application of it. That one application runs in this
process (``run.py``, by uvicorn) or in the replicas of a Ray Serve cluster (``on_ray.py``).

Why not LitServe, whose workers would do the same: it has no bound for its queue and no time limit
once a worker has a request, a SIGTERM ends it at once, an end by Ctrl+C closes the way that answers
take before they are there, and it has no Prometheus metrics (version 0.2.19). Ray Serve brings
these, with a cluster's processes, so it is for clusters. Starlette and uvicorn are beneath both.
"""
