import pathlib

import pytest

from vitjax.data import imagenet

SAMPLE = pathlib.Path(__file__).parents[3] / 'shared' / 'imagenet_sample'


def test_imagenet_classes():
    names = imagenet.classes()
    assert len(names) == 1000
    known = {0: 'tench', 1: 'goldfish', 281: 'tabby', 285: 'Egyptian cat', 999: 'toilet tissue'}
    assert {i: names[i] for i in known} == known
    assert all(name and name == name.strip() and '_' not in name for name in names)


@pytest.mark.skipif(not SAMPLE.exists(), reason='needs ../shared/imagenet_sample')
def test_imagenet_classes_are_in_the_order_of_their_synsets():
    files = sorted(path.stem for path in SAMPLE.glob('*.jpg'))
    assert [f.split('_', 1)[1].replace('_', ' ') for f in files] == list(imagenet.classes())
