"""Every metric of the registry, and a user's own without an entry."""

import pathlib

import numpy as np
import pytest

from vitjax.analysis import similarity

README = pathlib.Path(__file__).parents[3] / 'scripts' / 'README.md'


def test_the_readme_names_every_metric():
    assert f'`{" ".join(similarity.METRICS)}`' in README.read_text()


@pytest.mark.parametrize('name', similarity.METRICS)
def test_a_heat_map_ends_at_or_above_every_value(name, x, y):
    metric = similarity.METRICS[name]
    values = metric.measure(x, y, **({'k': 5} if metric.settings else {}))
    assert values.shape == (len(x), len(y))
    assert metric.most is not None and values.max() <= metric.most + 1e-6


def test_a_users_own_metric_needs_no_entry(monkeypatch, tmp_path, x, y):
    (tmp_path / 'own_metrics.py').write_text(
        'import numpy as np\n'
        'from vitjax.analysis.similarity import Metric\n'
        'def mean_gap(x, y):\n'
        '    return np.abs(x.mean((1, 2))[:, None] - y.mean((1, 2)))\n'
        "named = Metric('gap', 'gap of means', mean_gap, most=2.0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = similarity.find('own_metrics:mean_gap')
    assert (own.name, own.title, own.most) == ('own_metrics.mean_gap', 'mean gap', None)
    assert own.measure(x, y).shape == (len(x), len(y))
    assert similarity.find('own_metrics:named').name == 'gap'
    np.testing.assert_array_equal(similarity.find('cka').measure(x, y), similarity.cka(x, y))


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match=r"one of cka, .*, knn, or MODULE:FUNCTION: 'ckaa'"):
        similarity.find('ckaa')
    with pytest.raises(
        ValueError, match="no_such_module:f cannot be imported: No module named 'no_"
    ):
        similarity.find('no_such_module:f')
    with pytest.raises(
        ValueError, match="math:no_such cannot be imported: .*no attribute 'no_such'"
    ):
        similarity.find('math:no_such')
