import os
import pathlib
import subprocess
import sys

SCRIPTS = pathlib.Path(__file__).parent.parent.parent / 'scripts'


def compiled(tmp_path, module, **environment):
    """What a process that imports a command and compiles something leaves in the user's cache."""
    code = f'import {module}, jax; jax.jit(lambda x: x * 2)(1.0)'
    environment |= {
        'JAX_ENABLE_COMPILATION_CACHE': 'true',
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'XDG_CACHE_HOME': str(tmp_path),
        'PYTHONPATH': str(SCRIPTS),
    }
    around = {k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
    subprocess.run([sys.executable, '-c', code], check=True, env={**around, **environment})
    return [path for path in tmp_path.rglob('*') if path.is_file()]


def test_what_was_compiled_is_kept_in_the_user_s_cache_folder(tmp_path):
    assert compiled(tmp_path, 'train')
    assert {path.name for path in tmp_path.iterdir()} == {'vitjax'}


def test_a_folder_of_the_user_s_own_is_left_to_them(tmp_path):
    own = tmp_path / 'own'
    assert compiled(tmp_path, 'train', JAX_COMPILATION_CACHE_DIR=str(own))
    assert {path.name for path in tmp_path.iterdir()} == {'own'}


def test_benchmarks_read_no_programs_from_disk(tmp_path):
    assert compiled(tmp_path, 'benchmark') == []
