"""Who may import whom, read from the syntax trees: what keeps the layers of the package apart."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'vitjax'

# Parts are files of vitjax/, or its folders. What loops and writes (loop, ablation, activations)
# may import any part; everything else imports these and no other.
SIBLINGS = {
    'layers': set(),
    'models': {'layers'},
    'data': set(),
    'optim': set(),
    'capture': set(),
    'analysis': set(),
    'figures': set(),
    'flops': set(),
    'train': {'data'},  # how augmentation names its keys
    'evaluate': {'data', 'train'},
    'sharding': {'train'},  # the types of the step that it spreads
    'experiment': {'models', 'data', 'optim'},
    'checkpoint': {'experiment'},
    'pretrained': {'layers', 'models', 'data', 'experiment', 'checkpoint'},
}
MANY = {'loop', 'ablation', 'activations', 'runs'}

# Packages that only some parts import, at the top of a module or inside a function.
ONLY_IN = {
    'flax.linen': {'layers', 'models', 'capture', 'experiment', 'pretrained'},  # two for the type
    'matplotlib': {'figures'},
    'orbax': {'checkpoint'},
    'tensorflow_datasets': {'data'},
    'tyro': {'experiment'},
    'rich': MANY,
    'tensorboardX': MANY,
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
    siblings = {name[1] for name in names if name[0] == 'vitjax'} - {part(path)}
    assert part(path) in MANY or siblings <= SIBLINGS[part(path)]


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_stay_where_they_belong(path):
    for name, _ in imported(path):
        for package, parts in ONLY_IN.items():
            assert not f'{name}.'.startswith(f'{package}.') or part(path) in parts, name


def test_tensorflow_datasets_is_imported_inside_functions_only():
    for path in FILES:
        tops = [name for name, top in imported(path) if top]
        assert not any(name.startswith(('tensorflow_datasets', 'grain', 'cv2')) for name in tops)


def test_the_project_depends_on_no_other_framework():
    folders = ('vitjax', 'scripts', 'experiments', 'tests')
    files = [path for folder in folders for path in (ROOT / folder).rglob('*.py')]
    assert len(files) > len(FILES)
    for path in files:
        assert not {name.split('.')[0] for name, _ in imported(path)} & NOWHERE, path


def test_the_rules_are_about_parts_that_exist():
    parts = {part(path) for path in FILES}
    assert parts <= SIBLINGS.keys() | MANY
    assert parts >= SIBLINGS.keys()
