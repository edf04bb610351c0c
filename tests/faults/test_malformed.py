"""Malformed experiments and command lines: right, or a line or two; never a traceback."""

import copy
import functools
import importlib
import json
import os
import random
import sys

import command
import pytest
from faults.malformed import COMMANDS, command_line, malformed, valid

from vitjax import ablation, loop, models
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, find, from_json, known, to_json
from vitjax.plan import forecast

BASES = [to_json(find(name).experiment) for name in known()]
BASES += [
    to_json(Experiment(model, preprocessing=Preprocessing(8), classes=('a', 'b')))
    for model in (models.ViT(head=(7, 5)), models.ConvNet(), models.VGG16())
]


def parts(full):
    return pytest.mark.parametrize(
        'number', [full[0], pytest.param(full[1], marks=pytest.mark.faults)]
    )


def holds(made, asked):
    """Returns True if the experiment made has every value that was asked for."""
    if isinstance(asked, dict):
        return all(holds(made[name], value) for name, value in asked.items())
    return made == asked


@parts((600, 8000))
def test_an_experiment_is_what_was_asked_for_or_refused_in_a_line(number, record_property):
    rng, refused = random.Random(number), 0
    for base in BASES:
        assert valid(json.loads(json.dumps(base)))
    for _ in range(number):
        values = json.loads(json.dumps(malformed(rng.choice(BASES), rng)))
        before = copy.deepcopy(values)
        try:
            made = from_json(values)
        except ValueError as error:
            assert not valid(before), (before, error)
            assert '\n' not in str(error) and len(str(error)) < 500
            refused += 1
        else:
            assert valid(before), before
            assert holds(to_json(made), before) and hash(made) == hash(from_json(to_json(made)))
    assert 0 < refused < number
    record_property('faults', ('malformed experiments', number, number - refused, 0, refused))


class Accepted(Exception):
    """All arguments were taken: here the command's work begins."""


def work(*_, **__):
    raise Accepted


def call(script, arguments, monkeypatch):
    """Runs a script's main up to where its work begins."""
    monkeypatch.setattr(sys, 'argv', [f'{script}.py', *arguments])
    main = importlib.import_module(script).main
    if script in ('train', 'ablate', 'plan'):
        monkeypatch.setattr(loop, 'train', work)
        monkeypatch.setattr(ablation, 'plan', work)
        monkeypatch.setattr(ablation, 'match_flops', work)
        monkeypatch.setattr(forecast, 'training_images', work)
        command.guard(main)
    else:
        command.run(functools.wraps(main)(work))


@pytest.mark.slow
@parts((200, 4000))
def test_a_command_line_is_taken_or_refused_in_a_line_or_two(
    number, monkeypatch, capfd, record_property
):
    rng, refused = random.Random(number), 0
    for i in range(number):
        script = [*COMMANDS][i % len(COMMANDS)]
        arguments, right = command_line(script, rng)
        try:
            call(script, arguments, monkeypatch)
        except Accepted:
            assert right, (script, arguments)
        except SystemExit as stop:
            said = capfd.readouterr().err
            assert not right, (script, arguments, said)
            # 2 for what no flag can read, with where to find help.
            assert stop.code in (1, 2) and said.startswith('error: '), (arguments, said)
            assert len(said.splitlines()) <= 2, (arguments, said)
            assert 'Traceback' not in said
            refused += 1
        assert os.listdir() == []
    assert 0 < refused < number
    record_property('faults', ('malformed command lines', number, number - refused, 0, refused))


@pytest.mark.parametrize(
    ('script', 'arguments', 'said'),
    [
        ('predict', ['run'], 'missing required arguments: PHOTO'),
        (
            'visualize',
            ['run', 'all', '--out', 'o', '--images'],
            '--images must be a list of values, at least 1 of them: it has none.',
        ),
        ('similarity', ['run', '--keep', '['], "--keep must be text, a regular expression: '['"),
        ('convert', ['w', '--out', 'o', '--num-classes', '-1'], '--num-classes must be a whole'),
        ('capture', ['r', '--out', 'o', '--batch-size', '-1'], '--batch-size must be a whole'),
        (
            'convert',
            ['w', '--out=~/r'],
            '--out must not start with ~, which the shell left unexpanded',
        ),
        ('train', ['digits', '--out', '~nosuch/r'], '--out must not start with ~'),
        ('train', ['digits', '--out', ''], '--out must name a folder'),
        ('ablate', ['digits', '--grid'], '--grid must be a list of values, at least 1 of them: it'),
        (
            'ablate',
            ['digits', '--grid', 'model.depth=1', 'model.depth=2'],
            '--grid must name --model.depth once',
        ),
        (
            'ablate',
            ['digits', '--grid', 'steps=1', 'epochs=2'],
            '--epochs must not be an axis',
        ),
        (
            'ablate',
            ['digits', '--grid', 'model.depth=1,1'],
            '--model.depth must have one value or more, all different',
        ),
        ('ablate', ['digits', '--grid', 'rate=1'], 'there is no --rate'),
        ('ablate', ['digits', '--grid', 'a=1', '--grid', 'b=1'], '--grid is given twice'),
        ('ablate', ['digits', '--job', 'a=1', 'a=2'], 'a is given twice: 1 and 2'),
        (
            'plan',
            ['digits', '--target', 'v5e:2x4x9', 'h100:0'],
            'error: h100:0: must be h100, h100:G',
        ),
        (
            'plan',
            ['digits', '--target', 'h100', 'h100:1'],
            'h100:1: --target must name a machine on',
        ),
        (
            'plan',
            ['digits', '--model.dtype', 'float64', '--target', 'h100'],
            "--model.dtype must be one of bfloat16, float16, float32: 'float64'",
        ),
        (
            'train',
            ['digits', '--augment.mixup', '-1'],
            '--augment.mixup must be a number, from 0 to',
        ),
    ],
)
def test_the_line_names_the_flag_the_rule_and_the_value(
    script, arguments, said, monkeypatch, capfd
):
    with pytest.raises((SystemExit, Accepted)):  # `plan` works for the other machines
        call(script, arguments, monkeypatch)
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ('script', 'text'),
    [('train', '--model.depth INT[1,65536]'), ('visualize', '--memory FLOAT>0')],
)
def test_help_shows_the_ranges(script, text, monkeypatch, capfd):
    arguments = ['digits', '--help-all'] if script == 'train' else ['--help-all']
    with pytest.raises(SystemExit) as stop:
        call(script, arguments, monkeypatch)
    assert stop.value.code == 0 and text in capfd.readouterr().out
