"""The pages tried: their commands and snippets run, and their numbers are those of files.

A command stands in a fenced block without a language, or in a line as `vitjax ...`. Each runs after
a clone, or its block begins with `# needs ...`, or `NOT_RUN` has the reason.
"""

import ast
import glob
import importlib
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import command
import numpy as np
import pytest

from vitjax import experiment as experiments
from vitjax import models, runs
from vitjax.models.base import count_parameters, parameter_shapes
from vitjax.plan.flops import model_flops

ROOT = pathlib.Path(__file__).parent.parent
MODELS = 'experiments/models'
PAGES = ['README.md', *(f'{folder}/README.md' for folder in ('vitjax', 'scripts', 'tests'))]
PAGES += [f'experiments/{name}' for name in ('README.md', 'models/README.md', 'photos/README.md')]
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
FENCE = re.compile(r'^```(\w*)\n(.*?)^```', re.DOTALL | re.MULTILINE)

# Commands of programs that are not ours, and of the tests themselves.
OTHERS = ('pip install ', 'pytest', 'sh experiments/models/make.sh')
NOT_RUN = {
    'vitjax visualize experiments/models/patchconvnet_cifar10': 'tests/views draws every view',
    'vitjax train digits --model.depth 6 --epochs 20': 'tests/views/test_watch.py draws what it adds',
    'vitjax benchmark': 'takes minutes; tests/scripts/test_benchmark.py runs small subjects',
}
SMALLER = {
    'train': '--epochs 1', 'ablate': '--epochs 1 --seeds 1', 'capture': '--examples 16',
    'intervene': '--examples 4', 'evaluate': '', 'similarity': '--examples 70',
}  # fmt: skip


def snippets(page):
    return [text for language, text in FENCE.findall(TEXTS[page]) if language == 'python']


def blocks():
    """Commands that run one after another, with their page: of a fenced block, or one of a line."""
    for page, text in TEXTS.items():
        fenced = [block for language, block in FENCE.findall(text) if not language]
        for block in fenced:
            yield page, block.splitlines()
        for line in re.findall(r'`(vitjax [a-z]+ [^`]*)`', FENCE.sub('', text)):
            if not re.search(r'\b(COMMAND|NAME)\b', line):
                yield page, [line]


BLOCKS = [*blocks()]
FREE = [lines for _, lines in BLOCKS if not lines[0].startswith('# needs ')]
RUN = {
    '; '.join(lines): lines for lines in FREE
    if not lines[0].startswith((*OTHERS, *NOT_RUN))
}  # fmt: skip


def arguments(line):
    """Words of a command, with file names expanded as a shell does in the working directory."""
    words = shlex.split(line, comments=True)
    return [name for word in words for name in (sorted(glob.glob(word)) or [word])]


def run(line):
    """Runs a command in this process, on less."""
    _, script, *words = arguments(line)
    sys.argv = [f'scripts/{script}.py', *words, *SMALLER.get(script, '').split()]
    module = importlib.import_module(script)
    if script in ('train', 'ablate', 'plan'):
        return module.main()
    return command.parse(command.checked(module.main))()


@pytest.fixture
def clone():
    """The working directory with what commands read of a clone; returns its files."""
    for folder in ('models', 'photos'):
        shutil.copytree(ROOT / 'experiments' / folder, f'experiments/{folder}')
    return {path for path in pathlib.Path().rglob('*') if path.is_file()}


def git_shows(paths):
    """The paths of a clone that its .gitignore does not cover."""
    call = ['git', 'check-ignore', '--no-index', '--stdin']
    names = '\n'.join(map(str, paths))
    done = subprocess.run(call, cwd=ROOT, input=names, capture_output=True, text=True)
    return {*names.splitlines()} - {*done.stdout.splitlines()}


@pytest.mark.slow
@pytest.mark.parametrize('lines', RUN.values(), ids=[*RUN])
def test_commands_run_after_a_clone_and_leave_nothing_that_git_shows(lines, clone, monkeypatch):
    monkeypatch.setattr(sys, 'argv', sys.argv)
    for line in lines:
        assert not run(line), line
    if (ROOT / '.git').exists():
        made = {path for path in pathlib.Path().rglob('*') if path.is_file()} - clone
        assert not git_shows(made)


def test_each_line_of_a_block_is_a_command_or_a_comment():
    kinds = (*OTHERS, 'vitjax ', '#', 'ruff ')
    for page, lines in BLOCKS:
        for line in lines:
            assert line.startswith(kinds), f'{page}: {line}'
    assert len(RUN) > 15 and len(BLOCKS) > 35
    for start in NOT_RUN:
        assert any(lines[0].startswith(start) for lines in FREE), f'not in a page: {start}'


def test_commands_name_files_of_the_repository_or_of_the_lines_above(clone):
    """Those after `# needs` may name what it says, or, in capitals, what is the reader's."""
    for page, lines in BLOCKS:
        made = {'ablations/layers'} if 'ablations/layers' in lines[-1] else set()
        needs = lines[0] if lines[0].startswith('# needs ') else ''
        for line in lines:
            words = arguments(line)
            for flag, word in zip(['', *words], words, strict=False):
                if flag == '--out':
                    made.add(word)
                elif '/' in word and not word.startswith(('hf-hub:', './')):
                    known = pathlib.Path(word).exists() or word in made or word in needs
                    assert known or needs and word.startswith('runs/'), f'{page}: {word} of {line}'


@pytest.mark.skipif(not (ROOT / '.git').exists(), reason='a copy without git')
def test_outputs_of_commands_are_ignored_by_git():
    outs = [out for _, lines in BLOCKS for out in re.findall(r'--out (\S+)', '\n'.join(lines))]
    assert len(outs) > 15 and not git_shows({f'{out}/file' for out in outs})


@pytest.mark.slow
def test_the_notebook_runs_as_it_stands(clone, capsys):
    notebook, _ = snippets('README.md')
    exec(notebook, made := {})
    said = capsys.readouterr().out.splitlines()
    rows = [line for line in said if re.match(r'experiments/photos/\w+.jpg( \w+ \d+%){3}$', line)]
    assert len(rows) == 2
    for name in ('norms', 'lens'):
        assert pathlib.Path(f'figures/{name}.png').stat().st_size > 1000
    assert made['matrix'].shape == (5, 5)
    np.testing.assert_allclose(np.diag(made['matrix']), 1, atol=1e-3)


def test_pure_functions_run_as_they_stand_on_smaller_images():
    _, functions = snippets('README.md')
    edits = next(text for text in snippets('scripts/README.md') if 'intervene(' in text)
    exec(functions.replace('(2, 224, 224, 3)', '(1, 32, 32, 3)'), made := {})
    assert made['grads'].keys() == made['found'].keys()
    assert made['grads']['blocks/attention/weights'].shape == (24, 1, 4, 4, 4)
    exec(edits, made)
    assert made['logits'].shape == (1, 10) and made['found']['blocks'].shape == (24, 1, 4, 192)


def test_every_snippet_is_one_of_those_tried():
    assert [len(snippets(page)) for page in TEXTS] == [2, 0, 2, 0, 0, 0, 0]
    assert 'machines.machine' in snippets('scripts/README.md')[0]  # compiled by tests/target


def test_links_and_pictures_of_pages_exist():
    for page, text in TEXTS.items():
        for link in re.findall(r'\]\(([^)#]+)', text):
            assert link.startswith('https:') or (ROOT / page).parent.joinpath(link).exists(), link


def told(name):
    """The docstring of an experiment, as one line."""
    text = ast.get_docstring(ast.parse(experiments.known()[name].read_text()))
    return ' '.join((text or '').split())


def rows(page, start):
    """Cells of the table of a page whose header begins with `start`."""
    table = TEXTS[page][TEXTS[page].index(f'| {start} |') :].split('\n\n')[0]
    return [[cell.strip() for cell in line[1:-1].split('|')] for line in table.splitlines()[2:]]


def test_numbers_to_expect_of_experiments_stand_in_their_files():
    """Accuracies, seconds and rates of the table of experiments; times of the plans."""
    expected = [(names, text) for names, _, text in rows('experiments/README.md', 'experiment')]
    plans = [(name, ' '.join(more)) for name, *more in rows('experiments/README.md', 'recipe')]
    assert len(expected) >= 10 and len(plans) == 4
    for names, text in expected + plans:
        said = ' '.join(told(name) for name in re.findall(r'`(\w+)`', names))
        for number in re.findall(r'[\d.]+(?:%| s\b| images/s| ms\b| min\b| h\b| GB)', text):
            assert number in said, f'{names}: {number}'


def test_every_experiment_has_a_row():
    names = {name for row in rows('experiments/README.md', 'experiment')
             for name in re.findall(r'`(\w+)`', row[0])}  # fmt: skip
    assert {*experiments.known()} == names


def test_numbers_of_the_models_that_are_shipped_are_those_of_their_runs():
    for name, count, trained, accuracy, minutes in rows(f'{MODELS}/README.md', 'model'):
        run, recipe = ROOT / MODELS / name.strip('`'), experiments.find(trained.split('`')[1])
        experiment, test = runs.read_experiment(run), runs.records.tested(run)
        assert runs.checkpoint.damage(run, 0) is None
        assert f'{test["accuracy"]:.2%}' == accuracy and f'{experiment.epochs:g} of' in trained
        assert f'{test["seconds"] / 60:.0f}' == minutes
        assert experiment.model == recipe.experiment.model
        shapes = parameter_shapes(experiment.model, experiment.augment.size)
        assert f'{count_parameters(shapes) / 1e6:.2f} M' == count
        for path in (*run.rglob('*.json*'), *run.rglob('_*'), *run.rglob('metadata')):
            assert not re.search('/(home|root|work|tmp|Users)/', path.read_text()), path


@pytest.mark.slow
def test_parameters_and_operations_of_published_models_are_as_counted():
    names = {
        'ViT-Ti/16': 'vit_tiny_patch16', 'ViT-B/16': 'vit_base_patch16',
        'CaiT-XXS24': 'cait_xxs24', 'CaiT-S24': 'cait_s24',
        'PatchConvNet-S60': 'patchconvnet_s60', 'VGG16': 'vgg16',
    }  # fmt: skip
    found = rows('vitjax/README.md', 'model | parameters')
    assert [row[0] for row in found] == [*names]
    for name, parameters, *_, counted in found:
        model = models.named(names[name])
        assert f'{count_parameters(parameter_shapes(model, 224)):,}' == parameters
        assert f'{model_flops(model, 224) / 2e9:.2f}' == counted
