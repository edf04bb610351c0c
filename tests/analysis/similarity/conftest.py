"""Two representations with something in common."""

import pytest
from representations import representation


@pytest.fixture(scope='module')
def x():
    return representation(0)


@pytest.fixture(scope='module')
def y():
    return representation(1, layers=2, features=9)
