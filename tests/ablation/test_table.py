import math

import pytest

from vitjax import ablation


@pytest.mark.parametrize('values', [(0.1, 0.2, 0.9), (0.0, 0.0, 0.01), (1.0, 0.999, 1.0)])
def test_an_interval_of_accuracy_stays_within_0_and_1(values):
    mean, low, high = ablation.interval(values)
    assert mean == pytest.approx(sum(values) / 3)
    assert 0 < low < mean < high < 1


def test_an_interval_is_student_s_where_accuracies_are_close():
    mean, low, high = ablation.interval([0.500, 0.501, 0.502, 0.503])
    half = 3.182446305 * math.sqrt(5e-6 / 3) / 2  # t of 3 degrees at 0.975
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=1e-6)


@pytest.mark.parametrize('values', [(0.5,), (0.5, 0.6)])
def test_below_three_seeds_there_is_no_interval(values):
    assert all(map(math.isnan, ablation.interval(values)[1:]))


def test_accuracies_all_alike_have_an_interval_of_no_width():
    assert ablation.interval([1.0, 1.0, 1.0]) == (1, 1, 1)
    assert ablation.interval([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3, 0.3))
