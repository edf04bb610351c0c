"""Generated folders: each file is in one split with its label, or counted, or all are refused."""

import random
import re

import pytest
from faults.layouts import Layout

from vitjax.data.sources import SPLITS, Source, load


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
