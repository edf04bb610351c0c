import numpy as np
import published
import pytest
from tiny_vit import quiet, tiny

from vitjax import models, pretrained

SIZES = list(published.every_size())


@pytest.mark.slow
@pytest.mark.parametrize('case', SIZES, ids=['-'.join(map(str, case[:3])) for case in SIZES])
def test_every_published_size_is_recognised_and_fits(case):
    name, kind, size, shapes = case
    weights = published.zeros(shapes)
    if kind == 'timm' and name.startswith(('vit', 'deit_')) and 'distilled' not in name:
        twins = [f'{family}_{name.split("_", 1)[1]}' for family in ('vit', 'deit')]
        if twins[1] in models.NAMES:
            with pytest.raises(
                ValueError, match=f'several models: {", ".join(twins)}; name one with --model'
            ):
                pretrained.recognise(weights)
    assert pretrained.recognise(weights, f'hub/{name}_{size}/model.safetensors') == name
    classes = 21843 if kind == 'augreg' else 0 if 'dinov2' in name else 1000
    model = models.named(name, num_classes=classes)
    found, parameters = pretrained.match(weights, model, size, report=quiet)
    names = [name for each in parameters.values() for layer in each.names for name in layer]
    used = sum(found.weights[name].size for name in names)
    unused = ('pooler', 'mask_token')
    held = sum(t.size for n, t in weights.items() if not any(u in n for u in unused))
    assert used == held  # every number once


def test_sizes_cover_the_table():
    assert {case[0] for case in SIZES} == set(models.NAMES) - {'convnet'}


def test_recognise_prefers_a_files_own_name_to_its_folders():
    weights = published.zeros(published.timm_vit(*published.VIT['tiny'][:2], 16, 224))
    recognise = pretrained.recognise
    assert recognise(weights, 'vit_runs/deit_tiny_patch16_224.safetensors') == 'deit_tiny_patch16'
    assert recognise(weights, 'deit/vit-tiny.safetensors') == 'vit_tiny_patch16'
    with pytest.raises(ValueError, match='several models'):
        recognise(weights, 'davit.safetensors')


def test_unpublished_sizes_and_foreign_names_are_errors():
    with pytest.raises(ValueError, match=r"timm's ViT names, but no published size: depth 2.*12"):
        pretrained.recognise(tiny())
    with pytest.raises(ValueError, match=r'must have names of .*: they have stem.weight, \.\.\.'):
        pretrained.recognise({'stem.weight': np.zeros(3)})
    with pytest.raises(ValueError, match='they have nothing'):
        pretrained.recognise({})
    with pytest.raises(ValueError, match='ConvNet'):
        pretrained.convert(tiny(), models.ConvNet(), 150)
    with pytest.raises(ValueError, match="timm's CaiT names.*fit the model"):
        pretrained.convert(tiny(), models.CaiT(4, 12, 2, num_heads=3, num_classes=5), 12)
