"""Files of arrays from elsewhere."""

import sys

import h5py
import numpy as np
import pytest
from streams import read_all

from vitjax import activations

RNG = np.random.default_rng(0)
FLAT, TOKENS = RNG.normal(size=(21, 5)), RNG.normal(size=(2, 21, 4, 3)).astype(np.float32)
LABELS, CLASSES = RNG.integers(0, 3, 21), ['a', 'b', 'c']


def write(path, **arrays):
    if path.suffix == '.npz':
        np.savez(path, **arrays)
    else:
        with h5py.File(path, 'w') as file:
            for name, array in arrays.items():
                file[f'layers/{name}' if name == 'deep' else name] = array
    return str(path)


@pytest.mark.parametrize('suffix', ['npz', 'h5'])
def test_keys_name_representations_and_their_labels(tmp_path, suffix):
    arrays = {'deep': TOKENS, 'flat': FLAT}
    path = write(tmp_path / f'a.{suffix}', **arrays, labels=LABELS, classes=CLASSES)
    found = activations.open_side(path)
    first = 'layers/deep' if suffix == 'h5' else 'deep'
    assert {*found.names} == {f'{first} 1', f'{first} 2', 'flat'} and found.examples == 21
    values = dict(zip([s.path for s in found.stacks], read_all(found), strict=True))
    np.testing.assert_array_equal(values[first], TOKENS)
    np.testing.assert_array_equal(values['flat'], FLAT[None])
    np.testing.assert_array_equal(activations.subset(found, 3).labels, LABELS[[0, 10, 20]])
    assert found.about['classes'] == CLASSES
    path = write(tmp_path / f'b.{suffix}', deep=TOKENS, names=['early', 'late'])
    named = activations.open_side(path)
    assert named.names == ['early', 'late'] and named.stacks[0].shape == (1, 4, 3)
    np.testing.assert_array_equal(np.concatenate(read_all(named)), TOKENS)
    (matrix,) = activations.matrices(['cka'], named, found)
    assert matrix.values.shape == (2, 3) and 'as given; flattened; 21 examples' in matrix.title
    with pytest.raises(ValueError, match='needs classes: b has none'):
        activations.probes(named, named)


def test_a_single_array_is_named_by_its_file(tmp_path):
    np.save(tmp_path / 'flat.npy', FLAT)
    np.save(tmp_path / 'tokens.npy', TOKENS)
    one, two = (activations.from_file(tmp_path / n) for n in ('flat.npy', 'tokens.npy'))
    assert one.names == ['flat'] and two.names == ['tokens 1', 'tokens 2']
    np.testing.assert_array_equal(read_all(two)[0], TOKENS)
    np.save(tmp_path / 'labels.npy', LABELS)
    (tmp_path / 'text.npy').write_text('no array')
    with pytest.raises(ValueError, match=r'floats of .*: it is int64 of \[21\]'):
        activations.from_file(tmp_path / 'labels.npy')
    with pytest.raises(ValueError, match='text.npy is no whole array of numbers: the magic string'):
        activations.from_file(tmp_path / 'text.npy')


def test_wrong_files_are_refused_with_both_values(tmp_path, monkeypatch):
    path = tmp_path / 'a.npz'
    for arrays, said in (
        ({'x': FLAT, 'labels': LABELS[1:]}, 'the same examples: x 21, labels 20'),
        ({'x': FLAT, 'y': TOKENS[:, 3:]}, 'the same examples: x 21, y 18'),
        ({'x': TOKENS, 'names': CLASSES}, 'names must be of 2 layers: got 3'),
        ({'x': FLAT, 'labels': LABELS / 2}, r'labels must be integers .* float64 of \[21\]'),
        ({'x': LABELS[None]}, r'x must be floats of .*: it is int64 of \[1, 21\]'),
        ({'x': FLAT, 'labels': np.array([{}] * 21)}, 'a.npz is not a whole npz file of plain'),
        ({'labels': LABELS}, r'labels must be floats of .*: it is int64 of \[21\]'),
    ):
        with pytest.raises(ValueError, match=said):
            activations.open_side(write(path, **arrays))
    (tmp_path / 'b.h5').write_text('text')
    with pytest.raises(ValueError, match=r'b\.h5 is not an HDF5 file'):
        activations.from_file(tmp_path / 'b.h5')
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(ValueError, match=r"b\.h5 needs the hdf5 extra: pip install -e '.\[hdf5\]'"):
        activations.from_file(tmp_path / 'b.h5')


def test_an_npz_with_vectors_is_weights(tmp_path):
    path = write(tmp_path / 'a.npz', kernel=FLAT, bias=FLAT[0])
    assert not activations.is_stored(path)
    assert activations.is_stored(write(tmp_path / 'b.npz', kernel=FLAT))
