"""The whole command on small models of every kind: files, arrays, reasons and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import visualize
from PIL import Image

from vitjax import capture, checkpoint, models, views
from vitjax.data.images import Preprocessing
from vitjax.experiment import Experiment

SIDE = 16
MODELS = {
    'vit': models.ViT(4, 16, 3, 2, num_classes=3),
    'features': models.ViT(
        4, 16, 2, 2, num_classes=0, pool='mean', registers=1, position='sincos', dtype='bfloat16'
    ),
    'cait': models.CaiT(4, 16, 2, 2, 2, num_classes=3, layer_scale=0.5),
    'multi': models.PatchConvNet(
        4, 16, 2, num_classes=5, layer_scale=0.5, class_tokens_per_class=True
    ),
    'convnet': models.ConvNet((4, 6), hidden=8, num_classes=1),
}


def random_params(model, side):
    blank = jnp.zeros((1, side, side, 3))
    shapes = jax.eval_shape(lambda key, x: model.init(key, x), jax.random.key(0), blank)['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape)), shapes)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photographs')
    pixels = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), np.uint8)
    names = [str(folder / name) for name in ('cat.png', 'dog.png')]
    for name, image in zip(names, pixels, strict=True):
        Image.fromarray(image).save(name)
    return tuple(names)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    for name, model in MODELS.items():
        params = random_params(model, SIDE)
        classes = tuple(f'class{i}, or so' for i in range(model.num_classes))
        experiment = Experiment(
            model=model, preprocessing=Preprocessing(SIDE, 1.0), classes=classes
        )
        checkpoint.write_run(folder / name, experiment, params)
    return folder


def draw(runs, name, photographs, out, *what, **options):
    visualize.main(str(runs / name), what, images=photographs, out=str(out), steps=2, **options)
    return {path.name for path in out.iterdir()}


def arrays(out, name):
    return dict(np.load(out / f'{name}.npz'))


def test_everything_of_a_vit_from_one_pass(runs, photographs, tmp_path, monkeypatch, capsys):
    passes = []
    gradients = capture.gradients

    def counted(model, params, images, target, *, keep):
        passes.append(keep)
        return gradients(model, params, images, target, keep=keep)

    monkeypatch.setattr(capture, 'gradients', counted)
    files = draw(runs, 'vit', photographs, tmp_path, 'all')
    assert len(passes) == 1
    figures = {name.split('.')[0] for name in files if name.endswith(('.png', '.gif'))}
    assert figures == {name.split('.')[0] for name in files if name.endswith('.npz')}
    assert figures == {
        'heads', 'heads_by_layer', 'heads_over_depth', 'rollout', 'distance', 'relevance',
        'positions', 'evolution', 'lens', 'rank', 'norms', 'patches', 'activations', 'grad_cam',
        'filters', 'maximize', 'field', 'importance',
    }  # fmt: skip
    for name in files:
        if name.endswith(('.png', '.gif')):
            with Image.open(tmp_path / name) as image:
                assert min(image.size) > 100
                assert getattr(image, 'n_frames', 1) == (3 if name.endswith('.gif') else 1)
    said = capsys.readouterr().out
    assert 'class-attention: none: ViT has no class-attention layers' in said
    assert arrays(tmp_path, 'heads')['maps'].shape == (2, 2, 4, 4)
    assert arrays(tmp_path, 'lens')['logits'].shape == (3, 2, 3)
    assert arrays(tmp_path, 'grad_cam')['maps'].max() > 0  # of a layer that reaches the answer
    assert arrays(tmp_path, 'field')['fields'].shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(arrays(tmp_path, 'importance')['left'][0], 1, atol=1e-5)
    np.testing.assert_allclose(arrays(tmp_path, 'patches')['rebuilt'].shape, (1, SIDE, SIDE, 3))


def test_a_cait_shows_both_stages_and_the_heads_before_and_after_mixing(
    runs, photographs, tmp_path
):
    files = draw(runs, 'cait', photographs, tmp_path, 'attention', 'lens')
    assert {'heads_mixed.png', 'saliency.png', 'lens.png', 'relevance.png'} <= files
    assert arrays(tmp_path, 'class_attention')['maps'].shape == (2, 2, 2, 4, 4)
    rolled = arrays(tmp_path, 'rollout')['rollout']
    assert rolled.shape == (2, 4, 4) and np.all(rolled.sum((1, 2)) < 1)
    before, after = arrays(tmp_path, 'heads')['maps'], arrays(tmp_path, 'heads_mixed')['maps']
    assert before.shape == after.shape and before.min() >= 0
    np.testing.assert_allclose(before.sum((2, 3)), 1, atol=1e-5)
    assert np.abs(after.sum((2, 3)) - 1).max() > 0.1


def test_a_patchconvnet_with_a_token_for_each_class(runs, photographs, tmp_path, capsys):
    draw(runs, 'multi', photographs, tmp_path, 'attention', 'grad-cam', target='4')
    said = capsys.readouterr().out
    assert 'heads: none: the trunk of PatchConvNet is convolutional; see class-attention' in said
    assert arrays(tmp_path, 'class_attention')['maps'].shape == (2, 4, 4, 4)
    assert arrays(tmp_path, 'relevance')['maps'].shape == (2, 4, 4)
    assert arrays(tmp_path, 'relevance')['maps'].max() > 0


def test_a_vit_without_class_token_and_classes(runs, photographs, tmp_path):
    files = draw(
        runs, 'features', photographs, tmp_path, 'heads', 'lens', 'relevance', 'positions',
        query=(0, 3),
    )  # fmt: skip
    assert {'heads.png', 'lens.png', 'relevance.png', 'positions.png'} <= files
    np.testing.assert_allclose(arrays(tmp_path, 'lens')['values'][-1], 1, atol=1e-5)


def test_a_convolutional_network(runs, photographs, tmp_path, capsys):
    files = draw(
        runs, 'convnet', photographs, tmp_path, 'grad-cam', 'filters', 'maximize', 'field', 'rank',
        'activations', 'rollout', at='conv_1', channels=(0, 3),
    )  # fmt: skip
    assert len(files) == 12
    assert 'rollout: none: ConvNet has no attention' in capsys.readouterr().out
    assert arrays(tmp_path, 'maximize')['pixels'].shape == (2, SIDE, SIDE, 3)
    assert arrays(tmp_path, 'grad_cam')['maps'].shape == (2, 14, 14)
    sizes = arrays(tmp_path, 'field')['sizes']
    assert sizes[0] <= 3 < sizes[1] <= 8  # 3x3; then 3x3 after 2x2 pooling of it


@pytest.mark.parametrize(
    ('what', 'options', 'message'),
    [
        (('attentoin',), {}, "no view is named 'attentoin'; close: attention"),
        ((), {}, 'say what to draw: all, attention'),
        (('class-attention',), {}, 'class-attention: none: ViT has no class-attention layers'),
        (('heads',), {'layer': 4}, '--layer must be 1 to 3 here: got 4'),
        (('heads',), {'query': (4, 0)}, '4x4 patches, from 0 on: got 4 0'),
        (('relevance',), {'target': 'clas1'}, "must be a class or 0 to 2: 'clas1'"),
        (('grad-cam',), {'at': 'blocks/mlp'}, None),
        (('grad-cam',), {'at': 'block'}, "'block' is none; close: blocks"),
        (('grad-cam',), {'at': 'norm'}, r'tokens or feature maps: norm is \[2, 16\]'),
        (('maximize',), {'channels': (64,)}, 'must be 0 to 63'),
        (('heads',), {'memory': 1e-9}, '--memory allows 1e-09'),
    ],
)
def test_errors_say_what_to_do(runs, photographs, tmp_path, what, options, message):
    if message is None:  # a path that is there
        assert 'grad_cam.png' in draw(runs, 'vit', photographs, tmp_path, *what, **options)
        return
    with pytest.raises(ValueError, match=message):
        draw(runs, 'vit', photographs, tmp_path, *what, **options)


def test_any_image_that_a_browser_shows_goes_in(runs, tmp_path):
    """Grey, palette, transparent, 16 bits, turned by the camera, 50 megapixels; not one pixel."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (20, 30, 3), np.uint8)
    grey = Image.fromarray(pixels[..., 0])
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures = {
        'grey.png': (grey, {}),
        'palette.gif': (Image.fromarray(pixels).quantize(16), {}),
        'transparent.webp': (Image.fromarray(np.dstack([pixels, pixels[..., 0]])), {}),
        'deep.png': (Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), {}),
        'turned.jpg': (Image.fromarray(pixels), {'exif': turned}),
        'large.jpg': (Image.new('RGB', (10_000, 5_000), (200, 30, 60)), {}),
    }
    for name, (image, options) in pictures.items():
        image.save(tmp_path / name, **options)
    files = tuple(str(tmp_path / name) for name in pictures)
    draw(runs, 'vit', files, tmp_path / 'figures', 'attention')
    assert len(list((tmp_path / 'figures').glob('*.png'))) > 0
    Image.new('RGB', (1, 40)).save(tmp_path / 'thin.png')
    with pytest.raises(ValueError, match='thin.png'):
        draw(runs, 'vit', (*files, str(tmp_path / 'thin.png')), tmp_path / 'none', 'attention')
    assert not (tmp_path / 'none').exists()


def test_too_large_an_image_size_is_reduced(photographs, tmp_path, capsys):
    model = models.ViT(56, 16, 2, 2, num_classes=3)
    params = random_params(model, 280)
    run = tmp_path / 'run'
    checkpoint.write_run(
        run, Experiment(model=model, preprocessing=Preprocessing(280, 1.0)), params
    )
    out = tmp_path / 'out'
    visualize.main(str(run), ('heads', 'positions'), images=photographs, out=str(out), memory=15e-6)
    said = capsys.readouterr().out
    assert '224 pixels, not 280' in said
    assert 'position embeddings: 5x5 -> 4x4 patches' in said
    assert np.load(out / 'heads.npz')['maps'].shape == (2, 2, 4, 4)


def test_classes_are_found_by_number_and_name():
    experiment = Experiment(
        model=models.ViT(num_classes=3), classes=('tabby, tabby cat', 'dog', '7')
    )
    assert views._class_index(experiment, 'Tabby cat') == 0
    assert views._class_index(experiment, 'dog') == 1
    assert views._class_index(experiment, '2') == 2
    assert views._class_index(experiment, None) is None
