from typing import Any

import numpy as np
import pytest

from vitjax.figures.ablation import against_flops, alike, pair

NONE = [np.nan] * 2
TABLE = np.array([[[0.5, 0.4, 0.7], [0.6, 0.55, 0.65]], [[0.7, *NONE], [np.nan, *NONE]]])


def test_a_pair_is_lines_with_intervals_and_a_heat_map():
    figure = pair(TABLE, ('model.depth', [2, 4]), ('model.patch_size', [1, 2]), seeds=3)
    axes: Any = figure.axes
    lines, heat = axes[:2]
    legend = lines.get_legend()
    assert legend.get_title().get_text() == heat.get_ylabel() == 'patch size'
    assert [text.get_text() for text in legend.get_texts()] == ['1', '2']
    assert lines.get_xlabel() == heat.get_xlabel() == 'depth'
    assert [label.get_text() for label in lines.get_xticklabels()] == ['2', '4']
    drawn = lines.containers[0].lines[0]
    np.testing.assert_allclose(drawn.get_ydata(), [0.5, 0.6])
    bars = lines.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[0.4, 0.7], [0.55, 0.65]])
    assert [text.get_text() for text in heat.texts] == [
        '50.0%\n40.0–70.0', '60.0%\n55.0–65.0', '70.0%'
    ]  # fmt: skip
    said = "mean of 3 seeds, Student's 95% interval over them, on the logit scale"
    assert figure.get_suptitle().replace('\n', ' ') == said
    three = pair(TABLE, ('a', [2, 4]), ('b', [1, 2]), 3, seeds=3, each='7 steps each')
    assert (
        three.get_suptitle().replace('\n', ' ') == f'{said}, other settings averaged; 7 steps each'
    )


@pytest.mark.parametrize('steps, flops, said', [
    ((1200, 1200), (1e9, 4e9), '1,200 steps each'),
    ((1200, 300), (1.1e12, 1.1002e12), '1.1 TFLOPs of training each'),
    ((1200, 300), (1e9, 4e9), ''),
])  # fmt: skip
def test_common_training_of_cells_is_their_steps_or_their_flops(steps, flops, said):
    assert alike(steps, flops) == said


def test_one_axis_is_one_line():
    figure = pair(TABLE[1:], ('model.depth', [2, 4]), None, 1, seeds=2)
    assert len(figure.axes) == 1 and figure.axes[0].get_legend() is None
    assert figure.get_suptitle().replace('\n', ' ') == 'mean of 2 seeds, too few for an interval'


def test_accuracy_against_flops_has_a_point_for_each_cell():
    points = [{'depth': 2, 'patch': 1}, {'depth': 4, 'patch': 1}, {'depth': 4, 'patch': 2}]
    accuracy = [(0.5, 0.4, 0.7), (0.6, *NONE), (0.7, 0.68, 0.72)]
    figure = against_flops([1e9, 2e9, 4e9], accuracy, points, ['depth', 'patch'], seeds=4)
    axis: Any = figure.axes[0]
    assert axis.get_xscale() == 'log' and len(axis.containers) == 3
    first, second, third = (c.lines[0] for c in axis.containers)
    assert second.get_color() == third.get_color() != first.get_color()
    assert first.get_marker() == second.get_marker() != third.get_marker()
    np.testing.assert_allclose(third.get_xydata(), [[4e9, 0.7]])
