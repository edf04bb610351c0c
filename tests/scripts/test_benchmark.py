import csv
import math

import pytest
import tyro
from benchmarks import analysis, models

from vitjax.plan import timing


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_attention_writes_a_row_for_every_case_a_table_and_a_figure(tmp_path, capsys):
    models.attention(
        ('talking_heads', 'pooling'), (4, 8), ('chunked',), batch=3, heads=2, head_width=4,
        repeats=2, out=str(tmp_path),
    )  # fmt: skip
    found = rows(tmp_path / 'attention.csv')
    assert len(found) == 2 * 2 * 1 * 2
    assert all(float(row['seconds']) > 0 and float(row['bytes']) > 0 for row in found)
    heads, width, batch, tokens = 2, 8, 3, 8
    forward = 2 * batch * tokens * (4 * width**2 + 2 * tokens * width + 2 * tokens * heads**2)
    cases = {(r['variant'], int(r['tokens']), r['pass']): r for r in found}
    row = cases['talking_heads', tokens, 'forward']
    assert int(row['flops']) == forward
    speed = float(row['flops']) / float(row['seconds'])
    assert float(row['flops_per_second']) == pytest.approx(speed)
    assert float(row['utilisation']) == pytest.approx(speed / timing.peak('float32'))
    assert int(cases['talking_heads', tokens, 'forward+backward']['flops']) == 3 * forward
    keys = tokens + 1  # the class token sees itself
    forward = 2 * batch * (2 * width**2 + 2 * keys * width**2 + 2 * keys * width)
    assert int(cases['pooling', tokens, 'forward']['flops']) == forward
    out = capsys.readouterr().out
    assert 'GFLOP/s' in out and 'exponent of time (s)' in out
    assert (tmp_path / 'attention.png').stat().st_size > 10_000


@pytest.mark.slow
def test_out_of_memory_is_a_row(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(timing, 'device_bytes', lambda: 10_000)
    models.attention(
        ('multi_head',), (4, 64), ('explicit',), batch=1, heads=2, head_width=4, repeats=1,
        out=str(tmp_path),
    )  # fmt: skip
    found = {(r['tokens'], r['pass']): r for r in rows(tmp_path / 'attention.csv')}
    assert found['4', 'forward']['status'] == 'ok'
    large = found['64', 'forward+backward']
    assert large['status'] == 'out of memory' and math.isnan(float(large['seconds']))
    assert float(large['bytes']) > 10_000
    assert 'out of memory' in capsys.readouterr().out


@pytest.mark.slow
def test_models_have_rates_and_exponents(tmp_path, capsys):
    models.model(('vit_tiny_patch32',), (32, 64), depths=(1,), repeats=1, out=str(tmp_path))
    found = rows(tmp_path / 'model.csv')
    assert [(r['depth'], r['pass'], r['tokens']) for r in found] == [
        ('1', direction, tokens) for tokens in '14' for direction in (*models.PASSES, models.STEP)
    ]
    for row in found:
        assert float(row['images_per_second']) == pytest.approx(8 / float(row['seconds']))
    assert int(found[2]['flops']) == int(found[1]['flops']) > 2 * int(found[0]['flops'])
    assert 'exponent' in capsys.readouterr().out and (tmp_path / 'model.png').exists()


def fake_python(folder, *, printed, code=0):
    """Stand-in for a peer's Python: notes its arguments, and prints the same line each time."""
    peer = folder / 'python'
    lines = ['#!/bin/sh', 'test -f "$1" || exit 2', 'echo "$2" >> "$0.asked"', f"echo '{printed}'"]
    peer.write_text('\n'.join([*lines, f'exit {code}']))
    peer.chmod(0o755)
    return str(peer)


@pytest.mark.slow
def test_an_experiment_s_model_is_measured_beside_a_peer(tmp_path):
    peer = fake_python(tmp_path, printed='[1.5, 3.0, 4.0]')
    models.model(('digits',), batch=2, repeats=1, peer=peer, out=str(tmp_path))
    assert (tmp_path / 'python.asked').read_text() == '["digits", 8, 2, "float32", 1]\n'
    found = rows(tmp_path / 'model.csv')
    assert [row['image_size'] for row in found] == ['8', '8', '8']
    assert [row['timm_seconds'] for row in found] == ['1.5', '3.0', '4.0']
    for row in found:
        ratio = float(row['timm_seconds']) / float(row['seconds'])
        assert float(row['times_as_fast']) == pytest.approx(ratio)


@pytest.mark.slow
def test_cka_is_measured_beside_a_peer(tmp_path):
    peer = fake_python(tmp_path, printed='[100.0, [[1.0]]]')
    analysis.similarity((1,), repeats=1, peer=peer, out=str(tmp_path))
    assert (tmp_path / 'python.asked').read_text() == '[1, 4, [64, 37824]]\n'
    (row,) = rows(tmp_path / 'similarity.csv')
    assert float(row['times_as_fast']) == pytest.approx(100 / float(row['seconds']))
    assert float(row['largest_difference']) > 0.5  # noise is not its own copy


@pytest.mark.slow
def test_heads_are_ablated_beside_a_peer(tmp_path):
    peer = fake_python(tmp_path, printed='100.0')
    analysis.interventions('vit_tiny_patch32', 2, 32, 2, repeats=2, peer=peer, out=str(tmp_path))
    asked = (tmp_path / 'python.asked').read_text().splitlines()
    assert asked == [f'["vit_tiny_patch32", 32, 2, [[0, 0], [11, 2]], {i}]' for i in (0, 1)]
    one, loop, theirs = rows(tmp_path / 'intervene.csv')
    assert float(theirs['seconds']) == 100 * 36 / 2
    assert float(theirs['times_as_long']) > 1
    assert float(loop['largest_difference']) < 1e-4 < float(one['seconds'])


def test_a_peer_that_fails_leaves_our_own_numbers(tmp_path):
    peer = fake_python(tmp_path, printed='', code=1)
    analysis.similarity((1,), repeats=1, peer=peer, out=str(tmp_path))
    assert (tmp_path / 'python.asked').exists()
    (row,) = rows(tmp_path / 'similarity.csv')
    assert float(row['seconds']) > 0 and 'times_as_fast' not in row


@pytest.mark.slow
def test_compile_time_is_told_for_each_depth(capsys):
    models.compile_time('vit_tiny_patch32', (1, 3), 32, repeats=1)
    out = capsys.readouterr().out
    assert 'compile s' in out and 'of the first' in out


def test_unknown_variants_are_an_error(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(models.attention, args=['--variants', 'linear'])
    assert 'multi_head' in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused_before_anything_is():
    with pytest.raises(ValueError, match='--model must have blocks/attention/heads.*: convnet'):
        analysis.interventions('convnet', images=1, image_size=150)
    for call in (models.model, analysis.similarity, analysis.interventions):
        with pytest.raises(ValueError, match="--peer must name a Python .*: '/nosuch'"):
            call(peer='/nosuch')
