"""Generated folders: each file is in one split with its label, or counted, or all are refused.

And whatever changes in one, changes the digest of its data.
"""

import os
import pathlib
import random
import re
import shutil

import pytest
from faults.layouts import Layout

from vitjax.data.kinds import load
from vitjax.data.source import Source
from vitjax.data.splits import SPLITS


@pytest.mark.parametrize('number', [40, pytest.param(1500, marks=pytest.mark.faults)])
def test_every_file_is_used_or_counted_or_the_folder_is_refused(
    number, tmp_path, capsys, record_property
):
    rng, refused = random.Random(number), 0
    for i in range(number):
        layout = Layout(tmp_path / str(i), rng)
        source = Source(f'folder:{layout.root}', validation=0.4, test=0.4)
        if layout.wrong:
            refused += 1
            for split in SPLITS:
                with pytest.raises(ValueError, match='|'.join(map(re.escape, layout.wrong))):
                    load(source, split)
            assert 'not read' not in capsys.readouterr().err
            continue
        found, classes = {}, sorted({name for _, name in layout.images.values()})
        for split in SPLITS:
            data = load(source, split)
            assert data.classes == tuple(classes)
            numbers = data.images[:, 0, 0].astype(int) @ [1, 256, 0]
            labels = [data.classes[label] for label in data.labels]
            found[split] = dict(zip(numbers.tolist(), labels, strict=True))
            assert len(found[split]) == len(data)
        assert found['train'].keys() | found['validation'].keys() | found['test'].keys() == (
            layout.images.keys()
        )
        assert not found['train'].keys() & (found['validation'].keys() | found['test'].keys())
        assert not found['validation'].keys() & found['test'].keys()
        for split, inside in found.items():
            tested = split == 'test' and 'test' not in layout.splits
            own = 'validation' if tested else split
            for image, label in inside.items():
                folder, name = layout.images[image]
                assert label == name
                if own in layout.splits and {'train', 'test'} <= layout.splits.keys():
                    assert folder == layout.splits[own]
                elif tested and own in layout.splits:
                    assert folder == layout.splits[own]
                else:
                    assert folder == layout.splits.get('train', '')
        said(layout, capsys.readouterr().err)
    assert 0 < refused < number
    record_property('faults', ('folder layouts', number, number - refused, 0, refused))


def said(layout, printed):
    """Holds the printed counts against those of the layout: one line for the three loads."""
    total, empty = sum(layout.unread.values()), layout.empty
    lines = [line for line in printed.splitlines() if ' not read' in line or ' empty f' in line]
    assert len(lines) == bool(total or empty)
    if total:
        counts = lines[0].partition(' not read: ')[2].partition(';')[0].split(', ')
        counts = {kind: int(count) for kind, _, count in (c.rpartition(' ') for c in counts)}
        assert f': {total:,} file{"s" * (total != 1)} not read: ' in lines[0]
        others = counts.pop('others', 0)
        assert all(layout.unread[kind] == count for kind, count in counts.items())
        assert total == sum(counts.values()) + others
        assert len(counts) == min(len([c for c in layout.unread.values() if c]), 8)
    assert (f'{empty} empty folder' in printed) == bool(empty)


def digests(root):
    source = Source(f'folder:{root}', validation=0.4, test=0.4)
    return [load(source, split).digest for split in SPLITS]


def changed(layout, rng):
    """Changes one thing in the data."""
    number, (split, name) = rng.choice([*layout.images.items()])
    home = layout.root / split
    (image,) = (
        pathlib.Path(folder, file)
        for folder, _, files in os.walk(home / name)
        for file in files
        if file.startswith(f'{number}.')
    )
    match rng.randrange(5):
        case 0:
            image.rename(image.with_name(f'{number}-new{image.suffix}'))
        case 1:
            shutil.copy(image, image.with_name(f'{number}-new{image.suffix}'))
        case 2:
            image.unlink()
        case 3:
            content = bytearray(image.read_bytes())
            content[-1] ^= 1  # of the same size
            image.unlink()
            image.write_bytes(content)
        case 4:
            for split in {split for split, _ in layout.images.values()}:
                (layout.root / split / name).rename(layout.root / split / f'new {name}')


@pytest.mark.parametrize('number', [25, pytest.param(1000, marks=pytest.mark.faults)])
def test_a_change_of_the_data_changes_the_digest_and_another_place_does_not(
    number, tmp_path, record_property
):
    rng, tried = random.Random(number), 0
    while tried < number:
        layout = Layout(tmp_path / f'{tried}-{rng.random()}', rng)
        if layout.wrong:
            continue
        tried += 1
        before = digests(layout.root)
        layout.root = layout.root.rename(layout.root.with_name(f'{tried} moved'))
        assert digests(layout.root) == before
        changed(layout, rng)
        assert digests(layout.root) != before
    record_property('faults', ('changes of data', number, 0, number, 0))
