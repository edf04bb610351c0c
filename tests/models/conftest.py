"""These tests compile many tiny models and run each once; in haste that takes half the time."""

import jax
import pytest


@pytest.fixture(autouse=True, scope='package')
def compile_in_haste():
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)
