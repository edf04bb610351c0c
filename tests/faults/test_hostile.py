"""Files made to do harm: that take all memory, lead out of their folder, or run something."""

import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from faults.conftest import same

from vitjax import activations, pretrained, runs
from vitjax.base import files
from vitjax.data import kinds, paths
from vitjax.data.prepare import cifar, imagenet, shrink
from vitjax.data.source import Source
from vitjax.runs import checkpoint

HUGE = (2**40, 1)  # 4 TiB of float32


def npy(shape, content=b''):
    """A `.npy` whose header says a shape, whatever follows."""
    buffer = io.BytesIO()
    header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + content


def refused(call, match):
    """A line or two, and no memory to speak of."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as error:
            call()
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert len(str(error.value).splitlines()) <= 2


def test_headers_that_claim_4_tib(tmp_path):
    (tmp_path / 'a.npy').write_bytes(npy(HUGE, bytes(400)))
    refused(lambda: activations.from_file(tmp_path / 'a.npy'), 'a.npy must have 4,398,046,')
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('norm.weight.npy', npy(HUGE, bytes(400)))
    refused(lambda: pretrained.read(tmp_path / 'a.npz'), r'norm.weight.npy of float32 .* must have')
    says = json.dumps({'a': {'dtype': 'F32', 'shape': HUGE, 'data_offsets': [0, 2**42]}}).encode()
    content = struct.pack('<Q', len(says)) + says + bytes(400)
    (tmp_path / 'a.safetensors').write_bytes(content)
    refused(lambda: pretrained.read(tmp_path / 'a.safetensors'), 'not a whole safetensors file')
    (tmp_path / 'b.safetensors').write_bytes(struct.pack('<Q', 2**42) + content)
    refused(lambda: pretrained.read(tmp_path / 'b.safetensors'), 'not a whole safetensors file')


def test_a_small_zip_of_much(tmp_path):
    path = tmp_path / 'a.npz'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('a.npy', 'w') as member:
            member.write(npy((2**25,)))
            for _ in range(32):
                member.write(bytes(2**22))
    assert path.stat().st_size < 2**18
    refused(lambda: pretrained.read(path), r'a.npz is not a whole npz file .*would become 134,2')


def test_an_archive_of_much(tmp_path):
    path = tmp_path / 'cifar.tar.gz'
    with tarfile.open(path, 'w:gz') as tar:
        member = tarfile.TarInfo('../data_batch_1.bin')
        member.size = 2**20
        tar.addfile(member, io.BytesIO(bytes(2**20)))
        link = tarfile.TarInfo('test_batch.bin')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        tar.addfile(link)
    with pytest.raises(ValueError, match='not a binary CIFAR archive'):
        cifar.prepare('cifar10', archive=str(path), directory=str(tmp_path / 'data'))
    large = tarfile.TarInfo('data_batch_1.bin')
    large.size = 2**40
    path.write_bytes(large.tobuf())
    refused(
        lambda: cifar.prepare('cifar10', archive=str(path), directory=str(tmp_path / 'data')),
        'not a binary CIFAR archive: .*cifar.tar.gz: ',
    )
    assert {p.name for p in tmp_path.iterdir()} == {'cifar.tar.gz', 'data'}


class Trap:
    def __reduce__(self):
        return os.mkdir, ('trapped',)


@pytest.mark.parametrize('path', ['~nosuch/x', '~nosuch'])
def test_a_home_that_nobody_has(tmp_path, monkeypatch, path):
    monkeypatch.setenv('TFDS_DATA_DIR', path)
    calls = [
        lambda: kinds.load(Source(f'folder:{path}'), 'train'),
        lambda: kinds.load(Source('tfds:cifar10', dir=path), 'train'),
        lambda: kinds.load(Source('tfds:cifar10'), 'train'),
        lambda: cifar.prepare('cifar10', archive=str(tmp_path / 'a'), directory=path),
        lambda: imagenet.prepare(path),
        lambda: shrink.shrink(path, tmp_path / 'out', 8),
        lambda: shrink.shrink(tmp_path, path, 8),
    ]
    for call in calls:
        with pytest.raises(ValueError, match='~nosuch must be a home folder') as error:
            call()
        assert '\n' not in str(error.value)
    assert paths.expanded('~/x') == pathlib.Path.home() / 'x'
    assert os.listdir() == [] and not (tmp_path / 'out').exists()


def test_every_path_with_a_home_is_read_in_one_place():
    root = pathlib.Path(files.__file__).parents[1]
    found = [p.name for p in root.rglob('*.py') if '.expanduser()' in p.read_text('utf-8')]
    assert found == ['paths.py']


def test_nothing_is_unpickled(tmp_path, captured):
    array = np.array([Trap()], object)
    np.save(tmp_path / 'a.npy', array, allow_pickle=True)
    np.savez(tmp_path / 'a.npz', a=array)
    (tmp_path / 'b.npy').write_bytes(pickle.dumps(Trap()))
    out = shutil.copytree(captured.whole, tmp_path / 'capture')
    np.save(out / 'labels.npy', np.array([Trap()] * 21, object), allow_pickle=True)
    for call in (
        lambda: activations.from_file(tmp_path / 'a.npy'),
        lambda: activations.from_file(tmp_path / 'b.npy'),
        lambda: pretrained.read(tmp_path / 'a.npz'),
        lambda: activations.read(out),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert len(str(error.value).splitlines()) == 1
    assert not os.path.exists('trapped')


def test_an_index_does_not_lead_out_of_its_capture(tmp_path, captured):
    out = shutil.copytree(captured.whole, tmp_path / 'capture')
    whole = files.read_json(out / 'index.json')
    shutil.copy(out / 'embed.npy', tmp_path / 'other.3.npy')
    (out / 'blocks.').mkdir()
    for change in (
        {'path': 'blocks', 'layers': ['/../../other', 3]},
        {'path': '../other'},
        {'path': 3},
        {'layers': [0]},
        {'layers': 'ab'},
        {'shape': -1},
        {'shape': [10**30, 8]},
        {'shape': ['a']},
    ):
        stacks = [whole['stacks'][0] | change, *whole['stacks'][1:]]
        files.write_json(out / 'index.json', whole | {'stacks': stacks})
        refused(lambda: activations.read(out), f'^{tmp_path}')


def test_links_do_not_lead_out_of_a_capture(tmp_path, captured):
    out = shutil.copytree(captured.stopped, tmp_path / 'capture')
    for path in list(out.iterdir()):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
        before = (tmp_path / path.name).read_bytes()
        refused(lambda: captured.write(out), f'leads out of {out}')
        assert (tmp_path / path.name).read_bytes() == before
        path.unlink()
        (tmp_path / path.name).rename(path)


def test_a_checkpoint_does_not_lead_out_of_its_run(tmp_path, trained, capfd):
    run = shutil.copytree(trained.killed, tmp_path / 'run')
    digests = run / 'checkpoints' / '40' / 'digests.json'
    known = files.read_json(digests)
    for name in ('../../../secret', '/etc/passwd'):
        files.write_json(digests, known | {name: 'a'})
        reason = checkpoint.damage(run, 40)
        assert reason and 'leads out of' in reason
    files.write_json(digests, known)
    assert checkpoint.damage(run, 40) is None
    (run / 'checkpoints' / '40').rename(tmp_path / '40')
    (run / 'checkpoints' / '40').symlink_to(tmp_path / '40')
    reason = checkpoint.damage(run, 40)
    assert reason and reason.endswith(f'/40 leads out of {run}')
    capfd.readouterr()
    params = runs.load(run, which='latest').params
    assert capfd.readouterr().err.count('\n') == 1
    assert same(params, trained.answer[1])  # those of the checkpoint before, which is the best


def test_a_dataset_does_not_lead_out_of_its_folder(tmp_path):
    for name in ('tfds:../other', f'tfds:{tmp_path}'):
        with pytest.raises(ValueError, match='tfds:NAME must be a name in'):
            kinds.load(Source(name, dir=str(tmp_path / 'data')), 'train')
