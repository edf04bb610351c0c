"""The command `vitjax`, from the clone, and from a wheel in an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from helpers import SCRIPTS

from vitjax import __main__ as main

ROOT = SCRIPTS.parent


def test_the_help_lists_every_command_in_fifteen_lines():
    assert sorted(main.COMMANDS) == sorted(path.stem for path in SCRIPTS.glob('*.py'))
    lines = main.HELP.splitlines()
    assert len(lines) == 15 and max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ('typed', 'said'),
    [('evalute', 'close: evaluate'), ('zzz', 'there are train, evaluate, report, convert')],
)
def test_an_unknown_command_suggests_the_nearest(monkeypatch, capsys, typed, said):
    monkeypatch.setattr(sys, 'argv', ['vitjax', typed])
    with pytest.raises(SystemExit) as end:
        main.main()
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith(f'error: there is no command {typed}; {said}')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Folder into which a wheel of the project was unpacked."""
    setuptools = pytest.importorskip('setuptools')
    if int(setuptools.__version__.split('.')[0]) < 77:
        pytest.skip('needs setuptools 77, which knows license expressions')
    folder = tmp_path_factory.mktemp('wheel')
    kept = shutil.ignore_patterns('.*', '__pycache__', 'gallery')
    for name in ('vitjax', 'scripts', 'experiments'):
        shutil.copytree(ROOT / name, folder / 'source' / name, ignore=kept)
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, folder / 'source')
    build = 'import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])'
    done = subprocess.run(
        [sys.executable, '-c', build, folder], cwd=folder / 'source', capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob('*.whl'))) as wheel:
        wheel.extractall(folder / 'site')
    return folder / 'site'


@pytest.mark.slow
def test_a_wheel_has_every_file(site):
    for name, inside in (('vitjax', 'vitjax'), ('scripts', 'vitjax/scripts')):
        files = (ROOT / name).rglob('*')
        wanted = {f.relative_to(ROOT / name) for f in files if f.suffix in ('.py', '.css', '.js')}
        assert wanted and all((site / inside / file).is_file() for file in wanted)
    wanted = [path.name for path in (ROOT / 'experiments').glob('*.py')]
    assert all((site / 'vitjax' / 'experiments' / name).is_file() for name in wanted)
    (points,) = site.glob('*.dist-info/entry_points.txt')
    assert 'vitjax = vitjax.__main__:main' in points.read_text()
    assert {path.name for path in site.iterdir() if path.suffix != '.dist-info'} == {'vitjax'}


@pytest.mark.slow
def test_a_wheel_s_commands_run_in_an_empty_folder(site, tmp_path):
    (tmp_path / 'bin').mkdir()
    script = tmp_path / 'bin' / 'vitjax'  # as pip writes it
    script.write_text('import sys\nfrom vitjax.__main__ import main\nsys.exit(main())\n')
    (tmp_path / 'cwd').mkdir()

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, script, *arguments], cwd=tmp_path / 'cwd', text=True,
            capture_output=True, env={**os.environ, 'PYTHONPATH': str(site)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run('--help').strip() == main.HELP
    assert run('train', '--help').startswith('usage: vitjax train EXPERIMENT')
    assert 'CaiT, one image of 224x224 pixels' in run('summary', 'cait_xxs24')
    said = run('train', 'digits', '--epochs', '1', '--model.depth', '1', '--no-report')
    assert '\n  vitjax evaluate runs/digits\n' in said
    assert 'accuracy' in run('evaluate', 'runs/digits')
    assert [path.name for path in (tmp_path / 'cwd').iterdir()] == ['runs']
