import pytest
import summary

from vitjax import models, runs
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, prepared
from vitjax.plan.flops import model_flops


def rows(text):
    """The cells of each row of the table by the row's first cell."""
    return {cells[0]: cells[1:] for cells in map(str.split, text.splitlines()) if cells}


def test_a_published_size(capsys):
    summary.main('cait_xxs24')
    out = capsys.readouterr().out
    found = rows(out)
    assert out.startswith('cait_xxs24: CaiT, one image of 224x224 pixels\n')
    assert found['blocks'] == ['×24', '196×192', '10,686,912', '4.93', 'G']
    assert found['class_blocks'][:2] == ['×2', '1×192']
    assert found['head'] == ['1000', '193,000', '384', 'k']
    assert found['total'] == ['11,956,264', '5.05', 'G']
    assert '2.52 GMACs' in out


@pytest.mark.parametrize('name', ['vit_tiny_patch16', 'cait_xxs24', 'patchconvnet_s60', 'vgg16'])
def test_parts_add_up(name):
    model = models.named(name)
    parts = list(summary.split(model, 224))
    whole = [p for p in parts if len(p.path) == 1]
    assert sum(p.flops for p in whole) == model_flops(model, 224)
    for stack in whole:
        inside = [p for p in parts if p.path[0] == stack.path[0] and len(p.path) == 2]
        if inside:
            assert sum(p.parameters for p in inside) == stack.parameters
            assert sum(p.flops for p in inside) == stack.flops
            assert {p.repeats for p in inside} == {stack.repeats}


def test_a_run_has_its_own_image_size(tmp_path, capsys):
    model = models.ViT(patch_size=2, width=8, depth=3, num_heads=2, num_classes=4)
    runs.write_experiment(tmp_path, Experiment(model=model, augment=Augment(size=6)))
    summary.main(str(tmp_path))
    out = capsys.readouterr().out
    assert 'one image of 6x6 pixels' in out
    assert rows(out)['embed'][0] == '10×8'
    assert rows(out)['attention'] == ['10×8', '288', '×3', '8.32', 'k', '×3']
    summary.main(str(tmp_path), image_size=8)
    assert rows(capsys.readouterr().out)['embed'][0] == '17×8'


def test_pooling_and_flattening_have_rows_where_they_happen():
    convolutional = models.named('convnet').clone(widths=(4, 8))
    parts = list(summary.split(convolutional, 20))
    assert [part.path[0] for part in parts] == [
        'conv_1', 'pool_1', 'conv_2', 'pool_2', 'flatten', 'dense', 'head'
    ]  # fmt: skip
    assert [parts[i].shape for i in (1, 3, 4)] == [(9, 9, 4), (3, 3, 8), (72,)]
    model = models.ViT(patch_size=4, width=8, depth=2, num_heads=2, num_classes=3)
    rows = {'class': ('first token', 8), 'mean': ('mean pooling', 8), 'flatten': ('flatten', 32)}
    for pool, (name, width) in rows.items():
        parts = summary.split(model.clone(pool=pool), 8)
        made = {part.path[0]: part.shape for part in parts if len(part.path) == 1}
        assert made.pop(name) == (width,) and made.keys() == {'embed', 'blocks', 'norm', 'head'}


def test_an_experiment_and_what_of_it_trains(capsys):
    summary.main('finetune_dinov2')
    found = rows(capsys.readouterr().out)
    assert found['trainable'] == found['head'][1:2]
    assert int(found['total'][0].replace(',', '')) > 21e6


def test_a_file_of_weights(tmp_path, monkeypatch):
    file, model = tmp_path / 'weights.npz', models.ViT(patch_size=2, width=8, depth=3, num_heads=2)
    file.touch()
    opened = Experiment(model=model, preprocessing=Preprocessing(size=6))
    monkeypatch.setattr(runs, 'load', lambda path: runs.Loaded(prepared(opened), {}))
    assert summary.find(str(file)) == (model, 6, '.*')


def test_what_is_none_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no model, .* is named 'cait_xs'; close: cait_xs24"):
        summary.main('cait_xs')
    with pytest.raises(ValueError, match=r'has an experiment.json: .* has none'):
        summary.main(str(tmp_path))
    with pytest.raises(ValueError, match='patch_size=16, image is 225x225 pixels'):
        summary.main('vit_tiny_patch16', image_size=225)
