"""How faithful explanations are: metrics, and the evaluation that collects them.

``metrics`` holds plain functions on tensors. ``methods`` and ``clusters`` apply them to batches of
images, ``model`` does both for a trained classifier and its data, and ``cache`` stores intermediate
results so that an evaluation can be interrupted.
"""
