from typing import Any

import pytest

from vitjax.figures.forecast import Share, forecast


def test_bars_are_the_numbers_given():
    shares = {
        'a': Share({'arguments': 1e9, 'temporaries': 3e9}, 8e9, {'x': (2e-3, 'compiler')}),
        'b': Share({'needed': 9e9}, 8e9, {}),
        'c': Share({'arguments': 5e9}, 8e9, {'x': (1e-3, 'roofline'), 'y': (5e-4, 'kernel')}),
    }
    axes: Any = forecast(shares).axes
    memory, *times = axes
    rows = {round(bar.get_y() + 0.3): bar.get_x() + bar.get_width() for bar in memory.patches[:4]}
    assert rows == {0: pytest.approx(4), 1: pytest.approx(9), 2: pytest.approx(5)}
    assert [text.get_text() for text in memory.get_yticklabels()] == ['a', 'b', 'c']
    assert [axis.get_title() for axis in times] == ['a', 'b', 'c']
    assert [bar.get_width() for bar in times[2].patches[:2]] == pytest.approx([1, 0.5])
