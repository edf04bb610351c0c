import json

import pytest

from vitjax.runs import records


def record(step, split='train', loss=0.5):
    return {'step': step, 'epoch': 0.0, 'split': split, 'loss': loss, 'accuracy': 0.5, 'seconds': 1}


def test_lines_after_a_checkpoint_are_dropped(tmp_path, capsys):
    for step in (1, 2, 3):
        records.append(tmp_path, record(step))
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 4, "spl')  # a kill in the middle of a line
    assert [r['step'] for r in records.read_metrics(tmp_path)] == [1, 2, 3]
    assert [r['step'] for r in records.rewind(tmp_path, 2)] == [1, 2]
    assert [r['step'] for r in records.read_metrics(tmp_path)] == [1, 2]
    assert records.tested(tmp_path) is None
    records.append(tmp_path, record(3, 'test', 0.1))
    assert records.tested(tmp_path) == record(3, 'test', 0.1)
    assert records.rewind(tmp_path, 0) == [] and records.read_metrics(tmp_path) == []
    assert capsys.readouterr().err == ''  # nothing was lost


@pytest.mark.parametrize(
    'content',
    [
        None,
        b'',
        b'thesis\n',
        b'{"step": 1}\n[1]\n"a"\n3\nnull\n',
        b'\xff\xfe\n' + json.dumps(record(2)).encode(),
        json.dumps(record(1)).encode()[:50] + b'\n' + json.dumps(record(2)).encode() + b'\n',
    ],
)
def test_lines_come_back_from_the_checkpoint(tmp_path, capsys, content):
    kept = [record(1), record(2)]
    path = tmp_path / 'metrics.jsonl'
    if content is not None:
        path.write_bytes(content)
    assert records.rewind(tmp_path, 2, kept) == kept == records.read_metrics(tmp_path)
    assert capsys.readouterr().err.count('\n') == 1
    whole = path.read_bytes()
    assert records.rewind(tmp_path, 2, kept) == kept and path.read_bytes() == whole
    assert capsys.readouterr().err == ''


def test_a_run_with_a_damaged_line_is_not_finished(tmp_path):
    for line in (record(1), record(1, 'validation'), record(1, 'test')):
        records.append(tmp_path, line)
    path = tmp_path / 'metrics.jsonl'
    whole = path.read_bytes()
    assert records.tested(tmp_path)
    path.write_bytes(whole.replace(b'0.5', b'0.7', 1))
    assert records.tested(tmp_path) is None
