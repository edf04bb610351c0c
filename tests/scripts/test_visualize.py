"""The whole command on a small model: files, messages and errors."""

import dataclasses
import re
import sys

import command
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import visualize
from PIL import Image

from vitjax import models, runs, views
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment
from vitjax.models.base import parameter_shapes
from vitjax.views import explorer


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photographs')
    pixels = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), np.uint8)
    names = [str(folder / name) for name in ('cat.png', 'dog.png')]
    for name, image in zip(names, pixels, strict=True):
        Image.fromarray(image).save(name)
    return tuple(names)


def write_run(path, model, side):
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(model, side)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape)), shapes)
    runs.write(path, Experiment(model=model, preprocessing=Preprocessing(side, 1)), params)
    return str(path)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    vit = models.ViT(4, 16, 3, 2, num_classes=3)
    return write_run(tmp_path_factory.mktemp('runs') / 'vit', vit, 16)


def test_every_drawing_is_a_figure_and_its_arrays(run, photographs, tmp_path, capsys):
    what = ('heads', 'class-attention', 'filters')
    visualize.main(run, what, images=photographs, out=str(tmp_path))
    names = {'heads.png', 'heads_by_layer.png', 'heads_over_depth.gif', 'filters.png'}
    arrays = {name.split('.')[0] + '.npz' for name in names}
    assert {path.name for path in tmp_path.iterdir()} == names | arrays
    for name in names:
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 100
            assert getattr(image, 'n_frames', 1) == (3 if name.endswith('.gif') else 1)
    said = capsys.readouterr().out
    assert 'heads_over_depth.gif, heads_over_depth.npz' in said
    assert 'class-attention: skipped: ViT has no class-attention layers' in said
    assert np.load(tmp_path / 'heads.npz')['maps'].shape == (2, 2, 4, 4)


def test_figures_come_in_the_formats_asked_for(run, photographs, tmp_path):
    visualize.main(run, ('patches',), images=photographs, out=str(tmp_path), format=('pdf', 'svg'))
    assert {path.name for path in tmp_path.iterdir()} == {
        'patches.pdf', 'patches.svg', 'patches.npz'
    }  # fmt: skip


def test_every_option_of_a_view_has_its_flag(run, photographs, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(views, 'stream', lambda *args: given.append(args[3]) or iter(()))
    options = ['--enlarge', 'nearest', '--layer', '2', '--out', str(tmp_path), '--images']
    monkeypatch.setattr(sys, 'argv', ['visualize.py', run, 'all', *options, *photographs])
    command.parse(command.checked(visualize.main))()
    assert given == [views.Options(enlarge='nearest', layer=2, labels=('vit',))]
    declared = {f'--{field.name}' for field in dataclasses.fields(views.Options)}
    flags = command.flags(command.checked(visualize.main)).keys()
    assert declared - flags == {'--labels'}  # those of the runs


@pytest.mark.slow
def test_the_explorer_is_one_page(run, photographs, tmp_path, capsys):
    other = write_run(tmp_path / 'runs' / 'cait', models.CaiT(8, 16, 2, 2, 1, num_classes=3), 16)
    out = tmp_path / 'out'
    visualize.main(run, ('explorer',), images=photographs, out=str(out), beside=other)
    assert [path.name for path in out.iterdir()] == ['explorer.html']
    page = (out / 'explorer.html').read_text('utf-8')
    assert re.search('<title>vit and cait: ', page)
    assert re.search(r'explorer.html \(0.0\d+ MB\), for a browser', capsys.readouterr().out)
    with pytest.raises(ValueError, match='--beside is for explorer alone: got heads'):
        visualize.main(run, ('heads',), images=photographs, out=str(out), beside=other)


@pytest.mark.slow
def test_a_page_of_too_large_images_shows_smaller_ones(photographs, tmp_path, monkeypatch, capsys):
    large = write_run(tmp_path / 'run', models.ViT(56, 16, 2, 2, num_classes=3), 280)
    monkeypatch.setattr(explorer, 'LIMIT', 3e-3)
    visualize.main(large, ('explorer',), images=photographs, out=str(tmp_path / 'out'))
    assert '224 pixels, not 280' in capsys.readouterr().out


def test_help_lists_every_view():
    text = visualize.description()
    assert all(f' {name}' in text for name in views.VIEWS)
    assert 'attention: heads, class-attention, rollout, distance, relevance.' in text


@pytest.mark.slow
def test_any_image_that_a_browser_shows_goes_in(run, tmp_path):
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
    visualize.main(run, ('norms',), images=files, out=str(tmp_path / 'figures'))
    assert (tmp_path / 'figures' / 'norms.png').exists()
    Image.new('RGB', (1, 40)).save(tmp_path / 'thin.png')
    files = (*files, str(tmp_path / 'thin.png'))
    with pytest.raises(ValueError, match='thin.png'):
        visualize.main(run, ('norms',), images=files, out=str(tmp_path / 'none'))
    assert not (tmp_path / 'none').exists()


@pytest.mark.slow
def test_too_large_an_image_size_is_reduced(photographs, tmp_path, capsys):
    large = write_run(tmp_path / 'run', models.ViT(56, 16, 2, 2, num_classes=3), 280)
    out = tmp_path / 'out'
    visualize.main(large, ('heads',), images=photographs, out=str(out), memory=15e-6)
    said = capsys.readouterr().out
    assert '224 pixels, not 280' in said
    assert 'position embeddings: 5x5 -> 4x4 patches' in said
    assert np.load(out / 'heads.npz')['maps'].shape == (2, 2, 4, 4)


def test_too_little_memory_is_an_error(run, photographs, tmp_path):
    with pytest.raises(ValueError, match='--memory allows 1e-09'):
        visualize.main(run, ('heads',), images=photographs, out=str(tmp_path), memory=1e-9)
