"""The command `vitjax`: each of its commands is a file of `scripts/`."""

import difflib
import importlib.metadata
import importlib.util
import sys
from typing import NoReturn

from vitjax.base import shell

HELP = """\
usage: vitjax COMMAND ..., as in vitjax train digits; vitjax COMMAND --help lists its flags
train        train             an experiment, by name or file
             evaluate          accuracy, precision, recall and F1 of a run or weights
             report            runs, or an ablation, as one page of HTML
             convert, prepare  published weights as a run; CIFAR, ImageNet or photographs as data
look inside  see               classes, attention, relevance and features of your photographs
             predict           classes of photographs
             visualize         attention, tokens and gradients, in more than twenty views
             capture           activations of a split, as files
             intervene         effects of changing heads, layers or tokens
             summary           a model's parts, parameters and FLOPs
compare      similarity        layers of runs or weights: CKA and other metrics, probes
ablate       ablate            a grid of settings, several seeds each
plan         plan              memory and time on machines that are not here
             benchmark         time and memory on this machine"""
COMMANDS = [name for line in HELP.splitlines()[1:] for name in line[13:31].replace(',', '').split()]


def main() -> None:
    """Runs `vitjax COMMAND ...` as Python runs the file of that name in `scripts/`."""
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('-h', '--help'):
        print(HELP)
    elif name == '--version':
        print('vitjax', importlib.metadata.version('vitjax'))
    elif name in COMMANDS:
        _run(name, arguments)
    else:
        _refuse(name)


def _refuse(name: str) -> NoReturn:
    close = difflib.get_close_matches(name, COMMANDS, n=2)
    hint = f'close: {", ".join(close)}' if close else f'there are {", ".join(COMMANDS)}'
    print(f'error: there is no command {name}; {hint}.', file=sys.stderr)
    sys.exit(2)


def _run(name: str, arguments: list[str]) -> None:
    folder = shell.folder('scripts')
    sys.path.insert(0, str(folder))
    sys.argv = [f'vitjax {name}', *arguments]
    spec = importlib.util.spec_from_file_location('__main__', folder / f'{name}.py')
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    script.__spec__ = None  # as of any script: processes that it starts find it by its file
    sys.modules['__main__'] = script
    spec.loader.exec_module(script)


if __name__ == '__main__':
    main()
