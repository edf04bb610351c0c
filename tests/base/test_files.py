import errno
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vitjax.base import files
from vitjax.figures import figure

ROOT = pathlib.Path(__file__).parents[2]
DRAFT = re.compile(r'\.[0-9a-f]{24}\.vitjax-draft')


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def left_by_a_kill(folder, name='target', code=''):
    """The draft of a process that was killed while it wrote a file, or ran other code."""
    code = code or f'with files.writing({str(folder / name)!r}) as file: file.write(b"half"); die()'
    head = (
        'import os, signal\n'
        'from vitjax.base import files\n'
        'def die(): file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    before = {*names(folder)}
    killed = subprocess.run([sys.executable, '-c', head + code], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    (draft,) = {*names(folder)} - before
    assert DRAFT.fullmatch(draft)
    return folder / draft


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'a.txt'
    files.replace(path, 'old')
    with pytest.raises(KeyError), files.writing(path) as file:
        file.write(b'half')
        assert path.read_text() == 'old' and pathlib.Path(file.name).read_bytes() in (b'', b'half')
        raise KeyError
    assert path.read_text() == 'old'
    with files.writing(path, 'w', newline='') as file:
        file.write('ä\r\n')
    assert path.read_bytes() == 'ä\r\n'.encode() and names(tmp_path) == ['a.txt']
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_name_as_long_as_can_be_is_written(tmp_path):
    name = 'n' * 255
    files.replace(tmp_path / name, 'text')
    with files.writing_folder(tmp_path / name.replace('n', 'm')) as draft:
        (draft / 'a').touch()
    assert names(tmp_path) == ['m' * 255, name]
    for name in ('n' * 256, 'missing/a'):
        with pytest.raises(OSError) as error:
            files.replace(tmp_path / name, 'text')
        assert error.value.filename == str(tmp_path / name)


def test_links_are_replaced_and_not_followed(tmp_path):
    other = tmp_path / 'other'
    other.write_text('of others')
    for target in ('other', 'missing'):
        path = tmp_path / 'path'
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / target)
        files.replace(path, 'ours')
        assert not path.is_symlink() and path.read_text() == 'ours'
        assert other.read_text() == 'of others' and names(tmp_path) == ['other', 'path']


@pytest.mark.parametrize('kind', ['folder', 'link to a folder', 'fifo', 'link to a device'])
def test_what_is_no_file_stays(tmp_path, kind):
    path = tmp_path / 'path'
    if kind == 'folder':
        path.mkdir()
    elif kind == 'fifo':
        os.mkfifo(path)
    else:
        path.symlink_to('/dev/null' if 'device' in kind else tmp_path)
    before = path.lstat().st_ino
    with pytest.raises(OSError, match='cannot be written where there is a .*: .*path'):
        files.replace(path, 'text')
    assert path.lstat().st_ino == before and names(tmp_path) == ['path']


def test_a_disk_that_fills_is_named_by_the_target(tmp_path):
    for error in (OSError(errno.ENOSPC, 'No space left on device'), OSError('without a number')):
        with pytest.raises(OSError) as raised, files.writing(tmp_path / 'a'):
            raise error
        wanted = None if error.errno is None else str(tmp_path / 'a')
        assert raised.value.filename == wanted and names(tmp_path) == []
    with pytest.raises(FileNotFoundError, match='elsewhere'), files.writing(tmp_path / 'a'):
        open(tmp_path / 'elsewhere')
    with pytest.raises(OSError) as raised, files.writing_folder(tmp_path / 'a') as draft:
        open(draft / 'b' / 'c', 'w')
    assert raised.value.filename == str(tmp_path / 'a' / 'b' / 'c') and names(tmp_path) == []


@pytest.fixture
def full_at():
    """Sets after how many bytes of a file its writes are cut short, as those on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    'write',
    [
        lambda file: Image.fromarray(NOISE).save(file, 'JPEG', quality=95),
        lambda file: Image.fromarray(NOISE).save(file, 'PNG'),
        lambda file: Image.fromarray(NOISE).save(file, 'GIF'),
        lambda file: np.save(file, NOISE),
        lambda file: np.savez(file, NOISE),
        lambda file: np.savez_compressed(file, NOISE),
        lambda file: file.write(NOISE.tobytes()),
        lambda file: figure.Figure().savefig(file, format='png', dpi=200),
        lambda file: figure.Figure().savefig(file, format='pdf'),
    ],
)
@pytest.mark.parametrize('rest', [1, 100, 0.5])
def test_a_write_that_is_cut_short_is_an_error(tmp_path, full_at, write, rest):
    """Pillow alone takes the half of an image that a full disk has for the image."""
    path = tmp_path / 'a'
    path.write_text('old')
    with files.writing(tmp_path / 'b') as file:
        write(file)
    size = (tmp_path / 'b').stat().st_size
    (tmp_path / 'b').unlink()
    full_at(size - rest if rest >= 1 else size // 2)
    with pytest.raises(OSError, match='too large'), files.writing(path) as file:
        write(file)
    assert path.read_text() == 'old' and names(tmp_path) == ['a']


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'deep' / 'folder'
    with pytest.raises(KeyError), files.writing_folder(path) as draft:
        (draft / 'a').write_text('half')
        raise KeyError
    assert names(tmp_path / 'deep') == []
    path.mkdir()
    with files.writing_folder(path) as draft:
        (draft / 'a').write_text('whole')
    assert names(tmp_path / 'deep') == ['folder'] and names(path) == ['a']
    with pytest.raises(OSError) as error, files.writing_folder(path) as draft:
        (draft / 'b').touch()
    assert error.value.filename == str(path) and names(path) == ['a']
    assert names(tmp_path / 'deep') == ['folder']
    link = tmp_path / 'link'
    link.symlink_to(tmp_path / 'new')
    with files.writing_folder(link) as draft:
        (draft / 'a').touch()
    assert link.is_symlink() and names(tmp_path / 'new') == ['a']


# Names that a user may have given, our suffix and forms of our names among them.
TOKEN = '0123456789abcdef'
OTHERS = (
    'a.draft', 'thesis.vitjax-draft', '.vitjax-draft', f'.{TOKEN}00000000.vitjax-draft',
    f'.{TOKEN}{files._seal(TOKEN)}.vitjax-draft.txt', 'experiment.json.draft', '.draft-5.1.0',
)  # fmt: skip


def test_what_was_not_made_here_is_never_removed(tmp_path):
    for i, name in enumerate(OTHERS):
        (tmp_path / 'files').mkdir(exist_ok=True)
        (tmp_path / 'files' / name).write_text('of others')
        (tmp_path / 'folders' / name).mkdir(parents=True)
        (tmp_path / 'folders' / name / 'a').write_text('of others')
        alone = tmp_path / str(i)
        alone.mkdir()
        (alone / name).touch()
        assert not files.is_empty(alone)
    kept = sorted(tmp_path.rglob('*'))
    for folder in ('files', 'folders'):
        files.sweep(tmp_path / folder)
        files.replace(tmp_path / folder / 'own', 'text')
        with pytest.raises(OSError), files.writing_folder(tmp_path / folder):
            pass
        (tmp_path / folder / 'own').unlink()
    assert sorted(tmp_path.rglob('*')) == kept
    # A name of ours on something that we do not make.
    ours = tmp_path / 'files' / f'.{TOKEN}{files._seal(TOKEN)}.vitjax-draft'
    ours.symlink_to(tmp_path / 'folders')
    files.sweep(tmp_path / 'files')
    assert ours.is_symlink()
    ours.unlink()
    os.mkfifo(ours)
    files.sweep(tmp_path / 'files')
    assert ours.exists()


@pytest.mark.slow
def test_what_a_killed_process_left_goes_and_what_another_writes_stays(tmp_path):
    left = left_by_a_kill(tmp_path)
    assert left.read_bytes() == b'half' and files.is_empty(tmp_path)
    code = f"""
with files.writing_folder({str(tmp_path / 'folder')!r}) as draft:
    file = open(draft / 'a', 'w')
    die()
"""
    folder = left_by_a_kill(tmp_path, code=code)
    assert names(folder) == ['a']
    with files.writing(tmp_path / 'mine') as file:
        file.write(b'whole')
        files.sweep(tmp_path)
        assert names(tmp_path) == [pathlib.Path(file.name).name]
        with files.writing_folder(tmp_path / 'folder') as draft:
            files.sweep(tmp_path)
            assert draft.is_dir()
    assert names(tmp_path) == ['folder', 'mine'] and (tmp_path / 'mine').read_bytes() == b'whole'
    left_by_a_kill(tmp_path)
    files._sweep_once.cache_clear()  # as in another process
    files.replace(tmp_path / 'target', 'text')
    assert names(tmp_path) == ['folder', 'mine', 'target']


@pytest.mark.slow
def test_processes_that_write_one_file_do_not_mix(tmp_path):
    path = tmp_path / 'path'
    code = f"""
import pathlib, sys
from vitjax.base import files
path, letter = pathlib.Path({str(path)!r}), sys.argv[1]
for _ in range(100):
    files.sweep(path.parent)
    files.replace(path, letter * 10_000)
"""
    files.replace(path, 'a' * 10_000)
    writers = [subprocess.Popen([sys.executable, '-c', code, letter], cwd=ROOT) for letter in 'ab']
    while any(writer.poll() is None for writer in writers):
        assert path.read_text() in ('a' * 10_000, 'b' * 10_000)
    assert [writer.returncode for writer in writers] == [0, 0] and names(tmp_path) == ['path']
