import numpy as np
import pytest
from PIL import Image

from vitjax.data import notices
from vitjax.data.kinds import KINDS, load
from vitjax.data.source import Data, Source
from vitjax.data.splits import SPLITS, Splits


@pytest.mark.parametrize(
    ('source', 'match'),
    [
        (Source('mnist'), "digits, tfds:NAME, folder:PATH: 'mnist'"),
        (Source('tfds'), "tfds:NAME, folder:PATH: 'tfds'"),
        (Source('digits:3'), "tfds:NAME, folder:PATH: 'digits:3'"),
        (Source('folder:no/such'), 'no/such does not exist'),
        (Source(validation=1.0), r'data.validation must be a number, at least 0 and below 1: 1.0'),
        (Source(validation=0.0), 'the validation split of digits is empty'),
    ],
)
def test_bad_sources(source, match):
    with pytest.raises(ValueError, match=match):
        load(source, 'validation')


def test_splits_are_known():
    with pytest.raises(ValueError, match=f"one of {', '.join(SPLITS)}: 'dev'"):
        load(Source(), 'dev')


def of_classes(root, counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng((i, *name.encode())).integers(
                0, 256, (6, 6, 3), np.uint8
            )
            Image.fromarray(pixels).save(root / name / f'{i}.png')


def test_a_class_that_a_random_split_misses_is_said(tmp_path, capsys):
    of_classes(tmp_path, {'one': 1, 'two': 2, 'many': 37})
    source, said = Source(f'folder:{tmp_path}'), []
    for split in SPLITS:
        data = load(source, split)
        missing = sorted({*range(3)} - {*data.labels.tolist()})
        names = ', '.join(data.classes[label] for label in missing)
        if missing:
            said += [f'{source.name}: no images of {len(missing)} of 3 classes in the {split} '
                     f'split: {names}']  # fmt: skip
    assert len(said) >= 2
    assert capsys.readouterr().err.splitlines() == said
    load(source, 'validation')
    assert not capsys.readouterr().err  # once in a process


def test_nothing_is_said_of_splits_with_every_class(tmp_path, capsys):
    of_classes(tmp_path, {'a': 20, 'b': 20})
    notices.tell.cache_clear()
    for split in SPLITS:
        load(Source(f'folder:{tmp_path}', validation=0.4), split)
        load(Source(), split)
    assert not capsys.readouterr().err


def test_names_of_many_missing_classes_are_cut(tmp_path, capsys):
    of_classes(tmp_path, {f'c{i:02}': 1 for i in range(20)})
    load(Source(f'folder:{tmp_path}'), 'validation')
    (line,) = capsys.readouterr().err.splitlines()
    assert 'no images of 18 of 20 classes in the validation split: c00, c' in line
    assert line.endswith(', and 13 more') and len(line) < 300


def test_splits_without_images_are_refused(tmp_path):
    of_classes(tmp_path, {'a': 1})
    with pytest.raises(ValueError, match='the test split of .* is empty: 1 images'):
        load(Source(f'folder:{tmp_path}'), 'test')
    assert len(load(Source(f'folder:{tmp_path}'), 'train')) == 1


def test_the_cut_of_the_splits_stays_as_it_was():
    """Runs that are there were trained on the rows of this permutation."""
    cut = Splits()
    assert cut.rows(Source(), 'validation', 20).tolist() == [17, 18]
    assert cut.rows(Source(), 'test', 20).tolist() == [1, 9, 14, 15]


def test_a_place_for_data_that_have_none_is_refused():
    with pytest.raises(ValueError, match='--data.dir is for tfds:NAME alone: got digits'):
        load(Source('digits', dir='/x'), 'train')


def test_a_kind_of_data_of_a_user_is_loaded_and_named(monkeypatch):
    def circles(source, name, split, preprocessing):
        return Data(
            np.full((2, 4, 4, 3), int(name), np.uint8), np.array([0, 1], np.int32), ('a', 'b')
        )

    monkeypatch.setitem(KINDS, 'circles:RADIUS', circles)
    assert load(Source('circles:3'), 'train').images[0, 0, 0, 0] == 3
    with pytest.raises(ValueError, match="folder:PATH, circles:RADIUS: 'circles'"):
        load(Source('circles'), 'train')


def test_the_help_of_a_source_names_every_kind():
    assert all(form in str(Source.__doc__) for form in KINDS)
