"""Where images come from: digits, TFDS, folders; all to uint8 images and integer labels."""

import dataclasses
import importlib
import io
import os
import pathlib
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from vitjax.data import images
from vitjax.data.images import Preprocessing

SPLITS = ('train', 'validation', 'test')
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')


@dataclasses.dataclass(frozen=True)
class Source:
    """Which images to train and test on.

    Attributes:
        name: `digits`, `tfds:NAME` (as in tfds:cifar10) or `folder:PATH`.
        dir: where TFDS has its prepared data; None takes TFDS_DATA_DIR or ~/tensorflow_datasets.
        validation: share of the training images held out when there is no validation split.
        test: share of all images held out when there is no test split.
        size: side in pixels that images of unequal sizes are resized and cropped to.
        memory: most bytes that decoded images may take; beyond, they are decoded as needed.
    """

    name: str = 'digits'
    dir: str | None = None
    validation: float = 0.1
    test: float = 0.2
    size: int | None = None
    memory: int = 8 * 2**30


@dataclasses.dataclass(frozen=True)
class Data:
    """Images [N, H, W, 3] uint8 with labels [N] int32 and the classes' names.

    `images` is an array, or `Encoded` when the decoded images would not fit in memory; both are
    indexed by an array of integers.
    """

    images: Any
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


class Encoded:
    """Images that threads decode when indexed: `encoded[indices]` is uint8 [n, H, W, 3]."""

    def __init__(self, items: Sequence[Any], decode: Callable[[Any], np.ndarray]):
        self._items, self._decode = items, decode
        self.shape = (len(items), *decode(items[0]).shape)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, indices: Any) -> np.ndarray:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            chosen = [self._items[i] for i in np.arange(len(self))[indices]]
            return np.stack(list(pool.map(self._decode, chosen)))


def load(source: Source, split: str) -> Data:
    """One split of a source: `train`, `validation` or `test`.

    Where a source has no validation or test split, the shares that it asks for are held out by
    one fixed permutation, the same for every seed.

    Raises:
        ValueError: for an unknown source or split, data that are not there (with the command that
            prepares them), an empty class folder, an unreadable image, images of unequal sizes.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {", ".join(SPLITS)}: {split!r}.')
    for share in ('validation', 'test'):
        if not 0 <= getattr(source, share) < 1:
            raise ValueError(f'data.{share} must be in [0, 1): {getattr(source, share)}.')
    kind, _, name = source.name.partition(':')
    if source.name == 'digits':
        return _digits(source, split)
    if kind == 'tfds' and name:
        return _tfds(source, name, split)
    if kind == 'folder' and name:
        return _folder(source, pathlib.Path(name).expanduser(), split)
    raise ValueError(f'data.name must be digits, tfds:NAME or folder:PATH: {source.name!r}.')


def _digits(source: Source, split: str) -> Data:
    import sklearn.datasets

    digits: Any = sklearn.datasets.load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 1,797 of 8x8, 0 to 16
    chosen = _held_out(len(pixels), split, source, ('train',))
    return Data(
        np.repeat(pixels[chosen, ..., None], 3, axis=-1),
        digits.target[chosen].astype(np.int32),
        tuple(str(i) for i in range(10)),
    )


def _held_out(count: int, split: str, source: Source, present: Sequence[str]) -> np.ndarray:
    """Indices of `split` within the images that `train` and what has no split of its own share."""
    order = np.random.default_rng(0).permutation(count)
    tests = 0 if 'test' in present else round(count * source.test)
    validations = 0 if 'validation' in present else round((count - tests) * source.validation)
    parts = np.split(order, [count - tests - validations, count - tests])
    chosen = np.sort(parts[SPLITS.index(split)])
    if not len(chosen):
        raise ValueError(
            f'the {split} split of {source.name} is empty: {count} images, '
            f'data.validation={source.validation}, data.test={source.test}.'
        )
    return chosen


def _source_split(split: str, present: Sequence[str]) -> str:
    """The split that holds the images of `split`: itself, or `train`, which it is held out of."""
    return split if split in present else 'train'


def _tfds(source: Source, name: str, split: str) -> Data:
    directory = tfds_directory(source, name)
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(str(directory))
    present = [s for s in SPLITS if s in builder.info.splits]
    for feature in ('image', 'label'):
        if feature not in builder.info.features:
            has = ', '.join(builder.info.features)
            raise ValueError(f'{source.name} must have image and label: it has {has}.')
    classes = tuple(builder.info.features['label'].names)
    records: Any = builder.as_data_source(
        _source_split(split, present), decoders={'image': tfds.decode.SkipDecoding()}
    )
    chosen = np.arange(len(records))
    if split == 'train' or split not in present:
        chosen = _held_out(len(records), split, source, present)
    examples = records.__getitems__(chosen.tolist())
    labels = np.array([e['label'] for e in examples], np.int32)
    encoded = [e['image'] for e in examples]
    return Data(_decoded(encoded, _decode_bytes, source), labels, classes)


def tfds_directory(source: Source, name: str) -> pathlib.Path:
    """The newest prepared version of a TFDS dataset, looked for on disk alone.

    Raises:
        ValueError: if there is none, with the command that prepares it.
    """
    root = source.dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    folder = pathlib.Path(root).expanduser() / name
    found = sorted(
        (p.parent for p in folder.rglob('dataset_info.json')),
        key=lambda p: [int(n) if n.isdigit() else 0 for n in p.name.split('.')],
    )
    if found:
        return found[-1]
    command = f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
    command += "file_format='array_record').download_and_prepare()\" (needs tensorflow)"
    if name in CIFAR:
        command = f'python scripts/prepare.py {name}'
    raise ValueError(f'{name} is not prepared in {folder.parent}; prepare it with\n  {command}')


def _folder(source: Source, root: pathlib.Path, split: str) -> Data:
    if not root.is_dir():
        raise ValueError(f'data.name must name a folder of images: {root} is none.')
    present = [s for s in SPLITS if (root / s).is_dir()]
    if present and 'train' not in present:
        raise ValueError(f'{root} must have a train folder: it has {", ".join(present)}.')
    first = root / 'train' if present else root
    classes = tuple(sorted(p.name for p in first.iterdir() if p.is_dir()))
    if not classes:
        raise ValueError(f'{first} must have one folder for each class: it has none.')
    home = root / _source_split(split, present) if present else root
    unknown = sorted({p.name for p in home.iterdir() if p.is_dir()} - set(classes))
    if unknown:
        raise ValueError(f'{home} has classes that {first} has not: {", ".join(unknown)}.')
    files, labels = [], []
    for label, name in enumerate(classes):
        inside = sorted(p for p in (home / name).glob('*') if p.suffix.lower() in SUFFIXES)
        if not inside:
            raise ValueError(f'class folder without images ({", ".join(SUFFIXES)}): {home / name}.')
        files += inside
        labels += [label] * len(inside)
    chosen = np.arange(len(files))
    if split == 'train' or split not in present:
        chosen = _held_out(len(files), split, source, present)
    paths = [files[i] for i in chosen]
    square = Preprocessing(source.size, crop=1.0) if source.size else None

    def decode(path: pathlib.Path) -> np.ndarray:
        return images.squares([path], square)[0] if square else images.read(path)

    return Data(_decoded(paths, decode, source), np.array(labels, np.int32)[chosen], classes)


def _decode_bytes(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))


def _decoded(items: Sequence[Any], decode: Callable[[Any], np.ndarray], source: Source) -> Any:
    """All images as one array, or `Encoded` when that would take more than `source.memory`."""
    shape = decode(items[0]).shape
    if len(items) * int(np.prod(shape)) > source.memory:
        return Encoded(items, decode)
    out = np.empty((len(items), *shape), np.uint8)

    def fill(i: int) -> None:
        image = decode(items[i])
        if image.shape != shape:
            sizes = [f'{s[1]}x{s[0]}' for s in (shape, image.shape)]
            raise ValueError(
                f'images must be of one size unless data.size is given: {sizes[0]} and {sizes[1]} '
                f'pixels in {source.name}.'
            )
        out[i] = image

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(len(items))))
    return out


# Version, archive, bytes of labels before each image, file with the names of the classes.
CIFAR = {
    'cifar10': ('3.0.2', 'cifar-10-binary.tar.gz', 1, 'batches.meta.txt'),
    'cifar100': ('3.0.2', 'cifar-100-binary.tar.gz', 2, 'fine_label_names.txt'),
}
_CIFAR_URL = 'https://www.cs.toronto.edu/~kriz/'


def prepare_cifar(name: str, archive: str | None, source: Source) -> pathlib.Path:
    """Writes CIFAR-10 or CIFAR-100 as `tfds.data_source` reads them, without tensorflow.

    Args:
        name: `cifar10` or `cifar100`.
        archive: the published binary archive; None downloads it.
        source: says where prepared data lie.

    Returns:
        The directory written: whole, or not at all.

    Raises:
        ValueError: for another dataset, an archive that is not the published one, or no network.
    """
    if name not in CIFAR:
        raise ValueError(f'prepare knows {" and ".join(CIFAR)}: {name!r}.')
    version, file, label_bytes, names = CIFAR[name]
    root = pathlib.Path(source.dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')
    target = root.expanduser() / name / version
    if target.exists():
        raise ValueError(f'{name} is already prepared: {target}.')
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix='.draft-') as draft:
        if archive is None:
            archive = str(pathlib.Path(draft) / file)
            try:
                with urllib.request.urlopen(_CIFAR_URL + file, timeout=20) as response:
                    pathlib.Path(archive).write_bytes(response.read())
            except OSError as error:
                raise ValueError(
                    f'cannot download {_CIFAR_URL + file} ({error}); fetch it elsewhere and give '
                    f'it with --archive {file}.'
                ) from None
        splits, classes = _read_cifar(archive, label_bytes, names)
        ready = pathlib.Path(draft) / version
        ready.mkdir()
        _write_tfds(ready, name, splits, classes)
        ready.rename(target)
    return target


def _read_cifar(archive: str, label_bytes: int, names: str) -> tuple[dict[str, Any], list[str]]:
    """The splits of a binary CIFAR archive as (images, labels), and the classes' names."""
    record = label_bytes + 3 * 32 * 32
    parts: dict[str, list[np.ndarray]] = {'train': [], 'test': []}
    classes: list[str] = []
    try:
        with tarfile.open(archive) as tar:
            for member in sorted(tar.getmembers(), key=lambda m: m.name):
                content = tar.extractfile(member)
                base = pathlib.PurePath(member.name).name
                if content and base == names:
                    classes = content.read().decode().split()
                elif content and base.endswith('.bin'):
                    raw = np.frombuffer(content.read(), np.uint8)
                    parts['test' if 'test' in base else 'train'].append(raw.reshape(-1, record))
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise ValueError(f'not a binary CIFAR archive: {archive}: {error}.') from None
    if not classes or not all(parts.values()):
        raise ValueError(f'{archive} must hold .bin files for train and test, and {names}.')
    splits = {}
    for split, rows in parts.items():
        rows = np.concatenate(rows)
        pixels = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        splits[split] = pixels, rows[:, label_bytes - 1].astype(int)  # the fine label comes last
    return splits, classes


def _write_tfds(
    directory: pathlib.Path, name: str, splits: dict[str, Any], classes: list[str]
) -> None:
    """Writes splits of (images, labels) with TFDS's metadata, images as PNG in ArrayRecord."""
    import tensorflow_datasets as tfds
    from etils import epath

    # Modules made at run time, which a type checker cannot see into.
    array_record: Any = importlib.import_module('array_record.python.array_record_module')
    proto: Any = importlib.import_module('tensorflow_datasets.proto')
    tf_example, tf_feature = proto.tf_example_pb2, proto.tf_feature_pb2

    def feature(value: bytes | int) -> Any:
        if isinstance(value, bytes):
            values = tf_feature.BytesList(value=[value])
            return tf_feature.Feature(bytes_list=values)
        return tf_feature.Feature(int64_list=tf_feature.Int64List(value=[value]))

    features = tfds.features.FeaturesDict(
        {
            'id': tfds.features.Text(),
            'image': tfds.features.Image(shape=(32, 32, 3)),
            'label': tfds.features.ClassLabel(names=classes),
        }
    )
    infos = []
    for split, (pixels, labels) in splits.items():
        path = directory / f'{name}-{split}.array_record-00000-of-00001'
        writer = array_record.ArrayRecordWriter(str(path), 'group_size:1')
        size = 0
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            png = io.BytesIO()
            Image.fromarray(image).save(png, 'PNG')
            values = {'id': f'{split}_{i:05d}'.encode(), 'image': png.getvalue()}
            fields = {k: feature(v) for k, v in {**values, 'label': int(label)}.items()}
            record = tf_example.Example(features=tf_feature.Features(feature=fields))
            writer.write(record.SerializeToString())
            size += record.ByteSize()
        writer.close()
        template = tfds.core.ShardedFileTemplate(
            dataset_name=name,
            split=split,
            data_dir=epath.Path(directory),
            filetype_suffix='array_record',
        )
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(pixels)],
                num_bytes=size,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=str(directory),
        features=features,
        split_infos=infos,
        check_data=False,
        supervised_keys=('image', 'label'),
    )
