"""Imports between rooms, and of large packages, read from the syntax trees."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'vitjax'

# Rooms are the folders and files of vitjax/, in the order of its README. Each may import these
# others, all of them above it.
ROOMS = {
    'base': set(),
    'ops': {'base'},
    'layers': {'base', 'ops'},
    'models': {'base', 'ops', 'layers'},
    'inside': {'base', 'ops', 'models'},
    'data': {'base'},
    'analysis': {'base'},
    'figures': {'base', 'data'},
    'experiment': {'base', 'models', 'data'},
    'pretrained': {'base', 'layers', 'models', 'data', 'experiment'},
    'runs': {'base', 'models', 'data', 'experiment', 'pretrained'},
    'training': {'base', 'ops', 'models', 'data', 'experiment', 'runs'},
    'evaluate': {'base', 'data', 'runs', 'training'},
    'activations': {
        'base', 'ops', 'models', 'inside', 'analysis', 'data', 'figures', 'experiment',
        'pretrained', 'runs',
    },
    'studies': {
        'base', 'models', 'inside', 'analysis', 'data', 'figures', 'experiment', 'runs',
    },
    'views': {
        'base', 'ops', 'layers', 'models', 'inside', 'analysis', 'data', 'figures', 'experiment',
        'runs', 'evaluate',
    },
    'plan': {'base', 'data', 'experiment', 'training'},
    'report': {
        'base', 'models', 'analysis', 'data', 'figures', 'experiment', 'runs', 'training',
        'evaluate', 'plan', 'views',
    },
    'loop': {
        'base', 'models', 'inside', 'data', 'figures', 'experiment', 'runs', 'training',
        'evaluate', 'views', 'report',
    },
    'ablation': {
        'base', 'models', 'analysis', 'data', 'figures', 'experiment', 'runs', 'training', 'plan',
        'loop',
    },
}  # fmt: skip

# Packages that only some rooms or files import, at the top of a module or inside a function.
ONLY_IN = {
    'flax.linen': {'ops', 'layers', 'models', 'inside', 'training/split'},
    'matplotlib': {'figures'},
    'orbax': {'runs/checkpoint'},
    'tensorflow_datasets': {'data/kinds/tfds', 'data/prepare'},
    'tyro': {'base/flags'},
    'rich': {'base/console'},
    'tensorboardX': {'runs'},
    'submitit': {'ablation', 'loop/cluster'},
}
NOWHERE = {'torch', 'timm', 'torchvision', 'tensorflow', 'transformers', 'ml_collections', 'clu'}


def imported(path):
    """Modules that a file imports, and whether each import stands at the top of the file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in tree.body
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path} has a relative import'
            for alias in node.names:
                yield f'{node.module}.{alias.name}', node in tree.body


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


OUTSIDE = (PACKAGE / '__init__.py', PACKAGE / '__main__.py')
FILES = [path for path in PACKAGE.rglob('*.py') if path not in OUTSIDE]


def test_the_readme_lists_the_rooms_in_this_order():
    table = (PACKAGE / 'README.md').read_text().split('\n## ')[0]
    cells = re.findall(r'^\| (`.*?) \|', table, re.MULTILINE)
    assert re.findall(r'`(\w+)/?`', ' '.join(cells)) == list(ROOMS)


def test_rooms_import_only_the_rooms_above_that_they_may():
    order = list(ROOMS)
    assert {*map(room, FILES)} == {*order}
    for name, others in ROOMS.items():
        assert all(order.index(other) < order.index(name) for other in others), name
    for path in FILES:
        names = [name.split('.') for name, _ in imported(path)]
        others = {name[1] for name in names if name[0] == 'vitjax'} - {room(path)}
        assert others <= ROOMS[room(path)], f'{path}: {others - ROOMS[room(path)]}'


def test_no_room_may_import_what_none_of_its_files_imports():
    used = {name: set() for name in ROOMS}
    for path in FILES:
        used[room(path)] |= {n.split('.')[1] for n, _ in imported(path) if n.startswith('vitjax.')}
    assert {name: others & ROOMS.keys() - {name} for name, others in used.items()} == ROOMS


def test_heavy_packages_stay_where_they_belong():
    for path in FILES:
        place = path.relative_to(PACKAGE).with_suffix('').as_posix()
        for name, _ in imported(path):
            for package, places in ONLY_IN.items():
                if f'{name}.'.startswith(f'{package}.'):
                    assert any(f'{place}/'.startswith(f'{p}/') for p in places), f'{place}: {name}'


def test_tensorflow_datasets_is_imported_inside_functions_only():
    for path in FILES:
        tops = [name for name, top in imported(path) if top]
        assert not any(name.startswith(('tensorflow_datasets', 'grain', 'cv2')) for name in tops)


def test_hand_written_gradients_and_choices_by_platform_are_in_ops_alone():
    """Elsewhere they would forbid forward mode to what must stay plain."""
    for path in FILES:
        if room(path) != 'ops':
            assert not re.search(r'\b(custom_vjp|platform_dependent)\b', path.read_text()), path


def test_scripts_parse_call_and_print():
    """They import the package and `command`, which they share; benchmarks are parts of one."""
    folder = ROOT / 'scripts'
    foreign = {path.stem for path in folder.glob('*.py')} | {
        'peers',
        'matplotlib',
        'orbax',
        'optax',
    }
    for path in folder.rglob('*.py'):
        place = path.relative_to(folder).parts[0]
        if place != 'peers':
            names = {name.split('.')[0] for name, _ in imported(path)}
            assert not names & foreign, path
            assert 'benchmarks' not in names or place in ('benchmark.py', 'benchmarks'), path


def test_the_project_depends_on_no_other_framework():
    """But for scripts/peers, which are programs for the Pythons of those that it is measured by."""
    folders = ('vitjax', 'scripts', 'experiments', 'tests')
    files = [path for folder in folders for path in (ROOT / folder).rglob('*.py')]
    assert len(files) > len(FILES)
    for path in files:
        if path.parent != ROOT / 'scripts' / 'peers':
            assert not {name.split('.')[0] for name, _ in imported(path)} & NOWHERE, path
