"""Files that are damaged: what is read is right, or a line or two say what is wrong."""

import functools
import io

import numpy as np
import pytest
from faults.conftest import answer, same
from faults.damages import KINDS, Tally, damage, every, some
from helpers import TINY
from PIL import Image
from report_parsed import Parsed
from safetensors.numpy import save_file
from tiny_vit import tiny

from vitjax import loop, pretrained, report, runs
from vitjax.data import images, preprocess

FEW = {'report': 3, 'resume': 5, 'finish': 3, 'load': 8, 'capture': 12}


def share(folder, what, full):
    return every(folder, 3 if what == 'capture' else 1) if full else some(folder, FEW[what])


full = pytest.mark.parametrize('full', [False, pytest.param(True, marks=pytest.mark.faults)])


@pytest.mark.slow
@full
def test_a_damaged_run_resumes_to_the_same_bits_or_says_why_not(
    trained, capfd, full, record_property
):
    tally = Tally()
    for name, kind, seed in share(trained.killed, 'resume', full):
        run = trained.copied(trained.killed)
        if damage(run / name, kind, seed):
            tally.judge(
                capfd,
                lambda run=run: loop.train(TINY, run, quiet=True) and answer(run),
                lambda value: same(value, trained.answer),
            )
    record_property('faults', tally.row('damaged files of a killed run, resumed'))


@pytest.mark.slow
@full
def test_a_finished_run_that_is_damaged_says_the_same_or_why_not(
    trained, capfd, full, record_property
):
    tally = Tally()
    for name, kind, seed in share(trained.finished, 'finish', full):
        run = trained.copied(trained.finished)
        if damage(run / name, kind, seed):
            wanted = trained.answer[0][-1]
            tally.judge(
                capfd,
                lambda run=run: loop.train(TINY, run, quiet=True),
                lambda value, wanted=wanted: {**value, **wanted} == value,
            )
    record_property('faults', tally.row('damaged files of a finished run, trained again'))


@pytest.mark.slow
@full
def test_parameters_of_a_damaged_run_are_the_same_or_it_says_why_not(
    trained, capfd, full, record_property
):
    tally = Tally()
    _, best, last = trained.answer
    for name, kind, seed in share(trained.finished, 'load', full):
        run = trained.copied(trained.finished)
        if not damage(run / name, kind, seed):
            continue
        for which, wanted in (('best', best), ('latest', last)):
            allowed = [wanted, best] if which == 'latest' else [wanted]

            def right(value, allowed=allowed):
                return any(same(value.params, params) for params in allowed)

            before = tally.right
            load = functools.partial(runs.load, run, which=which)
            tally.judge(capfd, load, right)
            if tally.right > before:  # nothing was said: nothing may differ
                assert same(load().params, wanted)
    record_property('faults', tally.row('damaged files of a finished run, read'))


@pytest.mark.slow
@full
def test_a_damaged_run_is_reported_as_far_as_it_can_be(trained, capfd, full, record_property):
    tally = Tally()
    for name, kind, seed in share(trained.finished, 'report', full):
        run = trained.copied(trained.finished)
        if damage(run / name, kind, seed):
            tally.judge(
                capfd,
                lambda run=run: report.write([run], attention=False),
                lambda path: 'Learning curves' in Parsed(path.read_text()).said,
            )
    record_property('faults', tally.row('damaged files of a finished run, reported'))


@full
def test_a_damaged_capture_is_resumed_and_read_as_it_was_or_says_why_not(
    captured, capfd, full, record_property
):
    for folder, what in ((captured.stopped, 'resumed'), (captured.whole, 'captured again')):
        tally = Tally()
        for name, kind, seed in share(folder, 'capture', full):
            out = captured.copied(folder)
            if damage(out / name, kind, seed):
                tally.judge(
                    capfd,
                    lambda out=out: captured.write(out) or captured.read(out),
                    lambda value: same(value, captured.answer),
                )
        assert tally.right + tally.said  # most are mended
        record_property('faults', tally.row(f'damaged files of a capture, {what}'))
    tally = Tally()
    for name, kind, seed in share(captured.whole, 'capture', full):
        out = captured.copied(captured.whole)
        if damage(out / name, kind, seed):
            tally.judge(
                capfd,
                lambda out=out: captured.read(out),
                lambda value: same(value, captured.answer),
            )
    record_property('faults', tally.row('damaged files of a capture, read'))


@full
def test_damaged_weights_are_the_same_or_refused(tmp_path, capfd, full, record_property):
    weights = tiny()
    np.savez(tmp_path / 'a.npz', allow_pickle=False, **weights)
    np.savez_compressed(tmp_path / 'packed.npz', allow_pickle=False, **weights)
    save_file(weights, tmp_path / 'a.safetensors')
    for name in ('a.npz', 'packed.npz', 'a.safetensors'):
        tally, path = Tally(), tmp_path / name
        whole = path.read_bytes()
        for kind in KINDS:
            for seed in range(100 if full else 4):
                path.write_bytes(whole)
                if damage(path, kind, seed):

                    def right(value, name=name):
                        # A safetensors file has no digest: other bits are other numbers.
                        return name == 'a.safetensors' or same(value, weights)

                    tally.judge(capfd, lambda path=path: pretrained.read(path), right)
        record_property('faults', tally.row(f'damaged weights, {name}'))


@pytest.mark.filterwarnings('ignore:Image was not the expected size')
@full
def test_damaged_images_are_pixels_or_a_line_with_their_name(
    tmp_path, capfd, full, record_property
):
    rows, columns = np.mgrid[:48, :64].astype(np.uint8)
    picture = Image.fromarray(np.stack([rows, columns, rows * columns], -1))
    tally = Tally()
    for kind in ('PNG', 'JPEG', 'GIF', 'WEBP', 'AVIF', 'BMP', 'ICO'):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        path = tmp_path / f'a.{kind.lower()}'
        for change in KINDS:
            for seed in range(60 if full else 2):
                path.write_bytes(buffer.getvalue())
                if damage(path, change, seed):
                    prepared = preprocess.Preprocessing(16)
                    error = tally.judge(
                        capfd,
                        lambda path=path, p=prepared: preprocess.read_square(path, p),
                        lambda value: value.shape == (16, 16, 3),
                    )
                    assert error is None or str(path) in error
    record_property('faults', tally.row('damaged images (pixels may differ)'))


def test_a_wide_header_is_a_line(tmp_path):
    buffer = io.BytesIO()
    Image.new('RGB', (2, 2)).save(buffer, 'BMP')
    data = bytearray(buffer.getvalue())
    data[18:22] = (170_000_000).to_bytes(4, 'little')
    with pytest.raises(ValueError, match=r'^wide\.bmp cannot be read: [^\n]*$'):
        images.read(images.InMemory(bytes(data), 'wide.bmp'))
