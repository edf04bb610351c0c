import dataclasses

import pytest

from vitjax import fields
from vitjax.experiment import Experiment
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
