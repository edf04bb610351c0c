"""Words in the views' figures, and arrays chosen by options."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from vitjax import views
from vitjax.views import examples, forward


@pytest.fixture
def drawn(opened, photographs):
    """The drawings of a view of a model, by name."""

    def run(name, *what, images=photographs, **options):
        made = views.draw(opened[name], images, *what, report=lambda reason: None, **options)
        return {drawing.name: drawing for drawing in made}

    return run


def words(drawing):
    """All text of a figure."""
    figure = drawing.figure
    said = [figure.get_suptitle()]
    for axis in figure.axes:
        said += [axis.get_title(), axis.get_xlabel(), axis.get_ylabel()]
    return '\n'.join(said)


def test_maps_name_their_layer_and_whose_attention_they_are(drawn):
    made = drawn('vit', 'heads', layer=2)
    assert "the class token's attention, layer 2 of 3" in words(made['heads'])
    assert 'attention / uniform' in words(made['heads']) and 'image 1' in words(
        made['heads_by_layer']
    )
    other = drawn('vit', 'heads', query=(2, 3), image=2)
    assert 'the patch in row 2, column 3' in words(other['heads'])
    assert 'image 2' in words(other['heads_by_layer'])
    assert 'blue: below 0' in words(drawn('cait', 'heads')['heads_mixed'])


def test_maps_are_drawn_over_uniform_attention(drawn):
    heads = drawn('vit', 'heads')['heads']
    picture = np.asarray(heads.figure.axes[1].images[0].get_array())
    np.testing.assert_allclose(picture, 17 * heads.arrays['maps'][0, 0], rtol=1e-6)


def test_overlays_name_the_class_and_its_probability(drawn, opened, photographs):
    said = words(drawn('vit', 'relevance')['relevance'])
    found = forward.forward_pass(opened['vit'], photographs)
    best = found.logits.argmax(1)[0]
    assert f'predicted: class{best}, {found.probability[0, best]:.0%}' in said
    assert "gradient of the class's logit" in said
    asked = words(drawn('vit', 'grad-cam', target='class2')['grad_cam'])
    assert f'asked: class2, {found.probability[0, 2]:.0%}' in asked
    # What nobody differentiates is of no class.
    rolled = words(drawn('vit', 'rollout', target='class2')['rollout'])
    assert 'asked' not in rolled and 'predicted' in rolled


@pytest.mark.parametrize('view', ['relevance', 'grad-cam'])
def test_fractions_of_a_maximum_have_a_maximum_of_1(drawn, view):
    made = drawn('vit', view)[view.replace('-', '_')]
    assert "fraction of each map's maximum" in words(made)
    axes = made.figure.axes
    shown = [np.asarray(axis.images[1].get_array()) for axis in axes if len(axis.images) > 1]
    assert [float(values.max()) for values in shown] == pytest.approx([1, 1])


def test_photographs_keep_their_resolution(drawn, opened, photographs):
    """The square that the model sees as 16 pixels has 20 in the files."""
    results = forward.forward_pass(opened['vit'], photographs)
    assert results.pixels.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(results.photographs[0], photographs[0][:, 5:25] / np.float32(255))
    for view in ('heads', 'relevance', 'grad-cam'):
        axis = drawn('vit', view)[view.replace('-', '_')].figure.axes[0]
        np.testing.assert_array_equal(axis.images[0].get_array(), results.photographs[0])


def test_grad_cam_without_evidence_says_so(opened, photographs):
    results = forward.forward_pass(opened['vit'], photographs, keep=['blocks'], gradients=True)
    flat = dataclasses.replace(results, grads={'blocks': 0 * results.grads['blocks']})
    (drawing,) = views.VIEWS['grad-cam'].draw(flat)
    assert words(drawing).count('nothing is positive') == 2


def test_images_of_one_name_in_two_folders_are_told_apart(opened, photographs, tmp_path):
    files = [tmp_path / folder / 'cat.png' for folder in 'ab']
    for file, pixels in zip(files, photographs, strict=True):
        file.parent.mkdir()
        Image.fromarray(pixels).save(file)
    assert forward.forward_pass(opened['vit'], files).names == ('a/cat', 'b/cat')


@pytest.mark.slow
def test_figures_without_classes_name_the_target_of_gradients(drawn):
    said = words(drawn('features', 'relevance')['relevance'])
    assert 'half the squared length of the features' in said and 'predicted' not in said
    assert 'gradient of the logit' in words(drawn('convnet', 'grad-cam')['grad_cam'])


def test_tokens_of_classes_carry_their_names_and_probabilities(drawn, opened, photographs):
    titles = words(drawn('multi', 'class-attention')['class_attention'])
    found = forward.forward_pass(opened['multi'], photographs)
    for image, odds in enumerate(found.probability):
        for index in np.argsort(-odds)[:4]:
            assert found.answer(image, int(index)) in titles


def test_activations_of_a_chosen_image_layer_and_channel(drawn, opened, photographs):
    made = drawn('vit', 'activations', image=2, layer=3, channels=(5,))['activations']
    assert 'image 2' in words(made) and 'channel 5' in words(made)
    found = forward.forward_pass(opened['vit'], photographs, keep=['blocks']).patches()[2, 1, :, 5]
    np.testing.assert_allclose(made.arrays['layer 3'], found.reshape(4, 4, 1), rtol=1e-5)
    hidden = drawn('vit', 'activations', at='blocks/mlp/hidden', layer=1)['activations']
    assert hidden.arrays['blocks.mlp.hidden, layer 1'].shape == (4, 4, 64)
    whole = drawn('vit', 'activations')['activations']
    assert [name for name, values in whole.arrays.items() if values.ndim == 3] == [
        'layer 1', 'layer 2', 'layer 3'
    ]  # fmt: skip


def test_activations_of_a_convolutional_network_have_its_poolings(drawn):
    arrays = drawn('convnet', 'activations')['activations'].arrays
    shapes = {name: a.shape for name, a in arrays.items() if a.ndim == 3}
    assert shapes == {
        'conv_1': (14, 14, 4), 'pool_1': (7, 7, 4), 'conv_2': (5, 5, 6), 'pool_2': (2, 2, 6)
    }  # fmt: skip
    np.testing.assert_array_equal(
        arrays['pool_1'], arrays['conv_1'].reshape(7, 2, 7, 2, 4).max((1, 3))
    )
    one = drawn('convnet', 'activations', at='pool_1', channels=(3,))['activations'].arrays
    np.testing.assert_array_equal(one['pool_1'], arrays['pool_1'][..., 3:])


@pytest.mark.slow
def test_a_model_of_grey_images_is_drawn_in_grey(drawn, opened, photographs):
    grey = [np.repeat(photo[..., :1], 3, -1) for photo in photographs]
    assert examples.grey(forward.forward_pass(opened['vit'], grey))
    assert not examples.grey(forward.forward_pass(opened['vit'], photographs))
    made = drawn('vit', 'filters', 'maximize', images=grey, steps=2)
    assert made['filters'].arrays['filters'].shape == (16, 4, 4)
    assert 'grey' in words(made['filters'])
    pixels = np.asarray(made['maximize'].arrays['pixels'])
    np.testing.assert_array_equal(pixels, pixels[..., :1].repeat(3, -1))


def test_grey_is_decided_by_the_runs_own_images(opened, photographs):
    """Digits are grey, whatever the images of the results."""
    from vitjax.data.source import Source

    experiment = dataclasses.replace(
        opened['vit'].experiment, data=Source('digits'), classes=tuple('0123456789')
    )
    loaded = opened['vit']._replace(experiment=experiment)
    assert examples.grey(forward.forward_pass(loaded, photographs))


def test_gradient_ascent_leaves_no_frame(drawn):
    """Pixels near the border change about as much as those in the middle."""
    pixels = drawn('convnet', 'maximize', steps=12, channels=(0, 1))['maximize'].arrays['pixels'][
        :2
    ]
    changed = np.asarray(pixels).std((0, 3))
    inner = np.zeros((16, 16), bool)
    inner[3:-3, 3:-3] = True
    assert changed[~inner].mean() > 0.5 * changed[inner].mean()
