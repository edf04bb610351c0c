"""Parts of models in plain jax: embeddings, attention, blocks and the stack over depth."""
