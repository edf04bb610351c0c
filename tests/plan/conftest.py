"""Programs whose names are read are compiled anew."""

import jax
import pytest


@pytest.fixture(autouse=True, scope='module')
def _names_of_their_own():
    """Adds names to the keys of cached programs, which may else hold another test's names."""
    jax.config.update('jax_compilation_cache_include_metadata_in_key', True)
    yield
    jax.config.update('jax_compilation_cache_include_metadata_in_key', False)
