"""Parameters for small models without compiling their initialisation."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope='session')
def random_params():
    """A function of a model and images: parameters large enough that everything matters."""

    def make(model, images):
        init = jax.eval_shape(lambda key, x: model.init(key, x), jax.random.key(0), images)
        rng = np.random.default_rng(0)
        return jax.tree.map(
            lambda leaf: jax.numpy.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype),
            init['params'],
        )

    return make
