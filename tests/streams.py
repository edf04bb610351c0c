"""Small models with random parameters, random images, and their activations as streams."""

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import activations
from vitjax.data import preprocess
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source
from vitjax.experiment import Experiment
from vitjax.inside import capture
from vitjax.models import ViT

PREPARED = Preprocessing(size=8, crop=0.75, mean=(0.5, 0.4, 0.3), deviation=(0.2, 0.3, 0.4))
SHAPE: dict = {'patch_size': 4, 'width': 8, 'depth': 3, 'num_heads': 2, 'num_classes': 3}
VIT = ViT(registers=1, **SHAPE)


def experiment_of(model, seed=0, size=8):
    """A model with random parameters."""
    prepared = Preprocessing(size, 0.75, PREPARED.mean, PREPARED.deviation)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda key, x: model.init(key, x), jax.random.key(0), images)['params']
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32) / 3, shapes)
    return Experiment(model, Source('digits'), preprocessing=prepared), params


def images_of(count, seed=0, size=16):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Data(pixels, rng.integers(0, 3, count).astype(np.int32), ('a', 'b', 'c'))


def stream_of(model, data, **how):
    return activations.stream(model[0], model[1], data, **how)


def direct(experiment, params, data, keep):
    """Captured arrays of images that Pillow prepared on the host."""
    prepared = experiment.preprocessing
    x = jnp.asarray(preprocess.normalise(preprocess.squares(data.images, prepared), prepared))
    return capture.capture(experiment.model, params, x, keep=keep)[1]


def read_all(source):
    return source.values(np.arange(source.examples))


def hashes_of(source):
    return source.hashes(np.arange(source.examples)).tolist()


def close(a, b):
    np.testing.assert_allclose(a, b, atol=2e-5)
