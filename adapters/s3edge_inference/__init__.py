"""
Inference for s3edge: what a predictor is, and one that needs no GPU.

- ``predictors``: the ``Predictor`` protocol and its values; imports nothing heavy.
- ``cpu``: ``CpuPredictor``, on scikit-image; import it in the process that computes.
- ``colours``: the colours a prompt names, and how well pixels match them.
"""
