"""Names in an experiment: an entry of a registry, or MODULE:NAME of a user's own module.

Reading an experiment imports nothing: `experiment.json` may come from anybody. A user's module is
imported by the experiment's file, by the user's program, or by `--import` on the command line.
"""

import dataclasses
import importlib
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any

OWN = r'[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*'  # MODULE:NAME

imported: dict[str, str] = {}  # users' files by the module's name
folders: set[str] = set()  # of experiments' files, whose neighbours they may import


@dataclasses.dataclass(frozen=True, eq=False)
class Named:
    """Rule of a field that holds a name of a registry, or MODULE:NAME.

    Attributes:
        known: the registry, by name.
    """

    known: Mapping[str, Any]

    def holds(self, value: str) -> bool:
        """Returns True for an entry of the registry, and for any MODULE:NAME."""
        return value in self.known or bool(re.fullmatch(OWN, value))

    def __str__(self) -> str:
        return f'{", ".join(map(repr, self.known))} or MODULE:NAME'


def find(field: str, known: Mapping[str, Any], name: Any) -> Any:
    """Returns what a field names.

    Args:
        field: dotted field, for messages.
        known: the registry, by name.
        name: an entry of it, or MODULE:NAME of a module that is imported already.

    Raises:
        ValueError: if it names nothing, with what to do.
    """
    if isinstance(name, str) and name in known:
        return known[name]
    if not isinstance(name, str) or not re.fullmatch(OWN, name):
        raise ValueError(f'{field} must be {Named(known)}: {name!r}.')
    module, _, attribute = name.partition(':')
    if module not in sys.modules:
        raise ValueError(
            f'{field} must be of a module that is imported: {name!r} is not.\n'
            f'Add --import {module} to the command, or the path of its file.'
        )
    there = vars(sys.modules[module])  # `getattr` may import lazily
    if attribute not in there:
        raise ValueError(f'{field} must exist: {module} has no {attribute}.')
    if not callable(there[attribute]):
        raise ValueError(f'{field} must be a function or a class: {name} is not.')
    _require_arguments(field, there[attribute], *known.values())
    return there[attribute]


def _require_arguments(field: str, own: Any, example: Any, *_: Any) -> None:
    """Raises ValueError if a user's function does not take what those of a registry take."""
    if isinstance(own, type) or isinstance(example, type):  # a model
        return
    wanted = [*inspect.signature(example).parameters]
    try:
        inspect.signature(own).bind(*wanted)
    except TypeError as error:
        code = getattr(inspect.unwrap(own), '__code__', None)  # a partial function has none
        place = f': {code.co_filename}, line {code.co_firstlineno}' if code else ''
        raise ValueError(f'{field} must take ({", ".join(wanted)}): {error}{place}.') from None


def name_of(known: Mapping[str, Any], value: Any) -> str:
    """Returns the name by which `find` finds a class or function again."""
    name = next((name for name, each in known.items() if each is value), None)
    return name or f'{value.__module__}:{value.__qualname__}'


def source(module: str) -> str:
    """Returns the name by which `require` imports a module in another process.

    A neighbour of an experiment's file goes by its path: its folder is on no other import path.
    """
    if module in imported:
        return imported[module]
    file = getattr(sys.modules.get(module), '__file__', None) or ''
    neighbour = '.' not in module and str(pathlib.Path(file).parent) in folders
    return file if neighbour else module


def require(name: str) -> None:
    """Imports a user's module: `my_models`, or the path of its file, `code/my_models.py`.

    Raises:
        ValueError: if there is none, or it cannot be imported.
    """
    try:
        if name.endswith('.py'):
            load(pathlib.Path(name))
        else:
            importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise ValueError(f'--import must name a module or its file: {name}: {error}.') from None
    except SyntaxError as error:
        raise ValueError(f'--import must name a module of Python: {unparsed(error)}.') from None


def unparsed(error: SyntaxError) -> str:
    """Returns the place of a syntax error, and the error."""
    return f'{error.filename}, line {error.lineno}: {error.msg}'


def line(error: Exception, path: pathlib.Path) -> int | None:
    """Returns the line of a file in which an error was raised."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    own = str(path.absolute())
    return next((frame.lineno for frame in frames if frame.filename == own), None)


def load(path: pathlib.Path) -> ModuleType:
    """Returns the module of a file, imported under the file's name if no other module has it."""
    path = path.absolute()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    there = sys.modules.get(path.stem)
    if there is None or getattr(there, '__file__', None) == module.__file__:
        sys.modules[path.stem] = module
        imported[path.stem] = str(path)
    spec.loader.exec_module(module)
    return module
