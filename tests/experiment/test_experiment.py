import dataclasses
import json

import pytest

from vitjax import models
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment, differences, find, from_json, known, require_data, to_json
from vitjax.experiment.optim import Optim

MODELS = [
    models.ViT(depth=3, head=(7, 5)),
    models.CaiT(layer_scale=None),
    models.PatchConvNet(se_bias=False),
    models.ConvNet(widths=(4, 8)),
    models.VGG16(),
]


def example(model=MODELS[0], **more):
    return Experiment(
        model,
        Source('folder:x', dir='y'),
        Augment(size=5, enlarge=7),
        Optim(train='head.*'),
        epochs=2.5,
        preprocessing=Preprocessing(size=5),
        classes=('a', 'b'),
        **more,
    )


@pytest.mark.parametrize('model', MODELS)
def test_json_there_and_back(model):
    text = json.dumps(to_json(example(model)))
    assert from_json(json.loads(text)) == example(model)
    assert hash(from_json(json.loads(text))) == hash(example(model))
    assert json.loads(text)['model']['type'] == type(model).__name__


def test_differences_name_the_fields():
    other = dataclasses.replace(
        example(), model=models.ViT(depth=4, head=(7, 5)), optim=Optim(), epochs=None, steps=9
    )
    assert differences(example(), other) == [
        'epochs: 2.5 -> None',
        'model.depth: 3 -> 4',
        'optim.train: head.* -> .*',
        'steps: None -> 9',
    ]
    assert differences(example(), example()) == []


@pytest.mark.parametrize(
    ('values', 'match'),
    [
        ({'model': {'type': 'Swin'}}, "'ViT', .*'VGG16' or MODULE:NAME: 'Swin'"),
        ({'model': {'type': 'ViT', 'deep': 1}}, "no field 'model.deep'; there are model.depth"),
        ({'model': {'type': 'ViT'}, 'epoch': 1}, "no field 'epoch'; there are epochs"),
    ],
)
def test_what_is_no_experiment(values, match):
    with pytest.raises(ValueError, match=match):
        from_json(values)


def test_an_experiment_has_no_images_unless_it_says_which():
    assert Experiment().data is None
    assert from_json(to_json(Experiment())) == Experiment()
    with pytest.raises(ValueError, match='--data.name takes digits, tfds:NAME or folder:PATH'):
        require_data(Experiment())


def test_experiments_are_found_by_name_and_by_path(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text('from vitjax.experiment import Experiment\nexperiment = Experiment(seed=3)\n')
    assert find(str(path)).experiment.seed == 3
    path.write_text('x = 1')
    with pytest.raises(ValueError, match='must define `experiment`'):
        find(str(path))
    with pytest.raises(ValueError, match="no experiment 'digit'; close: digits"):
        find('digit')
    with pytest.raises(ValueError, match=r'is a weights file: .* with --weights w\.npz'):
        find('w.npz')
    (tmp_path / 'experiment.json').touch()
    with pytest.raises(ValueError, match='is a run, not an experiment: .* --weights'):
        find(str(tmp_path))


NAMES = [
    'cait_cifar10', 'convnet_cats_and_dogs', 'convnet_cats_and_dogs_augmented', 'digits',
    'finetune_dinov2', 'patchconvnet_cifar10', 'vit_cifar10', 'vit_cifar100',
]  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_every_experiment_can_be_run_again_from_its_json(name):
    assert set(NAMES) <= known().keys()
    module = find(name)
    assert module.experiment.data is not None
    assert from_json(json.loads(json.dumps(to_json(module.experiment)))) == module.experiment
    assert f'vitjax train {name}' in (module.__doc__ or '')
