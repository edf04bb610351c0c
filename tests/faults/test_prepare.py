"""Preparing data, killed at each of its steps on the disk, and run again."""

import io
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

# Runs in a process of its own, which forks: one child is killed before its n-th step on the disk,
# another runs the same to its end. Ends when a child is not killed any more.
CODE = """
import contextlib, os, pathlib, signal, sys
import array_record.python.array_record_module
import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters
from vitjax.data.prepare import cifar, imagenet, listing, shrink
from vitjax.data.images import THREADS

what, source, folder = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
SYNSETS = ['n01440764', 'n01443537', 'n01484850']
listing.COUNTS = {'train': 9, 'validation': 4}
imagenet.SHARDS = {'train': 4, 'validation': 2}
listing.Labels.read = lambda: listing.Labels(SYNSETS, [SYNSETS[i] for i in (2, 0, 0, 1)])

def prepare(out):
    if what == 'shrink':
        return shrink.shrink(source, out, 20)
    with contextlib.suppress(ValueError if out.exists() else ()):  # which says that it is prepared
        if what == 'imagenet':
            imagenet.prepare(source, str(out))
        else:
            cifar.prepare('cifar10', archive=str(source / 'cifar.tar'), directory=str(out))

def dies(out, step):
    left = iter(range(step))
    changes = ('os.mkdir', 'os.rename', 'os.remove', 'os.utime')
    def hook(event, given):
        writes = event == 'open' and (given[2] or 0) & (os.O_RDWR | os.O_WRONLY)
        if (writes or event in changes) and str(out) in str(given[0]) and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    prepare(out)

def forked(call, *arguments):
    child = os.fork()
    if not child:
        try:
            call(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def tree(out):
    return {str(p)[len(str(out)):]: p.is_file() and p.read_bytes() for p in out.rglob('*')}

assert forked(prepare, folder / 'whole') == 0
whole, step, code = tree(folder / 'whole'), 0, -signal.SIGKILL
while code:
    out = folder / str(step)
    code = forked(dies, out, step)
    assert code in (0, -signal.SIGKILL), (step, code)
    assert forked(prepare, out) == 0, step
    found = tree(out)
    assert found == whole, (step, sorted(found.items() ^ whole.items()))
    step += 1
print(step)
"""


def jpeg(seed, kind='JPEG'):
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(content := io.BytesIO(), kind)
    return content.getvalue()


def images_of(folder):
    for name in ('a/1.jpg', 'a/2.png', 'b/3.jpg'):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(1, 'JPEG' if path.suffix == '.jpg' else 'PNG'))


def imagenet_of(folder):
    for k, synset in enumerate(('n01440764', 'n01443537', 'n01484850')):
        (folder / 'train' / synset).mkdir(parents=True)
        for i in range(3):
            (folder / 'train' / synset / f'{synset}_{i}.JPEG').write_bytes(jpeg(3 * k + i))
    (folder / 'val').mkdir()
    for i in range(1, 5):
        (folder / 'val' / f'ILSVRC2012_val_0000000{i}.JPEG').write_bytes(jpeg(20 + i))


def cifar_of(folder):
    with tarfile.open(folder / 'cifar.tar', 'w') as archive:
        rows = np.random.default_rng(0).integers(0, 2, (2, 3073), np.uint8).tobytes()
        names = b'cat\ndog\n'
        for name, content in (
            ('data_batch_1.bin', rows), ('test_batch.bin', rows), ('batches.meta.txt', names)
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.faults
@pytest.mark.parametrize(
    'what, least',
    [(images_of, 10), (imagenet_of, 20), (cifar_of, 6)],
    ids=['shrink', 'imagenet', 'cifar10'],
)
def test_killed_at_any_step_the_same_command_ends_with_the_same_bits(what, least, tmp_path):
    source, out = tmp_path / 'from', tmp_path / 'out'
    source.mkdir()
    out.mkdir()
    what(source)
    name = {images_of: 'shrink', imagenet_of: 'imagenet', cifar_of: 'cifar10'}[what]
    home = pathlib.Path(__file__).parents[2]
    command = [sys.executable, '-c', CODE, name, str(source), str(out)]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > least
