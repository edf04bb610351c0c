import json
import sys

import matplotlib.image
import plan
import pytest

SMALL = '--model.depth 1 --model.width 16 --model.num-heads 2 --steps 5'.split()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['plan.py', 'digits', *SMALL, *arguments])
    return plan.main()


@pytest.mark.slow
def test_from_command_line_to_table_json_and_picture(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'plan'
    code = run(monkeypatch, '--parallel', 'none', '--target', 'here', '--out', str(out))
    shown = capsys.readouterr().out
    assert code == 0 and 'largest batch that fits' in shown and 'blocks/mlp/hidden' in shown
    (each,) = json.loads((out / 'plan.json').read_text())
    assert each['machine'] == 'here' and each['fits'] and each['batch_size'] == 64
    assert each['report']['flops'] > 0 and each['report']['memory']['temporaries'] > 0
    assert each['step_seconds'] is None  # nobody knows what this machine can do
    assert matplotlib.image.imread(out / 'plan.png').std() > 0.01


@pytest.mark.slow
def test_a_target_that_fails_does_not_hide_the_others(tmp_path, monkeypatch, capsys):
    arguments = ['--parallel', 'none', '--target', 'here', 'h1000', '--out', str(tmp_path / 'plan')]
    assert run(monkeypatch, *arguments) == 1
    said = capsys.readouterr()
    assert 'h1000: machine must be' in said.err and 'fits' in said.out


def test_data_that_are_not_here(tmp_path, monkeypatch):
    arguments = ['--data.name', 'tfds:cifar10', '--data.dir', str(tmp_path)]
    with pytest.raises(ValueError, match='not prepared(.|\n)*--images COUNT'):
        run(monkeypatch, *arguments)
