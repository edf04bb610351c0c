"""Other libraries, timed by their own Python on the same task (scripts/peers)."""

import functools
import json
import pathlib
import shutil
import subprocess
from typing import Any

PEERS = pathlib.Path(__file__).parent.parent / 'peers'


def require(python: str | None) -> None:
    """Checks that a peer's Python can be run, before anything is timed."""
    if python is not None and shutil.which(python) is None:
        raise ValueError(f'--peer must name a Python that can be run: {python!r}.')


@functools.cache
def ask(python: str, program: str, arguments: tuple[Any, ...]) -> Any:
    """Returns the output of a program of scripts/peers, run by that Python; None if it fails."""
    call = [python, str(PEERS / f'{program}.py'), json.dumps(arguments)]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None
