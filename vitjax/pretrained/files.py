"""Files of weights and the files beside them, read without executing their content."""

import math
import os
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
from safetensors.numpy import load_file

from vitjax.base.files import first_line, irregular, read_json
from vitjax.base.npy import npy_header

HUB, WEIGHTS = 'hf-hub:', 'model.safetensors'
INDEX = 'model.safetensors.index.json'  # of weights in several files
SMALL, PACKED = 2**26, 100  # an npz may hold so many bytes, or so many times its own size
_PICKLED = ('.pth', '.pt', '.bin', '.ckpt', '.pkl', '.tar')
_CONVERSION = """\
{path} is a pickle, which can run any program when it is opened. These lines make it safe:
  import torch; from safetensors.torch import save_file
  weights = torch.load({path!r}, map_location='cpu', weights_only=True)
  save_file({{k: v.contiguous() for k, v in weights.get('model', weights).items()}}, {new!r})"""


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a weights file by name; nothing in it is ever unpickled.

    Args:
        path: a `.safetensors` file, an `.npz` file, a folder with a `model.safetensors` or with the
            index of several files, or `hf-hub:owner/name`, whose files are fetched through
            huggingface_hub (the `hub` extra).

    Raises:
        ValueError: if the file is missing, truncated, foreign or not regular; for pickles (`.pth`
            and the like), with the three lines that convert them.

    Example:
        >>> import tempfile
        >>> from safetensors.numpy import save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({'norm.bias': np.zeros(3, np.float32)}, f'{folder}/a.safetensors')
        ...     read(f'{folder}/a.safetensors')
        {'norm.bias': array([0., 0., 0.], dtype=float32)}
    """
    if str(path).startswith(HUB):
        repository = str(path).removeprefix(HUB)
        whole = _fetch(repository, WEIGHTS, needed=False)
        index = None if whole else _fetch(repository, INDEX, needed=False)
        file = whole or (None if index else _fetch(repository, WEIGHTS))
    else:
        folder = pathlib.Path(path)
        file = folder / WEIGHTS if is_folder(path) else folder
        index = folder / INDEX
        index = index if is_folder(path) and index.exists() and not file.exists() else None
    return _read_shards(path, index) if index else _read_file(file or pathlib.Path(WEIGHTS))


def _read_shards(path: str | pathlib.Path, index: pathlib.Path) -> dict[str, np.ndarray]:
    """Tensors of the files that an index names, each in the index's own folder or repository.

    Raises:
        ValueError: if a file is missing, or does not hold the tensors that the index says.
    """
    names = read_json(index).get('weight_map')
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise ValueError(f'{index} must map names of tensors to files in its weight_map.')
    found: dict[str, np.ndarray] = {}
    for name in sorted({*names.values()}):
        if pathlib.PurePath(name).name != name:
            raise ValueError(f'{index} must name files beside it: {name!r}.')
        file = beside(path, [name]).get(name)
        if file is None:
            raise ValueError(f'{index} names {name}, which is missing.')
        found |= _read_file(file)
    if lacking := sorted(names.keys() - found.keys()):
        raise ValueError(f'{index} names tensors that its files lack: {", ".join(lacking[:3])}.')
    return found


def _read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
    suffix = path.suffix.lower()
    if not path.exists() and suffix in ('', '.safetensors', '.npz', *_PICKLED):
        raise ValueError(f'there is no run and no weights file {path}.')
    if suffix in _PICKLED:
        new = str(path.with_suffix('.safetensors'))
        raise ValueError(_CONVERSION.format(path=str(path), new=new))
    if suffix not in ('.safetensors', '.npz'):
        raise ValueError(f'weights must be a .safetensors or .npz file: {path}.')
    _require_regular(path)
    if suffix == '.npz':
        return _read_npz(path)
    try:
        return load_file(path)
    except Exception as error:  # parsing a damaged header raises anything
        rule = 'cannot be read' if isinstance(error, OSError) else 'is not a whole safetensors file'
        reason = getattr(error, 'strerror', None) or first_line(error)
        raise ValueError(f'{path} {rule}: {reason}.') from None


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):  # np.load's message would be about pickles
        reason = 'it has no directory of a zip at its end'
        raise ValueError(f'{path} is not a whole npz file: {reason}.')
    try:
        _require_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            out = {name: file[name] for name in file.files}
    except Exception as error:  # parsing a damaged zip raises anything
        reason = first_line(error)
        raise ValueError(f'{path} is not a whole npz file of plain arrays: {reason}.') from None
    others = [name for name, value in out.items() if not isinstance(value, np.ndarray)]
    if others or not out:
        raise ValueError(f'{path} is a zip, not an npz: it holds {", ".join(others) or "nothing"}.')
    return out


def _require_sizes(path: pathlib.Path) -> None:
    """Checks shapes and the zip's directory against the file, before allocating memory."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > max(SMALL, PACKED * size):  # zeros compress a thousandfold, weights do not
            raise ValueError(f'{size:,} bytes would become {total:,}')
        for member in members:
            if member.filename.endswith('.npy'):
                with archive.open(member) as file:
                    shape, dtype = npy_header(file)
                    claimed = file.tell() + math.prod(shape) * dtype.itemsize
                if claimed != member.file_size:
                    rule = f'{member.filename} of {dtype} {list(shape)} must have {claimed:,} bytes'
                    raise ValueError(f'{rule}: it has {member.file_size:,}')


def is_folder(path: str | pathlib.Path) -> bool:
    """Returns True for a folder of published weights as on the hub, False for a run."""
    folder = pathlib.Path(path)
    whole = any(os.path.lexists(folder / name) for name in (WEIGHTS, INDEX))
    return whole and not (folder / 'experiment.json').exists()


def beside(path: str | pathlib.Path, names: Sequence[str]) -> dict[str, pathlib.Path]:
    """Existing files of some names beside weights, in their folder or repository.

    Args:
        path: a path as `read` takes it.
        names: names of the files.

    Raises:
        ValueError: if one is not a regular file, or the hub cannot be reached.
    """
    found: dict[str, pathlib.Path] = {}
    for name in names:
        if str(path).startswith(HUB):
            file = _fetch(str(path).removeprefix(HUB), name, needed=False)
        else:
            folder = pathlib.Path(path)
            file = (folder if folder.is_dir() else folder.parent) / name
        if file is not None and file.exists():
            _require_regular(file)
            found[name] = file
    return found


def _require_regular(path: pathlib.Path) -> None:
    if kind := irregular(path):
        raise ValueError(f'{path} must be a regular file: it is {kind}.')


def _absent(error: Exception) -> bool:
    """Returns True for the hub's error that a repository has no such file."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return 'EntryNotFoundError' in names or isinstance(error, FileNotFoundError)


def _fetch(repository: str, name: str, *, needed: bool = True) -> pathlib.Path | None:
    try:
        import huggingface_hub
    except ImportError:
        advice = "needs the hub extra: pip install -e '.[hub]'"
        raise ValueError(f'hf-hub:{repository} {advice}.') from None
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(repository, name))
    except (OSError, ValueError) as error:  # the bases of its errors
        if not needed and _absent(error):
            return None
        raise ValueError(f'hf-hub:{repository} cannot be fetched: {first_line(error)}.') from None
