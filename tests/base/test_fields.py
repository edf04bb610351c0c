import dataclasses

import numpy as np
import pytest

from vitjax.base import fields
from vitjax.data.source import Source
from vitjax.experiment import Experiment, from_json, to_json
from vitjax.models import ViT

EXPERIMENT = Experiment(ViT(depth=3))


def test_get_and_replace_reach_into_modules_and_dataclasses():
    changed = fields.replace(EXPERIMENT, 'model.depth', 7)
    assert fields.get(changed, 'model.depth') == 7 and fields.get(EXPERIMENT, 'model.depth') == 3
    assert dataclasses.replace(changed, model=EXPERIMENT.model) == EXPERIMENT
    assert fields.replace(EXPERIMENT, 'seed', 5).seed == 5
    assert fields.get(fields.replace(EXPERIMENT, 'optim.peak', 0.5), 'optim.peak') == 0.5


def test_linen_s_own_fields_are_not_the_user_s_and_others_of_that_name_are():
    assert not {'parent', 'name'} & set(fields.names(EXPERIMENT.model))
    assert 'name' in fields.names(EXPERIMENT.optim)
    assert fields.names(3) == []


@pytest.mark.parametrize('path', ['model.dept', 'model.depth.x', 'model.name', 'modell'])
def test_fields_that_do_not_exist(path):
    for call in (fields.get, lambda tree, path: fields.replace(tree, path, 1)):
        with pytest.raises(ValueError, match='no field'):
            call(EXPERIMENT, path)


def test_close_names_are_offered():
    for call in (fields.get, lambda tree, path: fields.replace(tree, path, 1)):
        with pytest.raises(ValueError, match="no field 'model.dept'; there are model.depth"):
            call(EXPERIMENT, 'model.dept')


def test_differences_are_sorted_and_dotted():
    a = {'x': {'y': 1, 'z': [1]}, 'w': None}
    b = {'x': {'y': 2, 'z': [1]}, 'v': 3}
    assert fields.differences(a, b) == ['v: None -> 3', 'x.y: 1 -> 2']
    assert fields.differences(a, a) == []


def test_a_field_one_level_down_is_offered():
    with pytest.raises(ValueError, match="no field 'depth'; there are model.depth"):
        fields.get(EXPERIMENT, 'depth')


@pytest.mark.parametrize(
    ('path', 'value'),
    [
        ('batch_size', True), ('batch_size', 1.0), ('batch_size', np.int64(8)),
        ('batch_size', 2**31), ('batch_size', 10**400), ('batch_size', '8'), 
        ('patience', 2**63), ('seed', -1),
        ('epochs', 1e308), ('epochs', 10**400), ('epochs', float('inf')),
        ('epochs', -0.0), ('epochs', np.float32(1)), ('epochs', True), ('evaluate_every', 1e308),
        ('optim.peak', float('nan')), ('optim.peak', np.float64('inf')), ('model.remat', 1),
        ('model.remat', np.True_), ('data.name', 'folder:a\0b'), ('data.dir', '\0'),
        ('weights', b'runs'), ('watch', ['cka']), ('watch', 'cka'),
    ],
)  # fmt: skip
def test_values_that_no_run_could_use(path, value):
    changed = fields.replace(Experiment(ViT(), data=Source('digits'), epochs=1), path, value)
    with pytest.raises(ValueError, match=f'^{path} must be') as error:
        fields.require(changed)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 200


@pytest.mark.parametrize(
    ('path', 'value'),
    [
        ('batch_size', 2**31 - 1), ('patience', 2**63 - 1), ('epochs', 2**31 - 1),
        ('epochs', 1e-300), ('optim.peak', -0.0), ('optim.peak', np.float64(0.1)),
        ('optim.peak', 1),
        ('data.name', 'folder:a\nb ~ é'), ('seed', 2**32 - 1),
    ],
)  # fmt: skip
def test_values_at_the_ends_come_back_from_a_file(path, value):
    changed = fields.replace(Experiment(ViT(), data=Source('digits'), epochs=1), path, value)
    fields.require(changed)
    assert fields.get(from_json(to_json(changed)), path) == value


def test_a_number_too_long_to_print():
    with pytest.raises(ValueError, match='^seed must be .*: a number of 16,610 bits.$'):
        fields.require(fields.replace(Experiment(ViT()), 'seed', 10**5000))
