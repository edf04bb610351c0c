import pytest

from vitjax.data.sources import SPLITS, Source, load


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
