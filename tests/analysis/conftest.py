"""Small models whose parameters are large enough that everything in them matters."""

import jax
import jax.numpy as jnp
import pytest
from helpers import normal
from helpers import random_params as make

from vitjax import models


@pytest.fixture(scope='session')
def random_params():
    """A function of a model and images."""
    return lambda model, images: jax.tree.map(jnp.asarray, make(model, images))


@pytest.fixture(scope='session')
def vit(random_params):
    """A small ViT, images, and its parameters."""
    model, images = models.ViT(8, 16, 3, 4, num_classes=3), jnp.asarray(normal(2, 16, 16, 3))
    return model, images, random_params(model, images)
