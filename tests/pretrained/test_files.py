import os
import stat
import sys
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_vit import assert_equal_trees, tiny

from vitjax import pretrained, runs


def test_read_safetensors_and_npz(tmp_path):
    weights = tiny()
    weights['norm.bias'] = weights['norm.bias'].astype(ml_dtypes.bfloat16)
    save_file(weights, tmp_path / 'a.safetensors')
    assert_equal_trees(pretrained.read(tmp_path / 'a.safetensors'), weights)
    del weights['norm.bias']
    np.savez(tmp_path / 'a.npz', allow_pickle=False, **weights)
    assert_equal_trees(pretrained.read(str(tmp_path / 'a.npz')), weights)


def write_bad_file(path, kind):
    np.savez(path, a=np.ones(100))
    if kind == 'truncated':
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == 'zip':
        with zipfile.ZipFile(path, 'w') as file:
            file.writestr('notes.txt', 'no array')
    elif kind == 'empty zip':
        zipfile.ZipFile(path, 'w').close()
    elif kind == 'pickled':
        np.savez(path, a=np.array([{}], object))
    elif kind == 'npy':
        with path.open('wb') as file:
            np.save(file, np.ones(3))
    elif kind == 'damaged':
        data = bytearray(path.read_bytes())
        data[300:310] = bytes(10)
        path.write_bytes(data)
    elif kind == 'text':
        path.write_text('hello')
    elif kind == 'empty':
        path.write_bytes(b'')


@pytest.mark.parametrize(
    ('kind', 'reason'),
    [
        ('truncated', 'is not a whole npz file: it has no directory'),
        ('zip', 'is a zip, not an npz: it holds notes.txt'),
        ('empty zip', 'is a zip, not an npz: it holds nothing'),
        ('pickled', 'is not a whole npz file of plain arrays: .*allow_pickle=False'),
        ('npy', 'is not a whole npz file: it has no directory'),
        ('damaged', 'is not a whole npz file of plain arrays: '),
        ('text', 'is not a whole npz file: it has no directory'),
        ('empty', 'is not a whole npz file: it has no directory'),
    ],
)
def test_bad_npz_files(tmp_path, kind, reason):
    path = tmp_path / 'weights.npz'
    write_bad_file(path, kind)
    with pytest.raises(ValueError, match=f'{path} {reason}') as error:
        pretrained.read(path)
    assert len(str(error.value).splitlines()) <= 2


def test_bad_safetensors_files(tmp_path):
    path = tmp_path / 'a.safetensors'
    save_file(tiny(), path)
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[:100], whole[:4], b'', b'\xff' * 100, b'PK' + whole):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f'{path} is not a whole safetensors file') as error:
            pretrained.read(path)
        assert len(str(error.value).splitlines()) == 1


def test_other_files(tmp_path):
    with pytest.raises(ValueError, match=r'there is no run and no weights file .*a\.npz'):
        pretrained.read(tmp_path / 'a.npz')
    with pytest.raises(ValueError, match=r'must be a \.safetensors or \.npz file: weights\.h5'):
        pretrained.read('weights.h5')


@pytest.mark.parametrize('suffix', ['.safetensors', '.npz'])
@pytest.mark.parametrize('kind', ['pipe', 'directory', 'device', 'socket', 'link'])
def test_anything_but_a_regular_file_is_refused(tmp_path, suffix, kind):
    """Before it is opened: to open a pipe waits for whoever writes to it."""
    path = tmp_path / f'a{suffix}'
    match kind:
        case 'pipe':
            os.mkfifo(path)
        case 'directory':
            path.mkdir()
        case 'device':
            path.symlink_to(os.devnull)
        case 'socket':
            os.mknod(path, stat.S_IFSOCK)
        case _:
            os.mkfifo(tmp_path / 'pipe')
            path.symlink_to(tmp_path / 'pipe')
    said = 'pipe' if kind == 'link' else kind
    with pytest.raises(ValueError, match=f'^{path} must be a regular file: it is a {said}.$'):
        pretrained.read(path)
    with pytest.raises(ValueError, match='must be a regular file|has an experiment.json'):
        runs.load(path)


def test_a_folder_with_weights_is_read_and_one_without_is_no_weights(tmp_path):
    weights = tiny()
    save_file(weights, tmp_path / 'model.safetensors')
    assert_equal_trees(pretrained.read(tmp_path), weights)
    (tmp_path / 'model.safetensors').unlink()
    with pytest.raises(
        ValueError, match=f'weights must be a .safetensors or .npz file: {tmp_path}'
    ):
        pretrained.read(tmp_path)
    os.mkfifo(tmp_path / 'model.safetensors')
    with pytest.raises(ValueError, match='must be a regular file: it is a pipe'):
        runs.load(tmp_path)


def test_pickles_are_refused_with_the_lines_that_convert_them(tmp_path):
    path = tmp_path / 'deit.pth'
    path.write_bytes(b'never opened')
    path.chmod(0)
    with pytest.raises(ValueError) as error:
        pretrained.read(path)
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f'{path} is a pickle')
    assert len(lines) == 3
    assert 'weights_only=True' in lines[1]
    assert 'save_file(' in lines[2]
    assert lines[2].endswith(f'{str(path.with_suffix(".safetensors"))!r})')
    compile('\n'.join(line.strip() for line in lines), 'lines', 'exec')


def test_a_hub_repository_is_fetched_and_read(tmp_path, monkeypatch):
    weights = tiny()
    save_file(weights, tmp_path / 'model.safetensors')
    asked = []

    def fetch(repository, name):
        asked.append((repository, name))
        return str(tmp_path / name)

    monkeypatch.setitem(
        sys.modules, 'huggingface_hub', types.SimpleNamespace(hf_hub_download=fetch)
    )
    assert_equal_trees(pretrained.read('hf-hub:timm/some_vit'), weights)
    assert asked == [('timm/some_vit', 'model.safetensors')]

    def fail(repository, name):
        raise OSError('404\nmore lines')

    monkeypatch.setitem(sys.modules, 'huggingface_hub', types.SimpleNamespace(hf_hub_download=fail))
    with pytest.raises(ValueError, match='^hf-hub:timm/some_vit cannot be fetched: 404.$'):
        pretrained.read('hf-hub:timm/some_vit')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(ValueError, match=r"needs the hub extra: pip install -e '.\[hub\]'"):
        pretrained.read('hf-hub:timm/some_vit')
