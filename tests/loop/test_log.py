import dataclasses
import json
import pathlib

import numpy as np
import pytest

from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source
from vitjax.experiment import Experiment, resolved
from vitjax.loop import log
from vitjax.loop.log import Position
from vitjax.training.layout import layout
from vitjax.training.trainer import Trainer

NOTHING = Data(np.zeros((40, 1, 1, 3), np.uint8), np.zeros(40, np.int32), ())
ASKED = Experiment(data=Source(), batch_size=4, epochs=10, evaluate_every=3)
ALONE = layout('none', batch_size=4)
TRAINER = Trainer(resolved(ASKED, Preprocessing()), NOTHING, ALONE, (0,))


def metrics(*losses):
    """Of two seeds, the second's loss twice the first's."""
    loss = np.array(losses, np.float32)
    return {'loss': np.stack([loss, 2 * loss], 1)}


def test_means_are_those_of_the_steps_since_the_last_line():
    at = Position(5, 1.0).after(metrics(1, 2), 0.5).after(metrics(6), 0.25)
    assert (at.step, at.seconds, at.took) == (8, 1.75, 0.75)
    assert at.means(0) == {'loss': 3.0} and at.means(1) == {'loss': 6.0}
    assert at.rate() == 8  # six steps of seeds in 0.75 s


def test_a_checkpoint_keeps_what_the_next_line_averages_over():
    at = Position(40, 1.0).after(metrics(0.1, 0.7, 1 / 3), 0.3)
    kept = [json.loads(json.dumps(at.to_json(TRAINER, seed))) for seed in (0, 1)]
    assert kept[0]['epoch'] == 4 and kept[0]['index'] == 3
    logged = Position(48, 1.0).after(metrics(0.1, 0.7), 0.3)  # whose line is written
    assert logged.step == 50 and 'since' not in logged.to_json(TRAINER, 0)
    back = log.from_json(43, kept)
    assert (back.step, back.seconds, back.took) == (43, at.seconds, at.took)
    np.testing.assert_array_equal(back.since[0]['loss'], at.since[0]['loss'])
    assert back.since[0]['loss'].dtype == np.float32
    one, other = (p.after(metrics(5), 0.1).means(1) for p in (at, back))
    assert one == other


def test_positions_of_earlier_versions_have_no_such_steps():
    assert log.from_json(7, [{'epoch': 0, 'index': 7, 'seconds': 2.0}]) == Position(7, 2.0)


@pytest.mark.parametrize(
    ('step', 'until', 'logs', 'evaluates'),
    [
        (0, 30, True, True),
        (29, 30, False, False),
        (30, 50, True, True),
        (50, 60, True, False),
        (99, 100, False, False),
        (100, 100, True, True),
    ],
)
def test_a_trainer_says_what_is_due(step, until, logs, evaluates):
    assert TRAINER.until(step) == until
    assert TRAINER.logs(step) is logs and TRAINER.evaluates(step) is evaluates


def test_top_5_is_said_of_more_classes_than_that():
    record = {'accuracy': 0.5, 'top5': 0.9, 'loss': 1.0, 'seconds': 2.0}
    assert log.result(record, 6, pathlib.Path('run')) == (
        'test accuracy 50.00%, top-5 90.00%, loss 1.0000, after 2.0 s of training; '
        'the run is in run'
    )
    assert 'top-5' not in log.result(record, 5, pathlib.Path('run'))


@pytest.mark.parametrize(
    ('patience', 'accuracies', 'stops'),
    [(0, (0.5, 0.4, 0.3), False), (2, (0.5, 0.4), False), (2, (0.5, 0.4, 0.5), True),
     (2, (0.5, 0.4, 0.6), False), (2, (), False)],
)  # fmt: skip
def test_a_run_ends_when_patience_does(patience, accuracies, stops):
    patient = dataclasses.replace(TRAINER.experiment, patience=patience)
    trainer = dataclasses.replace(TRAINER, experiment=patient)
    records = [
        {'split': split, 'epoch': i + 1, 'accuracy': accuracy if split == 'validation' else 1 + i}
        for i, accuracy in enumerate(accuracies) for split in ('train', 'validation')
    ]  # fmt: skip
    said = log.stopped_early(trainer, records)
    assert (said is not None) == stops
    if said:
        assert 'after epoch 3 of 10' in said and 'above 50.00%, of epoch 1, in 2 epochs' in said
