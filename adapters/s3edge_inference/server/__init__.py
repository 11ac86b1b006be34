"""
The inference server: what answers the gateway on a machine with a GPU.

- ``app``: the endpoints, and the life of the process behind them.
- ``engine``: what is behind them, put together.
- ``tasks``: a task from its request to its answer, once however often it is asked.
- ``images``: where an image may come from, and what is refused before it is decoded.
- ``batching``: requests that wait for the model go through it together.
- ``model``: loads the predictor and runs it, in a thread or in processes.
- ``believable``: of what it says, what a gateway would not believe is its failure.
- ``model_thread``: the thread, which nothing waits for when the GPU hangs.
- ``records``: writes into the database that a task is worked on, and how it ended.
- ``messages``, ``refusals``: the inference API on the server's side.
- ``metrics``: what Prometheus is told.
- ``options``: what the settings say, and the limits that are no setting.
"""
