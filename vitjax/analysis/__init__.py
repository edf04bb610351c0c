"""Arrays to arrays: what attention, tokens, gradients and representations say."""
