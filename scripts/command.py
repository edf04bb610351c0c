"""What every command shares: arguments by tyro, and errors in a line or two."""

import os
import sys
from collections.abc import Callable

import tyro


def run(main: Callable[..., int | None]) -> None:
    """Calls `main` with the arguments that tyro parses for its signature, guarded, and exits."""
    guard(lambda: tyro.cli(main))


def guard(call: Callable[[], int | None]) -> None:
    """Calls a function and exits with its code.

    What a user can cause (ValueError, OSError) ends in a line or two and exit code 1; other
    exceptions are bugs and keep their traceback. VITJAX_TRACEBACK=1 shows every traceback.
    """
    try:
        sys.exit(call() or 0)
    except (ValueError, OSError) as error:
        if os.environ.get('VITJAX_TRACEBACK'):
            raise
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        sys.exit(130)
