"""
The predictor ``sam3``: Meta's SAM 3 by text prompts, through Hugging Face's transformers.

It needs the extra ``sam3``, weights, and a GPU unless time does not matter. It opens no socket but
to the hub, and that only where the weights are named by their name there.

- ``predictor``: the ``Predictor``, and what its settings mean; light until ``load``.
- ``weights``, ``hub``: where the weights are, and whether they are whole; how they come from the hub.
- ``preprocessing``: from an image to what the model looks at.
- ``model``: SAM 3 in memory: images to embeddings, embeddings and prompts to outputs.
- ``instances``: from the model's outputs to one mask and a list of what is in it.
"""
