"""The explorer page: its contents, and its behaviour in a browser."""

import base64
import dataclasses
import fnmatch
import json
import pathlib
import re
import shutil
import tomllib
import zlib

import numpy as np
import pytest
import scipy.special
from PIL import Image

import vitjax
from vitjax import evaluate, views
from vitjax.views import explorer, forward

EVIL = '<script>alert(1)<\\script>{{data}}</script>'


def page_of(loaded, images, **options):
    (drawing,) = views.draw(loaded, images, 'explorer', **options)
    assert drawing.name == 'explorer' and isinstance(drawing.figure, str)
    return drawing.figure


def read(page):
    """The models on a page, as the browser reads them."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)['models']


def unpacked(text, dtype):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def weights_of(found):
    """A map's weights [layers, heads, queries, keys], as the page's script computes them."""
    tops = unpacked(found['tops'], '<u2').reshape(found['layers'], found['heads'], -1, 1)
    codes = unpacked(found['codes'], np.int8 if found['signed'] else np.uint8)
    codes = codes.reshape(*tops.shape[:-1], -1)
    return explorer.Quantised(codes, tops[..., 0], found['unit'], 0, 0).decoded()


def captured(loaded, images):
    return forward.forward_pass(loaded, images, keep=[explorer.VIEW.keep])


@pytest.mark.parametrize('sharpness', [0, 2, 20])
def test_weights_in_8_bits_differ_by_the_stated_error(sharpness):
    scores = np.random.default_rng(0).normal(0, sharpness, (2, 3, 50, 50))
    weights = scipy.special.softmax(scores, -1).astype(np.float32)
    stored = explorer.quantise(weights)
    off = np.abs(stored.decoded() - weights)
    assert stored.error == off.max()
    assert stored.sums == pytest.approx(np.abs(stored.decoded().sum(-1) - 1).max(), abs=1e-6)
    assert np.all(off <= weights.max(-1, keepdims=True) / explorer.POWER / 500)  # each row's own
    assert stored.sums < 0.05
    mixed = weights - 2 * weights[:, ::-1]
    stored = explorer.quantise(mixed)
    assert stored.codes.dtype == np.int8
    top = np.abs(mixed).max(-1, keepdims=True)
    assert np.all(np.abs(stored.decoded() - mixed) <= top / explorer.POWER / 250)


def test_a_row_of_zeros_stays_one():
    stored = explorer.quantise(np.zeros((1, 2, 3), np.float32))
    assert stored.error == stored.sums == 0


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vit', 'features', 'cait', 'multi'])
def test_a_page_holds_the_captured_arrays(opened, photographs, name):
    loaded = opened[name]
    found = captured(loaded, photographs)
    (model,) = read(page_of(loaded, photographs))
    assert len(model['images']) == 2
    paths = [p for p in (forward.WEIGHTS, forward.MIXED, forward.CLASS_WEIGHTS) if p in found.found]
    for i, image in enumerate(model['images']):
        assert len(image['maps']) == len(paths)
        for path, stored in zip(paths, image['maps'], strict=True):
            weights, expected = weights_of(stored), np.asarray(found.found[path][:, i])
            if name == 'multi':  # tokens of the likeliest classes come first
                expected = expected[:, :, np.argsort(-found.logits[i], kind='stable')]
            off = weights - expected
            assert stored['error'] == pytest.approx(np.abs(off).max(), rel=1e-6)
            assert stored['error'] < np.abs(expected).max() / 100
            if path != forward.MIXED:
                assert np.abs(weights.sum(-1) - 1).max() <= stored['sums'] + 1e-6
            assert len(stored['keys']) + 16 == weights.shape[-1]
        norms = unpacked(image['norms'], '<f4').reshape(model['layers'], -1)
        expected = np.linalg.norm(np.asarray(found.found['blocks'])[:, i], axis=-1)
        np.testing.assert_allclose(norms, expected, rtol=1e-5)
        assert len(norms[0]) == len(model['tokens']) + 16
        assert len(image['lens']) == model['layers']
    if name == 'features':
        assert model['tokens'] == ['register 1'] and model['answers'] == 'cosine'
        assert model['images'][0]['lens'][-1][0][1] == pytest.approx(1, abs=1e-6)
        return
    told = evaluate.classify(loaded, photographs, top=5)
    for image, expected in zip(model['images'], told, strict=True):
        assert [name + ', or so' for name, _ in image['answer']] == [name for name, _ in expected]
        assert [p for _, p in image['answer']] == pytest.approx([p for _, p in expected], abs=1e-4)
        # The lens at the last layer is the model.
        assert image['lens'][-1][0][1] == pytest.approx(image['answer'][0][1], abs=1e-3)


def test_maps_have_titles_and_names_of_tokens(opened, photographs):
    def said(name):
        (model,) = read(page_of(opened[name], photographs))
        return {m['title']: (m['queries'], m['keys']) for m in model['images'][0]['maps']}

    assert said('vit') == {'attention': (['class token'], ['class token'])}
    assert said('cait') == {
        'attention, before head mixing': ([], []),
        'attention, after head mixing': ([], []),
        'class attention': (['class token'], ['class token']),
    }
    ((title, (queries, keys)),) = said('multi').items()
    assert title == 'pooling attention' and keys == []
    assert sorted(queries) == [f'token of class{i}' for i in range(5)]


def test_grids_need_not_be_square(opened, photographs):
    found = captured(opened['cait'], photographs)
    wide = {
        forward.WEIGHTS: np.full((2, 1, 2, 6, 6), 1 / 6, np.float32),
        'blocks': np.ones((2, 1, 6, 16), np.float32),
        forward.CLASS_WEIGHTS: np.full((2, 1, 2, 1, 7), 1 / 7, np.float32),
    }
    pixels = np.zeros((1, 8, 12, 3), np.uint8)
    found = dataclasses.replace(found, found=wide, pixels=pixels)
    model = explorer.contents(found, 'wide')
    assert model['grid'] == [2, 3]
    assert all(weights_of(m).shape[-1] == 6 + len(m['keys']) for m in model['images'][0]['maps'])


def test_four_photographs_of_a_vit_s_16_stay_below_15_mb():
    scores = np.random.default_rng(0).normal(0, 2, (1, 6, 197, 197))
    stored = explorer.quantise(scipy.special.softmax(scores, -1).astype(np.float32))
    layer = len(explorer._packed(stored.codes)) + len(explorer._packed(stored.tops))
    picture = len(explorer._picture(np.random.default_rng(0).integers(0, 255, (224, 224, 3), 'u1')))
    assert 4 * (12 * layer + picture) < 15e6


def test_names_are_never_markup(opened, photographs, tmp_path):
    names = (EVIL, '</script><b>', '"&\'')
    loaded = opened['vit']
    loaded = loaded._replace(experiment=dataclasses.replace(loaded.experiment, classes=names))
    file = tmp_path / '<script>alert(1)<!--.png'
    Image.fromarray(photographs[0]).save(file)
    page = page_of(loaded, [file], labels=(EVIL,))
    plain = page_of(opened['vit'], photographs)
    for tag in ('<script', '</script', '<b>', '<!--'):
        assert page.count(tag) == plain.count(tag)
    (model,) = read(page)
    assert model['name'] == EVIL
    assert model['images'][0]['name'] == file.stem
    assert {name for name, _ in model['images'][0]['answer']} == set(names)


def test_reasons_for_no_page_are_one_line(opened, photographs, monkeypatch):
    with pytest.raises(
        ValueError, match='^explorer: skipped: ConvNet has no attention; see grad-cam'
    ):
        page_of(opened['convnet'], photographs)
    with pytest.raises(ValueError, match='^explorer: skipped: ConvNet has no attention'):
        page_of(opened['vit'], photographs, beside=captured(opened['convnet'], photographs))
    monkeypatch.setattr(explorer, 'LIMIT', 1e-4)
    with pytest.raises(ValueError, match='hold 0 MB of attention weights, 0.0001 at most; use a'):
        page_of(opened['vit'], photographs)


def test_megabytes_are_those_of_the_weights(opened):
    assert explorer.megabytes(opened['vit'], 2) == pytest.approx(2 * 3 * 2 * 17 * 17 / 1e6)
    assert explorer.megabytes(opened['convnet'], 2) == 0


def test_the_files_of_a_page_are_installed():
    root = pathlib.Path(vitjax.__file__).parent
    settings = tomllib.loads((root.parent / 'pyproject.toml').read_text())
    patterns = settings['tool']['setuptools']['package-data']['vitjax']
    for file in root.rglob('*.*'):
        name = file.relative_to(root).as_posix()
        known = any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
        assert known or file.suffix in ('.py', '.pyc', '.md') or '__pycache__' in name, name


# ---- In a browser ------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def browser():
    api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    there = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'chrome'))), None)
    if there is None:
        pytest.skip('there is no chromium')
    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking']
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=there, args=flags)
        yield started
        started.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens pages; at the end nothing may have gone wrong in them, or over the network."""
    wrong, contexts = [], []

    def open_page(text, **options):
        file = tmp_path / f'{len(contexts)}.html'
        file.write_text(text, 'utf-8')
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on('console', lambda message: wrong.append(message.text))
        page.on('pageerror', lambda error: wrong.append(str(error)))
        page.on('dialog', lambda dialog: wrong.append(dialog.message))
        page.on('request', lambda r: r.url == file.as_uri() or wrong.append(r.url[:80]))
        page.goto(file.as_uri())
        page.locator('.status:not(:empty)').first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def point(page, row, column, panel=0, *, act='hover', rows=4):
    picture = page.locator('.picture').nth(panel)
    box = picture.bounding_box()
    at = {'x': box['width'] * (column + 0.5) / rows, 'y': box['height'] * (row + 0.5) / rows}
    getattr(picture, act)(position=at)


def shown(page, status, panel=0):
    """The numbers of the map, once the line below it says `status`."""
    panel = page.locator('.panel').nth(panel)
    panel.locator('.status', has_text=re.compile(status)).wait_for()
    if not panel.locator('.numbers').evaluate('x => x.open'):
        panel.locator('.numbers summary').click()
        panel.locator('.numbers td').first.wait_for()
    text = panel.locator('.numbers table').inner_text()
    rows = [line.split()[1:] for line in text.splitlines()[1:]]
    return np.array([[float(cell.rstrip('%')) / 100 for cell in row] for row in rows])


def close(numbers, expected, error):
    np.testing.assert_allclose(numbers.ravel(), expected, rtol=0, atol=error + 5.1e-5)


def test_pointing_shows_the_attention_of_a_patch(opened, photographs, visit):
    loaded = opened['vit']
    text = page_of(loaded, photographs)
    error = max(image['maps'][0]['error'] for image in read(text)[0]['images'])
    weights = np.asarray(captured(loaded, photographs).found[forward.WEIGHTS])
    page = visit(text, viewport={'width': 1300, 'height': 900})
    assert page.locator('.panel').count() == 2
    numbers = shown(page, '^class token attends most to')
    close(numbers, weights[-1, 0, :, 0, 1:].mean(0), error)
    before = page.locator('.picture').first.evaluate('x => x.toDataURL()')
    point(page, 2, 1)
    close(shown(page, '^row 3, column 2 attends'), weights[-1, 0, :, 10, 1:].mean(0), error)
    assert page.locator('.picture').first.evaluate('x => x.toDataURL()') != before
    close(shown(page, '^row 3, column 2', 1), weights[-1, 1, :, 10, 1:].mean(0), error)  # linked
    page.locator('.heads button').nth(2).click()
    page.locator('[name=layer]').first.fill('2')
    page.locator('.depth output', has_text='2 of 3').first.wait_for()
    close(shown(page, '^row 3, column 2'), weights[1, 0, 1, 10, 1:], error)
    point(page, 2, 1, act='click')  # holds it; pointing then reads
    point(page, 0, 3)
    said = page.locator('.status', has_text='row 3, column 2 to row 1, column 4:').first
    value = float((said.text_content() or '').rsplit(' ', 1)[1].rstrip('%')) / 100
    assert value == pytest.approx(weights[1, 0, 1, 10, 4], abs=error + 5.1e-5)
    page.locator('[name=linked]').uncheck()
    page.locator('.tokens button').nth(1).click()
    shown(page, '^class token attends', 1)
    assert (page.locator('.status').first.text_content() or '').startswith('row 3')
    answers = page.locator('.answer').first.inner_text()
    assert 'class' in answers and '%' in answers
    assert page.locator('.lens').first.locator('tr').count() == 3


def test_keys_move_over_patches_layers_heads_and_maps(opened, photographs, visit):
    loaded = opened['cait']
    text = page_of(loaded, photographs)
    found = captured(loaded, photographs).found
    before, after, rows = (np.asarray(found[p])[:, 0] for p in explorer._PATHS)
    errors = [m['error'] for m in read(text)[0]['images'][0]['maps']]
    page = visit(text, viewport={'width': 800, 'height': 900})
    page.locator('.picture').focus()
    for key in ('ArrowRight', 'ArrowUp', 'ArrowRight'):  # from the centre on
        page.keyboard.press(key)
    shown(page, '^row 2, column 4 attends')
    page.locator('.picture').focus()
    page.keyboard.press('s')
    page.keyboard.press('d')
    page.locator('.depth output', has_text='1 of 2').wait_for()
    page.locator('.heads button[aria-label="head 1"][aria-pressed=true]').wait_for()
    close(shown(page, '^row 2, column 4 attends'), before[0, 0, 7], errors[0])
    page.keyboard.press('m')
    numbers = 100 * shown(
        page, r'attends most to row \d, column \d: -?\d\.\d{4};'
    )  # no percentages
    close(numbers, after[0, 0, 7], errors[1])
    page.keyboard.press('m')
    close(shown(page, '^class token attends'), rows[0, 0, 0, 1:], errors[2])
    page.keyboard.press('m')
    page.locator('.status', has_text='Norms after layer 1').wait_for()
    page.keyboard.press('w')
    page.locator('.status', has_text='Norms after layer 2').wait_for()


def test_a_telephone_will_do_and_names_are_text(opened, photographs, visit, tmp_path):
    tag = '<img src=x onerror=alert({})>'
    loaded, file = opened['multi'], tmp_path / (tag.format('file') + '.png')
    classes = tuple(map(tag.format, range(5)))
    experiment = dataclasses.replace(loaded.experiment, classes=classes)
    Image.fromarray(photographs[0]).save(file)
    images = [file, photographs[1]]
    text = page_of(loaded._replace(experiment=experiment), images, labels=(EVIL,))
    size = {'width': 390, 'height': 844}
    page = visit(text, viewport=size, has_touch=True, is_mobile=True, color_scheme='dark')
    assert page.locator('.panel').count() == 1
    assert page.evaluate('document.documentElement.scrollWidth') == 390
    assert page.locator('script').count() == 2 and EVIL in page.title()
    sources = page.locator('img').evaluate_all('found => found.map((x) => x.src.slice(0, 11))')
    assert sources == ['data:image/'] * 2
    assert page.locator('.images p').text_content() == file.stem
    assert (page.locator('.answer td').first.text_content() or '') in classes
    assert (page.locator('.lens td').first.text_content() or '').startswith('<img src=x')
    point(page, 3, 0, act='tap')
    page.locator('.status', has_text=re.compile('^token of <img.* to row 4, column 1: ')).wait_for()
    page.locator('.tokens button').nth(2).tap()
    page.locator('.tokens button[aria-pressed=true]').nth(0).wait_for()
    dark = page.locator('body').evaluate('x => getComputedStyle(x).backgroundColor')
    page.locator('[name=theme]').tap()
    assert page.locator('body').evaluate('x => getComputedStyle(x).backgroundColor') != dark
    tapped = visit(page_of(opened['vit'], photographs), viewport=size, has_touch=True)
    point(tapped, 1, 2, act='tap')
    shown(tapped, '^row 2, column 3 attends')


@pytest.mark.parametrize('sides', [1, 2])
def test_the_map_and_all_choices_fit_a_laptop(opened, photographs, visit, sides):
    text = page_of(opened['vit'], [*photographs] * 4)
    page = visit(text, viewport={'width': 1280, 'height': 800})
    page.locator('[name=two]').set_checked(sides == 2)
    page.locator('.heads button').last.wait_for()
    for part in ('.picture', '.images', '.depth', '.heads'):
        for i in range(sides):
            box = page.locator(part).nth(i).bounding_box()
            assert box['y'] >= 0 and box['y'] + box['height'] <= 800, part
    picture, heads = (page.locator(part).first.bounding_box() for part in ('.picture', '.heads'))
    assert heads['x'] >= picture['x'] + picture['width'] and picture['width'] > 380
    page.locator('.images button').nth(1).click()
    page.locator('.images button:nth-child(2)[aria-pressed=true]').first.wait_for()


def test_two_models_side_by_side(opened, photographs, visit):
    other = captured(opened['features'], photographs)
    text = page_of(opened['cait'], photographs, beside=other, labels=('one', 'another'))
    page = visit(text, viewport={'width': 1300, 'height': 900})
    point(page, 3, 3)
    shown(page, '^row 4, column 4 attends', 0)
    shown(page, '^row 4, column 4 attends', 1)
    chosen = page.locator('[name=model] option:checked').all_text_contents()
    assert chosen == ['one', 'another']
    page.locator('[name=model]').nth(1).select_option('0')
    page.locator('.panel').nth(1).locator('.heads button').nth(2).wait_for()
