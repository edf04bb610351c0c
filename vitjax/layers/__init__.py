"""What models are made of: embeddings, attention, blocks and the stack over depth."""
