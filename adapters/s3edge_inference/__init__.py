"""
Inference for s3edge: GPU servers over HTTP, and a predictor that needs no GPU.

Over HTTP (the extra ``http``):

- ``http_backend``: the ``InferenceBackend`` port on one or several GPU servers. It needs to reach them
  and their ``API_SECRET_KEY``; a server that is down or too slow is ``SERVICE_UNAVAILABLE``.
- ``servers``: which server takes a request, and which is rested after failures; no input, no output.
- ``inference_api``: the messages of the inference API, and what counts as an answer.
- ``refusals``: what an answer that is no success means.
- ``examination``: what ``s3edge doctor`` looks at.

On the machine with the model (the extra ``inference-server``):

- ``server``: what answers the inference API; needs the gateway's storage and its ``API_SECRET_KEY``, and
  the service key of the database if it is to write outcomes by itself.
- ``sam3``: the predictor ``sam3``, Meta's SAM 3 (the extra ``sam3``); it needs weights.
- ``engine_backend``: the ``InferenceBackend`` port on the same engine, for a worker that takes tasks from
  the queue instead of being asked. ``elsewhere`` is what its gateways have in the model's place.

In the gateway's own processes (the extra ``inference``):

- ``in_process``: the ``InferenceBackend`` port on a predictor.
- ``predictors``: the ``Predictor`` protocol and its values; imports nothing heavy.
- ``worker_processes``: runs a predictor, an image in each process.
- ``decoding``, ``encoding``: from a file that somebody sent to pixels, within limits; from mask to file.
- ``cpu``: ``CpuPredictor``, on scikit-image; import it in the process that computes.
- ``colours``: the colours a prompt names, and how well pixels match them.
"""
