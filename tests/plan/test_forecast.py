import dataclasses
import types

import jax
import pytest

from vitjax.data.augment import Augment
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.models import ViT
from vitjax.models.base import parameter_shapes
from vitjax.plan import forecast, machines, target

EXPERIMENT = Experiment(
    model=ViT(patch_size=4, width=16, depth=2, num_heads=2, num_classes=10),
    data=Source('digits'),
    augment=Augment(size=8),
    batch_size=32,
    epochs=3,
)
IMAGES = forecast.Images((1000, 8, 8, 3), True)
CHIP = machines.Chip(memory=1e9, bandwidth=1e11, flops={'float32': 1e12}, link=1e9)


@pytest.fixture
def machine(monkeypatch):
    """Two devices of this machine, described as accelerators of 1 GB."""
    found = machines.Machine('two', tuple(jax.devices()[:2]), CHIP)
    monkeypatch.setattr(machines, 'machine', lambda name: found)
    return found


@pytest.mark.slow
def test_a_forecast_compiles_the_program_that_would_run(machine):
    jax.clear_caches()  # what `nn.remat` traced for other tests is cached without modules' names
    each = forecast.forecast(EXPERIMENT, 'two', IMAGES)
    assert (each.devices, each.parallel, each.steps) == (2, 'pmap', 3 * 31)
    assert each.fits and each.change == '' and each.report is not None
    assert each.needed == each.report.memory.peak < each.available == 1e9
    # Parameters and moments, the images, and the rows of 256 steps; all on either device.
    params = sum(leaf.size for leaf in jax.tree.leaves(parameter_shapes(EXPERIMENT.model, 8)))
    known = 3 * 4 * params + 1000 * 8 * 8 * 3 + 4 * 1000 + 4 * 256 * 16
    assert known <= each.report.memory.arguments < known + 4096
    assert {c.kind for c in each.report.collectives} == {'all-reduce'}
    assert each.step_seconds == each.report.seconds + each.report.communication > 0
    # The first layer has no gradient at the images; the program recomputes some.
    operations = min(3 * each.model_flops * 32, each.report.flops)
    assert 0.9 < each.report.flops / (3 * each.model_flops * 32) < 1.5
    assert each.utilisation == operations / (each.step_seconds * 2 * 1e12)
    assert each.hours == pytest.approx(93 * each.step_seconds / 3600)
    assert {'blocks/mlp/hidden', 'augment', 'optimizer', 'examples'} <= set(each.report.modules)
    assert 990 < each.largest <= 1000 and each.largest % 4 == 0  # it is all there is


@pytest.mark.slow
def test_one_device_trains_alone(machine):
    experiment = dataclasses.replace(EXPERIMENT, parallel='none')
    each = forecast.forecast(experiment, 'two', IMAGES)
    assert each.devices == 1 and each.report is not None and each.report.devices == 1
    assert each.report.collectives == () and each.report.communication == 0


@pytest.mark.parametrize('fixed', [0.0, 3e8])
@pytest.mark.parametrize('image', [1e5, 3.3e6, 4e7])
@pytest.mark.parametrize('says', [True, False])
def test_the_largest_batch_fits_and_a_tenth_more_does_not(machine, monkeypatch, fixed, image, says):
    """A compiler may refuse too large a program with or without its size."""
    asked = []

    def compile(fn, *args, **options):
        batch = args[2].shape[-1]  # rows [K, images]
        asked.append(batch)
        peak = fixed + image * batch
        if peak > 1e9:
            size = f' ({peak / 2**30:.2f}G) exceeds available HBM' if says else ''
            raise jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: the program{size}')
        memory = target.Memory(0, 0, 0, int(peak))
        return types.SimpleNamespace(memory=memory, flops=1, seconds=1.0, communication=0.0)

    monkeypatch.setattr(target, 'compile', compile)
    images = forecast.Images((100_000, 8, 8, 3), True)
    each = forecast.forecast(EXPERIMENT, 'two', images)
    most = int((1e9 - fixed) / image)
    assert each.largest in asked and len(asked) <= 12 and len(set(asked)) == len(asked)
    assert each.largest <= most < each.largest * 1.12 + 4
    assert each.fits == (most >= 32)
    if not each.fits:
        assert each.change.startswith('try --model.remat, or --parallel fsdp, or --batch-size ')


def test_a_step_that_does_not_fit_names_settings_to_change(machine, monkeypatch):
    def compile(fn, *args, **options):
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: HLO temporaries (83.99G) exceeds')

    monkeypatch.setattr(target, 'compile', compile)
    remat = dataclasses.replace(
        EXPERIMENT, model=EXPERIMENT.model.clone(remat=True), parallel='fsdp'
    )
    each = forecast.forecast(remat, 'two', IMAGES)
    assert not each.fits and each.largest == 0 and each.needed == 83.99 * 2**30
    assert each.change == 'try more or larger devices, or a smaller model'
    assert str(each.hours) == str(each.utilisation) == 'nan'


def test_half_the_batch_needs_twice_the_accumulation(machine, monkeypatch):
    def compile(fn, *args, **options):
        if args[2].shape[-1] > 20:
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED')
        return types.SimpleNamespace(memory=target.Memory(0, 0, 0, 10))

    monkeypatch.setattr(target, 'compile', compile)
    each = forecast.forecast(EXPERIMENT, 'two', IMAGES)
    assert each.largest == 16 or each.largest == 20
    assert each.change.endswith('--batch-size 16 --optim.accumulate 2')


def test_other_failures_are_not_mistaken_for_a_lack_of_memory(machine, monkeypatch):
    def compile(fn, *args, **options):
        raise jax.errors.JaxRuntimeError('INTERNAL: no such instruction')

    monkeypatch.setattr(target, 'compile', compile)
    with pytest.raises(jax.errors.JaxRuntimeError, match='no such'):
        forecast.forecast(EXPERIMENT, 'two', IMAGES)


def test_present_and_absent_images():
    assert forecast.training_images(EXPERIMENT) == ((1294, 8, 8, 3), True, False)
    away = dataclasses.replace(EXPERIMENT, data=Source('tfds:imagenet2012'))
    found = forecast.training_images(away, 1_281_167)
    assert found == ((1_281_167, 8, 8, 3), True, False)
    large = dataclasses.replace(away, augment=Augment(size=224))
    found = forecast.training_images(large, 1_281_167)
    assert found == ((1_281_167, 224, 224, 3), False, True)


def test_devices_do_not_crop_streamed_images(machine, monkeypatch):
    seen = []

    def compile(fn, state, data, *rest, **options):
        seen.append(data[0].shape)
        raise ZeroDivisionError

    monkeypatch.setattr(target, 'compile', compile)
    cropped = dataclasses.replace(EXPERIMENT, augment=Augment(size=8, area=0.1))
    for streams in (False, True):
        with pytest.raises(ZeroDivisionError):
            forecast.forecast(cropped, 'two', forecast.Images((1000, 9, 9, 3), False, streams))
    assert [shape[2:] for shape in seen] == [(9, 9, 3), (8, 8, 3)]


@pytest.mark.slow
def test_data_decoded_ahead_are_one_chunk_on_the_devices(machine):
    away = forecast.Images((1000, 8, 8, 3), False)
    each = forecast.forecast(EXPERIMENT, 'two', away)
    assert each.report is not None
    chunk = 256 * 32 * (8 * 8 * 3 + 4)
    assert chunk / 2 < each.report.memory.arguments < chunk  # each device has its part
