import ast
import pathlib
import re

import jax
import pytest

from vitjax.base import keys

PACKAGE = pathlib.Path(keys.__file__).parents[1]
NAMED_IN_A_LOOP = {'augment/__init__.py': {'flip', 'shift', 'turn', 'zoom', 'crop'}}


@pytest.mark.parametrize(
    ('name', 'bits'),
    [
        ('train', [741385414, 1246256389]),
        ('augment', [2594941615, 3686925351]),
        ('dropout', [3992892943, 3444976499]),
        ('flip', [1360350363, 1449153302]),
        ('box', [2376715033, 2185020722]),
    ],
)
def test_a_name_is_the_same_stream_in_every_version(name, bits):
    assert jax.random.key_data(keys.purpose(jax.random.key(7), name)).tolist() == bits


def test_every_purpose_is_documented():
    """The names that the package folds in and those that the module's docstring lists agree."""
    lists = re.findall(r'purpose ([a-z]+(?:, [a-z]+)*)', keys.__doc__ or '')
    documented = {name for names in lists for name in names.split(', ')}
    used = set()
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split('.')[-1] == 'purpose':
                match node.args[1]:
                    case ast.Constant(value):
                        used.add(value)
                    case _:
                        used |= NAMED_IN_A_LOOP.get(f'{path.parent.name}/{path.name}', set())
    assert len(used) > 10
    assert used == documented
