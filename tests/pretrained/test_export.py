"""Weights written back: the file that was read, tensor by tensor, and what libraries open."""

import json
import pathlib
import subprocess
import sys
import zlib
from typing import Any

import jax
import numpy as np
import pytest
from helpers import random_params
from safetensors.numpy import save_file
from tiny_models import CAIT, CONVNET, CURRENT, MULTI, POOLED, VIT

from vitjax import runs
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Prepared
from vitjax.pretrained import read
from vitjax.pretrained.export import export, write

CURRENT_ONES = pathlib.Path(__file__).parents[1] / 'golden/current'
EVA = CURRENT.clone(rope='eva02', norm='layer', qk_norm=False, pre_norm=False, fc_norm=True)
CLIP = VIT.clone(
    registers=0, pre_norm=True, patch_bias=False, head_bias=False, layer_scale=None,
    mlp='quick_gelu', norm_epsilon=1e-5,
)  # fmt: skip
ROUND = {
    'timm': {
        'vit': VIT.clone(registers=0), 'registers': VIT.clone(prefix_positions='none'),
        'eva02': EVA, 'eva02 small': EVA.clone(mlp_norm=False),
        'mixed': VIT.clone(rope='mixed', position='none', registers=0),
        'distilled': VIT.clone(pool='distilled', registers=0), 'cait': CAIT,
        'mean': VIT.clone(pool='mean', registers=0), 'swiglu': VIT.clone(mlp='swiglu', registers=0),
    },
    'transformers': {
        'vit': VIT.clone(registers=0, layer_scale=None), 'clip': CLIP,
        'distilled': VIT.clone(pool='distilled', registers=0, layer_scale=None),
        'classifier': VIT.clone(pool='class_and_mean', registers=0),
        'registers': VIT.clone(num_classes=0),
        'dinov3': VIT.clone(
            num_classes=0, rope='dinov3', position='none', mlp='swiglu', key_bias=False,
            norm_epsilon=1e-5,
        ),
        'siglip': VIT.clone(pool='map', num_classes=0, registers=0, layer_scale=None),
    },
    'safetensors': {'patchconvnet': MULTI, 'pooled': POOLED, 'current': CURRENT},
}  # fmt: skip
CASES = [(library, name) for library, cases in ROUND.items() for name in cases]


def made(model, library, folder):
    """A folder of a model with random parameters; the experiment and parameters."""
    images = Preprocessing(16, 0.9, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), 'bilinear')
    experiment = Prepared(model=model, augment=Augment(size=16), preprocessing=images)
    params = random_params(model, np.zeros((1, 16, 16, 3), np.float32), zlib.crc32(b'export'))
    write(folder, experiment, params, library)
    return experiment, params


@pytest.mark.parametrize(('library', 'name'), CASES)
def test_a_model_comes_back(library, name, tmp_path):
    model = ROUND[library][name]
    experiment, params = made(model, library, tmp_path / 'out')
    loaded = runs.load(tmp_path / 'out', report=lambda change: None)
    own = loaded.experiment.model
    # Initial values of LayerScale are no part of weights.
    fields = {'layer_scale': model.layer_scale} if 'layer_scale' in vars(model) else {}
    assert own.clone(**fields, drop_path=0.0) == model
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    if library != 'transformers':  # whose processor is a file of its own
        assert loaded.experiment.preprocessing == experiment.preprocessing


@pytest.mark.parametrize('name', ['dinov3', 'eva02_tiny', 'siglip'])
def test_a_published_file_comes_back_tensor_by_tensor(name):
    loaded = runs.load(CURRENT_ONES / name, report=lambda change: None)
    back, wanted = export(loaded.experiment, loaded.params, 'timm'), read(CURRENT_ONES / name)
    assert back.tensors.keys() == wanted.keys()
    for tensor, value in wanted.items():
        np.testing.assert_array_equal(back.tensors[tensor], value)


@pytest.mark.parametrize(
    ('library', 'model', 'match'),
    [
        ('timm', MULTI, 'timm has no PatchConvNet'),
        ('timm', VIT.clone(head=(8,)), r'timm has no ViT with head=\(8,\): only \(\)'),
        ('timm', VIT, "registers and prefix_positions='class'"),
        ('transformers', CAIT, 'transformers has no CaiT'),
        ('transformers', VIT.clone(norm='rms'), "norm='rms': only 'layer'"),
        ('transformers', VIT.clone(rope='axial'), "rope='axial': only 'dinov3'"),
    ],
)
def test_what_a_library_lacks_is_refused_by_field(library, model, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        made(model, library, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / 'mine').write_text('')
    with pytest.raises(OSError, match=str(tmp_path)):
        made(VIT.clone(registers=0), 'timm', tmp_path)


def test_a_damaged_file_of_ours_names_what_is_missing(tmp_path):
    made(VIT, 'safetensors', tmp_path / 'out')
    weights = read(tmp_path / 'out')
    del weights['norm.scale']
    save_file(weights, tmp_path / 'out/model.safetensors')
    with pytest.raises(ValueError, match=r'missing.*\n- norm/scale \[8\]'):
        runs.load(tmp_path / 'out')


def test_transformers_current_names_are_written(tmp_path):
    made(ROUND['transformers']['vit'], 'transformers', tmp_path / 'out')
    names = set(read(tmp_path / 'out'))
    assert 'vit.layers.0.attention.q_proj.weight' in names
    assert json.loads((tmp_path / 'out/config.json').read_text())['model_type'] == 'vit'


def test_a_card_says_what_the_folder_is(tmp_path):
    made(VIT.clone(registers=0), 'timm', tmp_path / 'out')
    text = (tmp_path / 'out/README.md').read_text()
    assert "timm.create_model('local-dir:FOLDER', pretrained=True)" in text
    assert '5 classes. Images of 16x16 pixels' in text


@pytest.mark.slow
@pytest.mark.parametrize('model', [VIT, CURRENT, CAIT, MULTI, CONVNET], ids=repr)
def test_a_program_runs_without_vitjax_on_any_batch(model, tmp_path):
    experiment, params = made(model, 'stablehlo', tmp_path / 'out')
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    np.save(tmp_path / 'images.npy', images)
    run = (
        'import jax, numpy as np, sys; sys.modules["vitjax"] = None\n'
        'program = jax.export.deserialize(bytearray(open("out/model.stablehlo", "rb").read()))\n'
        'np.save("logits.npy", program.call(np.load("images.npy")))\n'
        'assert {*program.platforms} == {"cpu", "cuda", "tpu"}'
    )
    subprocess.run([sys.executable, '-c', run], cwd=tmp_path, check=True)
    wanted: Any = experiment.model.apply({'params': params}, images)
    got = np.load(tmp_path / 'logits.npy')
    assert np.abs(got - wanted).max() < 1e-5 * np.abs(wanted).max()
