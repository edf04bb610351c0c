"""Analyses of attention, tokens, gradients and representations: arrays to arrays."""
