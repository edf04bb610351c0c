"""Labels of generated folders: each tells its path from the others, in as few parts as can be."""

import itertools
import os
import random

import pytest

from vitjax.base.labels import label, labels


@pytest.mark.parametrize(
    ('paths', 'wanted'),
    [
        (['runs/a', 'runs/b/'], ['a', 'b']),
        (['out/cells/d2/seed_0', 'out/cells/d4/seed_0'], ['d2/seed_0', 'd4/seed_0']),
        (['x/model.safetensors', 'y/model.safetensors'], ['x/model', 'y/model']),
        (['a/x/run', 'b/x/run'], ['a/x/run', 'b/x/run']),
        (['runs/a', './runs/../runs/a/', 'runs/a'], ['a', 'a', 'a']),
        (['lr0.1', 'lr0.2'], ['lr0.1', 'lr0.2']),
        (['x.npy', 'x.npz'], ['x.npy', 'x.npz']),
        (['a/cat.jpg', 'b/cat.jpg'], ['a/cat', 'b/cat']),
        (['hf-hub:one/vit', 'hf-hub:two/vit'], ['one/vit', 'two/vit']),
        (['a/run', 'a/run/run'], ['a/run', 'run/run']),
        (['a.png.jpg', 'a.png'], ['a.png.jpg', 'a']),  # not the other file's name
    ],
)
def test_labels_are_the_shortest_parts_that_differ(paths, wanted):
    assert labels(paths) == wanted


def test_the_folder_here_and_links_have_their_own_names(tmp_path, monkeypatch):
    run = tmp_path / 'run'
    run.mkdir()
    (tmp_path / 'latest_run').symlink_to(run)
    monkeypatch.chdir(run)
    assert label('.') == label('./') == label('../run/') == 'run'
    assert labels([run, tmp_path / 'latest_run']) == ['run', 'latest_run']
    assert label('cells/d2/seed_0') == 'd2/seed_0'  # a seed alone says nothing
    assert label('hub/dino/model.safetensors') == 'dino/model'
    assert label('/') == '/' and label('.jpg') == '.jpg'


def test_labels_of_generated_paths_differ_and_end_their_paths():
    rng = random.Random(0)
    for _ in range(300):
        parts = [rng.choices('ab', k=rng.randint(1, 4)) for _ in range(rng.randint(1, 6))]
        ends = [rng.choice(('', '/', '/.', '/c/..')) for _ in parts]
        paths = ['/'.join(own) + end for own, end in zip(parts, ends, strict=True)]
        found = labels(paths)
        for (one, a), (other, b) in itertools.combinations(zip(paths, found, strict=True), 2):
            assert (os.path.abspath(one) == os.path.abspath(other)) == (a == b)
        for path, name in zip(paths, found, strict=True):
            assert f'{os.path.abspath(path)}'.endswith(f'/{name}')
