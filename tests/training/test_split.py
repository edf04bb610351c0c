"""Arrays that the compiled program of `fsdp` gathers and keeps, read from its text."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from vitjax.data.augment import Augment, augment
from vitjax.experiment.optim import Optim, optimizer
from vitjax.models import CaiT, PatchConvNet, ViT
from vitjax.training import layout
from vitjax.training.step import Recipe, init_state, train_step

DEPTH, BATCH = 3, 8 * 11  # no size of a parameter is a multiple of 11
MODELS = {
    'vit': ViT(patch_size=4, width=64, depth=DEPTH, num_heads=2, num_classes=5),
    'remat': ViT(patch_size=4, width=64, depth=DEPTH, num_heads=2, num_classes=5, remat=True),
    'bfloat16': ViT(patch_size=4, width=64, depth=DEPTH, num_heads=2, dtype='bfloat16'),
    'cait': CaiT(patch_size=4, width=64, depth=DEPTH, num_heads=2, num_classes=5),
    'patchconvnet': PatchConvNet(patch_size=4, width=128, depth=DEPTH, num_classes=5),
}
KINDS = 'all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter'


@functools.cache
def training(name):
    model = MODELS[name]
    tx = optimizer(Optim(peak=1e-3), 10)
    vary = functools.partial(augment, Augment(size=16), ((0.5,) * 3, (0.5,) * 3), model.num_classes)
    start = functools.partial(
        init_state, jax.random.key(0), model=model, tx=tx, image_shape=(16, 16, 3), ema=True
    )
    recipe, state = Recipe(model=model, tx=tx, augment=vary), jax.eval_shape(start)

    def step(state, batch, key, split):
        return train_step(state, batch, key, dataclasses.replace(recipe, split=split))

    return step, state


@functools.cache
def compiled(name):
    data = jax.ShapeDtypeStruct((100, 16, 16, 3), np.uint8), jax.ShapeDtypeStruct((100,), np.int32)
    (step, state), made = training(name), layout.layout('fsdp', batch_size=BATCH)
    arguments = made.abstract([state], data, 2, [jax.random.key(1)])
    return made.wrap(step, state).lower(*arguments).compile()


def collectives(text):
    """Kind and result shapes of each collective of a program."""
    for line in text.splitlines():
        if found := re.search(rf'= (.*?) ({KINDS})(-start)?\(', line):
            for shape in re.findall(r'\w+\[([\d,]*)\]', found[1]):
                yield found[2], tuple(int(n) for n in shape.split(',') if n)


@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_weights_are_gathered_and_no_activation_is(name):
    found = list(collectives(compiled(name).as_text()))
    assert any(kind == 'all-gather' for kind, _ in found)
    carried = [(kind, shape) for kind, shape in found if np.prod(shape, dtype=int) % 11 == 0]
    assert not carried


@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_no_device_holds_a_whole_stack_of_weights_moments_or_gradients(name):
    """Nor the copies that the forward pass gathered, for the backward pass."""
    text, (_, state) = compiled(name).as_text(), training(name)
    stacks = {leaf.shape for leaf in jax.tree.leaves(state.params['blocks'])}
    split = {shape for shape in stacks if np.prod(shape[1:]) >= 2**14}
    assert split
    for shape in split:
        assert f'[{",".join(map(str, shape))}]' not in text


@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_each_device_is_given_its_part(name):
    _, state = training(name)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    whole = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
        if leaf.size < DEPTH * 2**14
    )
    images = 100 * (16 * 16 * 3 + 4)
    given = compiled(name).memory_analysis().argument_size_in_bytes
    assert given < (size - whole) / 8 + whole + images + 1000
