import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
from tiny_vit import TINY, assert_equal_trees, quiet, tiny

from vitjax import models, pretrained


def test_image_size_resamples_positions_and_says_so(capsys):
    weights = tiny()
    params = pretrained.convert(weights, TINY, 20)
    assert capsys.readouterr().out == (
        'position embeddings: 3x3 -> 5x5 patches, bicubic, antialiased\n'
    )
    same = pretrained.convert(weights, TINY, 12)
    table, old = params['embed']['position']['table'], same['embed']['position']['table']
    assert table.shape == (26, 12)
    np.testing.assert_array_equal(table[0], old[0])  # the class token's
    # The middle cell of 5 lies on the middle cell of 3.
    np.testing.assert_allclose(table[1 + 12], old[1 + 4], atol=1e-5)
    params['embed']['position']['table'] = old
    assert_equal_trees(params, same)


def test_transformers_positions_are_resampled_its_way():
    weights = tiny()
    said = []
    for registers in (0, 4):
        model = TINY.clone(layer_scale=1.0, num_classes=0, registers=registers)
        shapes = published.transformers_dinov2(12, 2, 12, registers=registers, patch=4)
        pretrained.convert(published.noise(shapes), model, 8, report=said.append)
    pretrained.convert(published.as_transformers(weights), TINY, 8, report=said.append)
    ways = [
        str(change).removeprefix('position embeddings: 3x3 -> 2x2 patches, bicubic, ')
        for change in said
    ]
    assert ways == ['not antialiased', 'antialiased', 'not antialiased']


def test_patch_size_keeps_what_an_enlarged_image_gives(capsys):
    """An image and its enlargement have the same tokens (FlexiViT's aim, exact for enlarging)."""
    weights = tiny()
    big = TINY.clone(patch_size=8)
    params = pretrained.convert(weights, TINY, 12)
    larger = pretrained.convert(weights, big, 24)
    assert capsys.readouterr().out == 'patch kernel: 4 -> 8 pixels, by pseudo-inverse\n'
    patch = jax.random.normal(jax.random.key(0), (5, 4, 4, 3))
    resized = jax.image.resize(patch, (5, 8, 8, 3), 'bilinear')
    kernels = [p['embed']['patch']['projection']['kernel'] for p in (params, larger)]
    np.testing.assert_allclose(
        resized.reshape(5, -1) @ kernels[1], patch.reshape(5, -1) @ kernels[0], atol=1e-4
    )


def test_other_classes_get_a_fresh_head(capsys):
    weights = tiny()
    whole = pretrained.convert(weights, TINY, 12)
    fresh = pretrained.convert(weights, TINY.clone(num_classes=3), 12)
    assert capsys.readouterr().out == 'head: fresh, 3 classes; was 5 classes\n'
    kernel = fresh.pop('head')['output']['kernel']
    assert kernel.shape == (12, 3)
    assert 0 < jnp.abs(kernel).max() < 0.05
    again = pretrained.convert(weights, TINY.clone(num_classes=3), 12, seed=1, report=str)
    assert (again['head']['output']['kernel'] != kernel).all()
    none = pretrained.convert(weights, TINY.clone(num_classes=0), 12)
    assert capsys.readouterr().out == 'head: left out; was 5 classes\n'
    whole.pop('head')
    assert_equal_trees(fresh, whole)
    assert_equal_trees(none, whole)
    headless = {name: value for name, value in weights.items() if 'head' not in name}
    pretrained.convert(headless, TINY, 12)
    assert capsys.readouterr().out == 'head: fresh, 5 classes; was none\n'


def test_other_classes_get_their_own_class_tokens():
    weights = published.noise(published.patchconvnet(16, 2, classes=3, multi=True))
    model = models.PatchConvNet(width=16, depth=2, num_classes=4, class_tokens_per_class=True)
    said = []
    params = pretrained.convert(weights, model, 32, report=said.append)
    assert list(map(str, said)) == ['head: fresh, 4 classes; was 3 classes']
    assert params['class_token'].shape == params['head']['kernel'].shape == (4, 16)


def test_resize_of_nothing_is_the_identity():
    params = pretrained.convert(tiny(), TINY, 12, report=quiet)
    assert_equal_trees(pretrained.resize(params, TINY, 12, report=quiet), params)


def test_resize_refuses_another_model_naming_every_parameter():
    params = pretrained.convert(tiny(), TINY, 12, report=quiet)
    with pytest.raises(ValueError) as error:
        pretrained.resize(params, TINY.clone(mlp_ratio=2.0, layer_scale=0.1), 12)
    lines = str(error.value).splitlines()
    assert lines[0].startswith('the parameters cannot be made to fit ViT at 12 pixels')
    assert '- blocks/scale_1/scale [2, 12]' in lines
    assert '  blocks/mlp/hidden/kernel: is [2, 12, 48], must be [2, 12, 24]' in lines
    assert len(lines) == 1 + 2 + 3
