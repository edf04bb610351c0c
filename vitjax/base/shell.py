"""Shell commands that messages recommend, in the form in which the user called this process."""

import os
import pathlib
import shlex
import sys

PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def folder(name: str) -> pathlib.Path:
    """Returns a top-level folder of the project: inside an installed package, beside it in a clone.

    A folder beside an installed package belongs to somebody else.
    """
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def command(name: str, *arguments: str) -> str:
    """Returns a command to type: `vitjax evaluate RUN` or `python scripts/evaluate.py RUN`.

    A process of neither form gets the form that works where the package is installed.

    >>> command('evaluate', 'runs/a b')
    "python scripts/evaluate.py 'runs/a b'"
    """
    scripts, called = folder('scripts'), sys.argv[0]
    here = os.path.dirname(called)
    if called.endswith('.py') and os.path.realpath(here) == os.path.realpath(scripts):
        program = ['python', os.path.join(here, f'{name}.py')]
    elif called.startswith('vitjax ') or scripts.parent == PACKAGE:
        program = ['vitjax', name]
    else:
        program = ['python', f'scripts/{name}.py']
    return shlex.join([*program, *arguments])
