import json
import subprocess

import jax
import pytest

from vitjax.runs import environment


def test_it_says_what_runs_in_plain_json():
    found = environment.describe(jax.devices()[:3])
    assert json.loads(json.dumps(found)) == found
    assert found['devices'] == f'3 x {jax.devices()[0].device_kind}'
    assert found['versions']['jax'] == jax.__version__
    assert found['started'].endswith('+00:00')


def test_the_commit_and_whether_code_differs_from_it(tmp_path):
    def git(*arguments):
        settings = ('-c', 'user.name=a', '-c', 'user.email=a@b.c')
        command = ['git', '-C', str(tmp_path), *settings, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    inside = tmp_path / 'environment'
    inside.mkdir()
    try:
        git('init')
    except OSError:
        pytest.skip('there is no git here')
    code = tmp_path / 'experiments' / 'a.py'
    code.parent.mkdir()
    code.write_text('1')
    git('add', 'experiments')
    git('commit', '-m', 'first')
    commit = git('rev-parse', 'HEAD')
    for folder in (tmp_path, code.parent):
        (folder / 'notes.md').write_text('that no run reads')
    assert environment._commit(tmp_path) == (commit, False)
    code.write_text('2')
    assert environment._commit(tmp_path) == (commit, True)
    code.write_text('1')
    assert environment._commit(tmp_path) == (commit, False)
    new = tmp_path / 'vitjax' / 'models' / 'new.py'
    for path in (code.with_name('new.py'), new):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('of no commit')
        assert environment._commit(tmp_path) == (commit, True)
        path.unlink()
    assert environment._commit(inside) == (None, None)  # of another project's checkout
