"""Captures on disk: what they hold, killed and resumed, refused where unequal."""

import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import streams
from streams import close, read_all, stream_of

from vitjax import activations
from vitjax.runs import provenance


def test_a_capture_holds_what_the_stream_says(captured, vit, data, found):
    index = json.loads((captured / 'index.json').read_text())
    assert index['done'] == index['examples'] == 21
    assert (index['data'], index['split'], index['tokens']) == ('noise', 'test', 'mean')
    assert index['dtype'] == 'float32' and index['model']['type'] == 'ViT'
    assert index['weights'] == provenance.digest(vit[1], end='\n')
    close(np.load(captured / 'blocks.0-2.npy'), found['blocks'][:, :, 2:].mean(2))
    back = activations.read(captured)
    assert back.names == ['embed', 'blocks 1', 'blocks 2', 'blocks 3']
    np.testing.assert_array_equal(back.labels, data.labels)
    assert activations.select(back, 'blocks').names == back.names[1:]
    some = activations.subset(back, 3)
    np.testing.assert_array_equal(read_all(some)[1], read_all(back)[1][:, [0, 10, 20]])
    np.testing.assert_array_equal(some.labels, data.labels[[0, 10, 20]])
    with pytest.raises(ValueError, match="'norm' matches none of embed, blocks"):
        activations.select(back, 'norm')
    with pytest.raises(ValueError, match='from 1 to 21, the images there are: 22'):
        activations.subset(back, 22)


def test_float16_takes_half_and_says_what_does_not_fit(vit, data, captured, tmp_path):
    stream = stream_of(vit, data, keep='blocks', tokens='mean')
    activations.write(stream, tmp_path / 'half', dtype='float16')
    half, whole = (activations.read(p) for p in (tmp_path / 'half', captured))
    np.testing.assert_allclose(read_all(half)[0], read_all(whole)[1], rtol=1e-3, atol=1e-3)
    experiment, params = vit
    large = {**params, 'embed': jax.tree.map(lambda p: p * 1e6, params['embed'])}
    stream = activations.stream(experiment, large, data)
    with pytest.raises(ValueError, match=r'blocks 1 does not fit float16: it reaches'):
        activations.write(stream, tmp_path / 'large', dtype='float16')
    broken = {**params, 'embed': jax.tree.map(lambda p: p * np.nan, params['embed'])}
    stream = activations.stream(experiment, broken, data)
    with pytest.raises(ValueError, match=r'blocks 1 has activations that are NaN'):
        activations.write(stream, tmp_path / 'broken')


def test_a_stopped_capture_goes_on_with_the_same_numbers(vit, data, captured, tmp_path):
    stream = stream_of(vit, data, keep='blocks|embed', tokens='mean',
                                about={'data': 'noise', 'split': 'test'})  # fmt: skip
    seen = []

    def stop(done, total=0, /, *, now=''):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        activations.write(stream, tmp_path, batch_size=8, report=stop)
    with pytest.raises(ValueError, match='not finished: 16 of 21'):
        activations.read(tmp_path)
    made = []
    counted = dataclasses.replace(stream, values=lambda r: made.extend(r) or stream.values(r))
    activations.write(
        counted, tmp_path, batch_size=8, report=lambda done, *_, **__: seen.append(done)
    )
    assert seen == [8, 16, 21] and made == [16, 17, 18, 19, 20]
    one, other = (read_all(activations.read(p))[1] for p in (tmp_path, captured))
    np.testing.assert_array_equal(one, other)
    names = sorted(p.name for p in captured.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    index = [(p / 'index.json').read_text() for p in (tmp_path, captured)]
    assert index[0] == index[1]
    before = (tmp_path / 'index.json').stat().st_mtime_ns
    activations.write(stream, tmp_path, report=stop)  # finished: nothing is done
    assert (tmp_path / 'index.json').stat().st_mtime_ns == before


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import streams as t
from vitjax import activations
from vitjax.runs import provenance
stream = activations.stream(*t.experiment_of(t.VIT), t.images_of(21), keep='blocks|embed',
    tokens='mean', about={'data': 'noise', 'split': 'test'})
activations.write(stream, sys.argv[2], batch_size=4,
    report=lambda done, _: done == 12 and os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.slow
def test_a_killed_capture_goes_on(vit, data, captured, tmp_path):
    here = str(pathlib.Path(streams.__file__).parent)
    killed = subprocess.run([sys.executable, '-c', KILLED, here, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / 'index.json').read_text())['done'] == 12
    stream = stream_of(vit, data, keep='blocks|embed', tokens='mean',
                                about={'data': 'noise', 'split': 'test'})  # fmt: skip
    activations.write(stream, tmp_path, batch_size=4)
    for one, other in zip(*(read_all(activations.read(p)) for p in (tmp_path, captured)),
                          strict=True):  # fmt: skip
        close(one, other)
    assert (tmp_path / 'index.json').read_text() == (captured / 'index.json').read_text()


def test_another_capture_is_not_overwritten(vit, data, captured, tmp_path):
    copy = shutil.copytree(captured, tmp_path / 'copy')
    other = stream_of(vit, data, keep='blocks|embed', tokens='class')
    with pytest.raises(ValueError, match='holds another capture') as error:
        activations.write(other, copy)
    assert '  tokens: "mean" -> "class"' in str(error.value)
    trained = activations.stream(vit[0], jax.tree.map(lambda p: p + 1, vit[1]), data,
                                 keep='blocks|embed', tokens='mean')  # fmt: skip
    with pytest.raises(ValueError, match='  weights: "'):
        activations.write(trained, copy)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'notes').write_text('precious')
    with pytest.raises(ValueError, match=r'a capture has an index.json: .*mine has none'):
        activations.write(other, tmp_path / 'mine')
    with pytest.raises(ValueError, match="'float32' or 'float16': 'float64'"):
        activations.write(other, tmp_path / 'new', dtype='float64')


def test_the_disk_is_looked_at_before_the_first_byte(vit, data, monkeypatch, tmp_path):
    stream = stream_of(vit, data, tokens='all')
    needed = 21 * (3 * 6 * 8 * 4 + 12)
    for free, fits in ((needed, False), (needed + 2**19, True)):
        usage = type('Usage', (), {'free': free})
        monkeypatch.setattr(shutil, 'disk_usage', lambda path, usage=usage: usage)
        if fits:
            activations.write(stream, tmp_path / 'out')
            continue
        with pytest.raises(ValueError, match=r'the capture takes 0.0 GB, .* has 0.0 GB free'):
            activations.write(stream, tmp_path / 'out')
        assert not (tmp_path / 'out').exists()
