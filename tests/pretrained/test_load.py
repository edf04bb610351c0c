import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import published
import pytest
from safetensors.numpy import save_file
from tiny_vit import TINY, assert_equal_trees, quiet, shapes_of, tiny

from vitjax import models, pretrained
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Prepared

DINOV2 = pathlib.Path(__file__).parents[3] / 'shared' / 'weights' / 'dinov2_small.safetensors'


@pytest.fixture(scope='module')
def vit_tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'vit_tiny.safetensors'
    save_file(published.noise(published.timm_vit(*published.VIT['tiny'][:2], 16, 224)), path)
    return path


def test_load_a_file(vit_tiny):
    said = []
    experiment, params = pretrained.load(vit_tiny, report=said.append)
    assert [change.what for change in said] == ['model', 'assumed']
    assert str(said[0]) == 'model: vit_tiny_patch16'
    assert experiment.model == models.named('vit_tiny_patch16')
    assert experiment.preprocessing == Preprocessing(
        224, 0.9, mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5)
    )
    assert len(experiment.classes) == 1000
    assert experiment.classes[281] == 'tabby'
    assert sum(x.size for x in jax.tree.leaves(params)) == 5_717_416


def test_load_a_file_as_something_else(vit_tiny):
    said = []
    experiment, params = pretrained.load(
        vit_tiny,
        model='deit_tiny_patch16',
        image_size=384,
        patch_size=32,
        num_classes=10,
        report=said.append,
    )
    assert said == [
        ('patch kernel', 'patch kernel: 16 -> 32 pixels, by pseudo-inverse'),
        ('positions', 'position embeddings: 14x14 -> 12x12 patches, bicubic, antialiased'),
        ('head', 'head: fresh, 10 classes; was 1000 classes'),
        ('assumed', said[-1].text),
    ]
    assert [str(change) for change in said] == [change.text for change in said]
    assert experiment.model == models.named('deit_tiny_patch16', patch_size=32, num_classes=10)
    assert experiment.preprocessing == Preprocessing(384, 1.0)
    assert experiment.classes == ()
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        lambda x: x.shape, shapes_of(experiment.model, 384)
    )
    with pytest.raises(ValueError, match="no model is named 'deit_tiny'"):
        pretrained.load(vit_tiny, model='deit_tiny')


def test_fit_to_other_sizes():
    params = pretrained.convert(tiny(), TINY, 12, report=quiet)
    prepared = Preprocessing(12, 1.0)
    known = Prepared(model=TINY, preprocessing=prepared, classes=('a', 'b', 'c', 'd', 'e'))
    experiment, same = pretrained.fit(known, params, image_size=12, num_classes=5, report=quiet)
    assert (experiment.model, experiment.preprocessing) == (TINY, prepared)
    assert experiment.classes == known.classes
    assert_equal_trees(same, params)

    said = []
    experiment, other = pretrained.fit(
        known, params, image_size=16, patch_size=8, num_classes=2, report=said.append
    )
    assert [change.what for change in said] == ['patch kernel', 'positions', 'head']
    assert experiment.preprocessing == Preprocessing(16, 1.0)
    assert experiment.augment.size == 16
    assert experiment.classes == ()
    logits: Any = experiment.model.apply({'params': other}, jnp.zeros((1, 16, 16, 3)))
    assert logits.shape == (1, 2)


def test_a_model_without_patches_has_no_other_patch_size():
    model = models.ConvNet(widths=(4,), hidden=3, num_classes=2)
    known = Prepared(model=model, preprocessing=Preprocessing(12, 1.0))
    with pytest.raises(ValueError, match='ConvNet has no patches: patch_size=8'):
        pretrained.fit(known, {}, patch_size=8)


def test_preprocessing_of_every_published_family():
    half = (0.5, 0.5, 0.5)
    for name, size, wanted in (
        ('deit_small_patch16', 224, Preprocessing(224, 0.875)),
        ('deit_base_distilled_patch16', 224, Preprocessing(224, 0.875)),
        ('deit_base_distilled_patch16', 384, Preprocessing(384, 1.0)),
        ('deit3_small_patch16', 224, Preprocessing(224, 1.0)),
        ('vit_base_patch16', 224, Preprocessing(224, 0.9, half, half)),
        ('vit_base_patch16', 384, Preprocessing(384, 1.0, half, half)),
        ('vit_small_patch14_reg4_dinov2', 518, Preprocessing(518, 1.0)),
        ('cait_s24', 384, Preprocessing(384, 1.0)),
        ('patchconvnet_s60', 224, Preprocessing(224, 1.0)),
        ('vgg16', 224, Preprocessing(224, 0.875)),
    ):
        assert pretrained.preprocessing(name, size) == wanted, name


@pytest.mark.skipif(not DINOV2.exists(), reason='needs ../shared/weights/dinov2_small.safetensors')
def test_dinov2_as_published():
    experiment, params = pretrained.load(DINOV2, report=str)
    assert experiment.model == models.named('vit_small_patch14_dinov2')
    assert experiment.preprocessing == Preprocessing(518, 1.0)
    assert sum(x.size for x in jax.tree.leaves(params)) == 22_056_192
