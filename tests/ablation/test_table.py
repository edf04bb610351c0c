import math

import pytest

from vitjax import ablation


def test_interval_is_student_s():
    mean, half = ablation.interval([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert half == pytest.approx(3.182446305 * math.sqrt(5 / 3) / 2)  # t of 3 degrees at 0.975
    assert math.isnan(ablation.interval([0.5])[1])
