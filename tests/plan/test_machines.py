import types

import jax
import pytest
from jax.experimental import topologies

from vitjax.plan import machines


@pytest.mark.parametrize('name', ['h1000', 'v5x:2x2', '', 'here:8'])
def test_unknown_machines_are_refused(name):
    with pytest.raises(ValueError, match=f"'here', or one of a100, h100.*: '{name}'"):
        machines.machine(name)


@pytest.mark.parametrize('topology', [
    '-1', '0', 'x', '9', '16', '999999', '', '1x', 'x8', '2x8x1', '0x8', '513x8', '08', '²', '٣',
    '1.0', ' 1', '1 ', '1_0', '1\n',
])  # fmt: skip
def test_impossible_gpu_topologies_are_refused(topology):
    with pytest.raises(ValueError, match='^h100:') as error:
        machines.machine(f'h100:{topology}')
    assert '1 to 8 GPUs a host' in str(error.value) and repr(topology) in str(error.value)


@pytest.mark.parametrize('name', [
    'v5e:2x4x9', 'v5e:0x4', 'v5e:4', 'v5e:', 'v5e:-2x4', 'v5e:17x16', 'v6e:2x4x1', 'v4:2x2',
    'v4:2x2x0', 'v5p:99x99x99', 'v5e:²x4',
])  # fmt: skip
def test_impossible_tpu_topologies_are_refused(name):
    with pytest.raises(ValueError, match=f'^{name}: must have [23] sides') as error:
        machines.machine(name)
    assert '\n' not in str(error.value)


def test_names_have_a_kind_and_a_topology():
    assert machines.named('h100') == machines.named('h100:1') == machines.named('h100:1x1')
    assert machines.named('a100:512x8').topology == (512, 8)
    assert machines.named('v5e:16x16').topology == (16, 16) and machines.named('v5e').topology == ()
    assert machines.named('v5p:16x20x28').topology == (16, 20, 28)


@pytest.mark.parametrize(
    ('name', 'error', 'said'),
    [
        ('h100', NotImplementedError('topology not implemented for cuda'), r'\.\[cuda\]'),
        ('v5e:2x4', RuntimeError('JAX TPU support not installed; cannot'), r'\.\[tpu\]'),
        ('v6e:3x5', ValueError('Topology layout is not divisible'), '^v6e:3x5: Topology layout'),
    ],
)
def test_machines_without_a_compiler_are_an_error_of_one_line(name, error, said, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(topologies, 'get_topology_desc', fail)
    monkeypatch.setattr(jax.config, 'update', lambda *setting: None)
    with pytest.raises(ValueError, match=said) as raised:
        machines.machine(name)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('name', 'topology', 'count'),
    [('h100', '1x1x1', 8), ('h100:8', '1x1x8', 8), ('a100:2x4', '1x2x4', 8)],
)
def test_gpus_are_described(name, topology, count, monkeypatch):
    asked = {}

    def describe(kind, **options):
        asked.update(options)
        return types.SimpleNamespace(devices=jax.devices())

    monkeypatch.setattr(topologies, 'get_topology_desc', describe)
    monkeypatch.setattr(jax.config, 'update', lambda *setting: None)
    assert len(machines.machine(name).devices) == count
    assert asked['topology'] == topology
    text = asked['target_config']
    assert text.count('{') == text.count('}') and 'major: ' in text
    assert 'block_dim_limit_x: 2147483647' in text
