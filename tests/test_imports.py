"""Who may import whom, read from the syntax trees: what keeps the layers of the package apart."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'vitjax'

# Parts are files of vitjax/, or its folders. Each may import these siblings and no other; imports
# go up this list only. `types` has names of types alone, and is for everybody.
SIBLINGS = {
    'types': set(),
    'keys': set(),
    'ranges': set(),
    'fields': {'ranges'},
    'optim': {'ranges'},
    'distill': {'ranges'},
    'files': set(),
    'quiet': set(),
    'environment': set(),
    'flops': set(),
    'timing': set(),
    'hlo': set(),
    'target': {'flops', 'timing', 'hlo'},
    'signals': set(),
    'processes': {'fields'},
    'console': set(),
    'labels': set(),
    'capture': set(),
    'intervene': {'capture'},
    'diagnosis': {'capture'},
    'analysis': set(),
    'layers': set(),
    'models': {'ranges', 'fields', 'layers'},
    'data': {'files', 'quiet', 'ranges', 'fields', 'keys'},
    'figures': {'files', 'data'},
    'split': set(),
    'train': {'keys'},
    'experiment': {'ranges', 'fields', 'models', 'data', 'optim', 'distill'},
    'pretrained': {'files', 'ranges', 'fields', 'layers', 'models', 'data', 'experiment'},
    'checkpoint': {'files', 'quiet', 'train'},
    'sharding': {'train', 'split'},
    'runs': {'environment', 'files', 'models', 'data', 'experiment', 'pretrained', 'checkpoint'},
    'provenance': {'files', 'data', 'experiment', 'pretrained', 'checkpoint', 'runs'},
    'evaluate': {'data', 'train', 'runs'},
    'activations': {
        'labels', 'files', 'capture', 'analysis', 'figures', 'models', 'data', 'experiment',
        'pretrained', 'runs',
    },
    'studies': {
        'labels', 'files', 'capture', 'intervene', 'analysis', 'figures', 'models', 'data',
        'experiment', 'runs',
    },
    'views': {
        'labels',
        'capture', 'analysis', 'figures', 'layers', 'models', 'data', 'experiment', 'runs',
        'evaluate',
    },
    'program': {
        'ranges', 'fields', 'keys', 'optim', 'distill', 'models', 'data', 'train', 'experiment',
        'checkpoint', 'sharding', 'runs',
    },
    'report': {
        'labels', 'files', 'fields', 'flops', 'analysis', 'figures', 'models', 'data', 'experiment',
        'runs', 'provenance', 'evaluate', 'views', 'program',
    },
    'forecast': {'flops', 'target', 'train', 'data', 'experiment', 'sharding', 'program'},
    'progress': {'optim', 'models', 'experiment', 'runs', 'evaluate', 'program'},
    'loop': {
        'environment', 'fields', 'signals', 'processes', 'console', 'diagnosis', 'figures', 'data',
        'train', 'experiment', 'checkpoint', 'runs', 'provenance', 'evaluate', 'views', 'program',
        'progress',
    },
    'launch': {'processes', 'experiment', 'runs', 'report', 'loop'},
    'ablation': {
        'files', 'ranges', 'fields', 'flops', 'signals', 'console', 'analysis', 'figures', 'models',
        'data', 'experiment', 'runs', 'provenance', 'program', 'loop', 'launch',
    },
}  # fmt: skip

# Packages that only some parts import, at the top of a module or inside a function.
ONLY_IN = {
    'flax.linen': {'layers', 'models', 'capture', 'intervene', 'split'},
    'matplotlib': {'figures'},
    'orbax': {'checkpoint'},
    'tensorflow_datasets': {'data'},
    'tyro': {'experiment', 'ranges'},
    'rich': {'console'},
    'tensorboardX': {'runs'},
    'submitit': {'ablation', 'launch'},
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


def part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


FILES = [path for path in PACKAGE.rglob('*.py') if path != PACKAGE / '__init__.py']


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_parts_import_only_the_siblings_they_may(path):
    names = [name.split('.') for name, _ in imported(path)]
    siblings = {name[1] for name in names if name[0] == 'vitjax'} - {part(path), 'types'}
    assert siblings <= SIBLINGS[part(path)]


def test_imports_go_down_only():
    order = list(SIBLINGS)
    for part, siblings in SIBLINGS.items():
        assert all(order.index(sibling) < order.index(part) for sibling in siblings), part


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_stay_where_they_belong(path):
    for name, _ in imported(path):
        for package, parts in ONLY_IN.items():
            assert not f'{name}.'.startswith(f'{package}.') or part(path) in parts, name


def test_tensorflow_datasets_is_imported_inside_functions_only():
    for path in FILES:
        tops = [name for name, top in imported(path) if top]
        assert not any(name.startswith(('tensorflow_datasets', 'grain', 'cv2')) for name in tops)


def test_scripts_parse_call_and_print():
    """They import the package, and of each other only what all of them share."""
    scripts = {path.stem for path in (ROOT / 'scripts').glob('*.py')}
    scripts -= {'command', 'startup', 'tables'}
    for path in (ROOT / 'scripts').glob('*.py'):
        names = {name.split('.')[0] for name, _ in imported(path)}
        assert not names & (scripts | {'peers', 'matplotlib', 'orbax', 'optax'}), path


def test_the_project_depends_on_no_other_framework():
    """But for scripts/peers, which are programs for the Pythons of those that it is measured by."""
    folders = ('vitjax', 'scripts', 'experiments', 'tests')
    files = [path for folder in folders for path in (ROOT / folder).rglob('*.py')]
    assert len(files) > len(FILES)
    for path in files:
        if path.parent != ROOT / 'scripts' / 'peers':
            assert not {name.split('.')[0] for name, _ in imported(path)} & NOWHERE, path


def test_the_rules_are_about_parts_that_exist():
    assert {part(path) for path in FILES} == SIBLINGS.keys()
