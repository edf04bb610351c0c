"""Every view of small models of every kind: arrays, reasons and errors."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import SCRIPTS
from PIL import Image

from vitjax import models, views
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.inside import capture
from vitjax.views import forward, target


@pytest.fixture
def draw(opened, photographs):
    """Draws views of a model by name: `{drawing: arrays}`, and the reasons for skipped views."""

    def run(name, *what, **options):
        reasons = []
        drawings = views.draw(opened[name], photographs, *what, report=reasons.append, **options)
        return {drawing.name: drawing.arrays for drawing in drawings}, reasons

    return run


@pytest.mark.slow
def test_all_views_of_a_vit_share_one_pass(draw, monkeypatch):
    passes = []
    gradients = capture.gradients

    def counted(*args, **kwargs):
        passes.append(kwargs['keep'])
        return gradients(*args, **kwargs)

    monkeypatch.setattr(capture, 'gradients', counted)
    begun = []
    arrays, reasons = draw(
        'vit', 'all', steps=2, progress=lambda done, total, now: begun.append((done, now))
    )
    assert len(passes) == 1 and begun == [*enumerate(views.VIEWS)]
    assert list(arrays) == [
        'overview', 'heads', 'heads_by_layer', 'heads_over_depth', 'rollout', 'distance',
        'relevance', 'positions', 'evolution', 'lens', 'rank', 'norms', 'pca', 'patches',
        'activations', 'grad_cam', 'filters', 'maximize', 'field', 'importance', 'explorer',
    ]  # fmt: skip
    assert reasons == ['class-attention: skipped: ViT has no class-attention layers']
    assert arrays['heads']['maps'].shape == (2, 2, 4, 4)
    assert arrays['lens']['logits'].shape == (3, 2, 3)
    assert arrays['grad_cam']['maps'].max() > 0  # of a layer that reaches the answer
    assert arrays['field']['fields'].shape == (3, 16, 16)
    np.testing.assert_allclose(arrays['importance']['left'][0], 1, atol=1e-5)
    assert arrays['patches']['rebuilt'].shape == (1, 16, 16, 3)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vit', 'cait', 'multi', 'convnet'])
def test_an_overview_shows_what_the_views_show(draw, name):
    arrays, _ = draw(name, 'overview', 'pca', *(['relevance'] if name != 'convnet' else []))
    found = arrays['overview']
    np.testing.assert_array_equal(found['components'], arrays['pca']['components'])
    assert ('attention' in found) == (name != 'convnet')
    if name != 'convnet':
        np.testing.assert_array_equal(found['relevance'], arrays['relevance']['maps'])
        assert found['attention'].shape == found['relevance'].shape


@pytest.mark.slow
def test_a_cait_shows_both_stages_and_the_heads_before_and_after_mixing(draw):
    arrays, _ = draw('cait', 'attention', 'lens')
    assert {'heads_mixed', 'saliency', 'lens', 'relevance'} <= arrays.keys()
    assert arrays['class_attention']['maps'].shape == (2, 2, 2, 4, 4)
    rolled = arrays['rollout']['rollout']
    assert rolled.shape == (2, 4, 4) and np.all(rolled.sum((1, 2)) < 1)
    before, after = arrays['heads']['maps'], arrays['heads_mixed']['maps']
    assert before.shape == after.shape and before.min() >= 0
    np.testing.assert_allclose(before.sum((2, 3)), 1, atol=1e-5)
    assert np.abs(after.sum((2, 3)) - 1).max() > 0.1


@pytest.mark.slow
def test_a_patchconvnet_with_a_token_for_each_class(draw):
    arrays, reasons = draw('multi', 'attention', 'grad-cam', 'patches', target='4')
    assert reasons == [
        'heads: skipped: the trunk of PatchConvNet has no attention; see class-attention',
        'distance: skipped: the trunk of PatchConvNet has no attention; see class-attention',
        'patches: skipped: PatchConvNet has no patch embedding at embed/patch',
    ]
    assert arrays['class_attention']['maps'].shape == (2, 4, 4, 4)
    assert arrays['relevance']['maps'].shape == (2, 4, 4)
    assert arrays['relevance']['maps'].max() > 0
    other, _ = draw('multi', 'relevance', target='class1')
    assert np.any(other['relevance']['maps'] != arrays['relevance']['maps'])


def test_a_vit_without_class_token_and_classes(draw):
    arrays, reasons = draw('features', 'heads', 'lens', 'relevance', 'evolution', query=(1, 4))
    assert {'heads', 'lens', 'relevance'} <= arrays.keys()
    assert reasons == ['evolution: skipped: the head of this ViT reads no class token; see lens']
    np.testing.assert_allclose(arrays['lens']['values'][-1], 1, atol=1e-5)


def test_a_convolutional_network(draw):
    arrays, reasons = draw(
        'convnet', 'grad-cam', 'filters', 'maximize', 'field', 'rank', 'activations', 'rollout',
        'positions', 'norms', at='conv_1', channels=(0, 3), steps=2,
    )  # fmt: skip
    assert len(arrays) == 6
    assert reasons == [
        'rollout: skipped: ConvNet has no attention; see grad-cam',
        'positions: skipped: ConvNet has no position embeddings',
        'norms: skipped: ConvNet has feature maps of unequal shapes, not tokens',
    ]
    assert arrays['maximize']['pixels'].shape == (2, 16, 16, 3)
    assert arrays['grad_cam']['maps'].shape == (2, 14, 14)
    sizes = arrays['field']['sizes']
    assert sizes[0] <= 3 < sizes[1] <= 8  # 3x3; then 3x3 after 2x2 pooling of it


def axes_of(drawing):
    assert not isinstance(drawing.figure, list | str)
    return drawing.figure.axes


def heading(loaded, photographs):
    (drawing,) = views.draw(loaded, photographs, 'positions')
    return axes_of(drawing)[0].get_title()


def test_positions_name_their_origin(opened, photographs):
    vit = opened['vit']
    assert '(learned), 4x4' in heading(vit, photographs)
    other = vit._replace(changes=(SimpleNamespace(what='head'),))
    assert '(learned), 4x4' in heading(other, photographs)
    resized = vit._replace(changes=(SimpleNamespace(what='positions'),))
    assert '(learned, interpolated), 4x4' in heading(resized, photographs)
    assert '(sine-cosine), 4x4' in heading(opened['features'], photographs)


@pytest.mark.slow
def test_importance_is_accuracy_if_the_runs_images_are_there(opened, photographs, tmp_path):
    """Accuracy on the run's own test images, else likeness to the whole model."""
    vit = opened['vit']

    def measured(**changes):
        loaded = vit._replace(experiment=dataclasses.replace(vit.experiment, **changes))
        (drawing,) = views.draw(loaded, photographs, 'importance')
        return axes_of(drawing)[1].get_ylabel(), drawing.arrays['left'][0]

    for folder in (tmp_path / s / f'class{c}' for s in ('train', 'test') for c in range(3)):
        folder.mkdir(parents=True)
        Image.fromarray(photographs[0][:16, :16]).save(folder / 'one.png')
    source = Source(f'folder:{tmp_path}')
    ylabel, accuracy = measured(data=source, classes=('class0', 'class1', 'class2'))
    assert ylabel == 'accuracy, 3 test images'
    assert accuracy == pytest.approx(1 / 3)  # the same image in every class
    for changes in ({'data': source}, {'data': None}):  # other classes; no images
        ylabel, likeness = measured(**changes)
        assert ylabel == 'cosine to the whole output'
        assert likeness == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_files_and_arrays_of_the_same_pixels_are_drawn_alike(opened, photographs, tmp_path):
    Image.fromarray(photographs[0]).save(tmp_path / 'cat.png')
    images = [tmp_path / 'cat.png', str(tmp_path / 'cat.png'), photographs[0]]
    found = forward.forward_pass(opened['vit'], images)
    assert found.names == ('cat', 'cat', 'image 3')
    np.testing.assert_array_equal(found.pixels, np.stack([found.pixels[2]] * 3))
    assert found.pixels.shape == (3, 16, 16, 3)


@pytest.mark.parametrize(
    ('what', 'options', 'message'),
    [
        (('attentoin',), {}, "no view is named 'attentoin'; close: attention"),
        ((), {}, 'nothing to draw: name views or groups: all, attention'),
        (('class-attention',), {}, 'class-attention: skipped: ViT has no class-attention layers'),
        (
            ('heads',),
            {'layers': 4},
            "no view has the option 'layers'; there are layer, query",
        ),
        (('heads',), {'layer': 4}, 'layer must be 1 to 3 here: got 4'),
        (('maximize',), {'layer': 0}, 'layer must be 1 to 3 here: got 0'),
        (('patches',), {'image': 3}, 'image must be 1 to 2 here: got 3'),
        (('activations',), {'channels': (16,)}, 'channels must be 0 to 15 at layer 1'),
        (('heads',), {'query': (4, 0)}, '4x4 patches, from 1 on: got 4 0'),
        (('relevance',), {'target': 'clas1'}, "must be a class or 0 to 2: 'clas1'"),
        (('grad-cam',), {'at': 'block'}, "'block' matches none; close: blocks"),
        (('grad-cam',), {'at': '('}, "at must be text, a regular expression: '\\('"),
        (('grad-cam',), {'at': 'norm'}, r'tokens or feature maps: norm is \[2, 16\]'),
        (('maximize',), {'channels': (64,)}, 'must be 0 to 63'),
    ],
)
def test_errors_say_what_to_do(draw, what, options, message):
    with pytest.raises(ValueError, match=message):
        draw('vit', *what, **options)


def test_invalid_images_are_errors(opened, photographs):
    for images, message in (
        ([], 'at least one image'),
        ('cat.png', "must be a list of images: got 'cat.png'"),
        ([photographs[0] / 255], r'must be uint8 \[H, W, 3\]: got float64 \[20, 30, 3\]'),
        (photographs[0], r'got uint8 \[30, 3\]'),
    ):
        with pytest.raises(ValueError, match=message):
            views.draw(opened['vit'], images, 'heads')
    bare = dataclasses.replace(opened['vit'].experiment, preprocessing=None)
    with pytest.raises(ValueError, match='preprocessing must describe'):
        views.draw(opened['vit']._replace(experiment=bare), photographs, 'heads')


def test_a_path_below_a_block_is_drawn(draw):
    assert list(draw('vit', 'grad-cam', at='blocks/mlp')[0]) == ['grad_cam']


def test_a_pattern_draws_every_layer_that_it_matches(draw):
    """All layers of a stack and all channels; grad-cam too; maximize takes one path."""
    at = 'blocks/(attention|mlp/hidden|attention/weights)'  # weights have no patches
    arrays, reasons = draw('vit', 'activations', 'grad-cam', 'maximize', at=at, image=2)
    hidden, attended = 'blocks.mlp.hidden_layer_', 'blocks.attention_layer_'
    assert [name for name in arrays if 'activations' in name] == [
        f'activations_{stem}{layer}' for stem in (attended, hidden) for layer in (1, 2, 3)
    ]
    assert arrays[f'activations_{hidden}3']['blocks.mlp.hidden, layer 3'].shape == (4, 4, 64)
    assert [name for name in arrays if 'grad_cam' in name] == [
        f'grad_cam_{attended}2', f'grad_cam_{hidden}2'
    ]  # fmt: skip
    assert reasons == [f'maximize: skipped: it takes one path, {at!r} matches 3: '
        'blocks/attention, blocks/attention/weights, blocks/mlp/hidden']  # fmt: skip


def test_arrays_name_the_images(draw, opened, photographs):
    arrays, _ = draw('vit', 'heads', 'patches', image=2)
    assert arrays['heads']['names'].tolist() == ['image 1', 'image 2']
    assert arrays['heads_by_layer']['names'] == arrays['patches']['names'] == ['image 2']
    named = {'test 17': photographs[0], 'test 4': photographs[1]}
    assert views.forward_pass(opened['vit'], named).names == ('test 17', 'test 4')


@pytest.mark.slow
def test_memory_grows_with_images_views_and_gradients(opened):
    vit = opened['vit']
    one = views.gigabytes(vit, 1, 'heads')
    assert one == pytest.approx(3 * 2 * 17 * 17 * 4e-9)  # layers, heads, tokens twice; float32
    assert views.gigabytes(vit, 3, 'heads') == pytest.approx(3 * one)
    assert views.gigabytes(vit, 1, 'relevance') == pytest.approx(2 * one)
    assert views.gigabytes(vit, 1, 'heads', 'norms') > one


def test_every_registered_view_is_in_the_readme():
    readme = (SCRIPTS / 'README.md').read_text()
    assert not [name for name in views.VIEWS if f'`{name}`' not in readme]


def test_groups_are_those_of_the_registry():
    assert views.choose(['tokens', 'heads'])[0] == 'heads'
    assert views.choose(['all']) == list(views.VIEWS)


def test_classes_are_found_by_index_and_name():
    experiment = Experiment(
        model=models.ViT(num_classes=3), classes=('tabby, tabby cat', 'dog', '7'),
        preprocessing=Preprocessing(),
    )  # fmt: skip
    assert target.class_index(experiment, 'Tabby cat') == 0
    assert target.class_index(experiment, 'dog') == 1
    assert target.class_index(experiment, '2') == target.class_index(experiment, 2) == 2
