import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import sklearn.metrics
from helpers import random_params
from PIL import Image

from vitjax import evaluate
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data
from vitjax.experiment import Experiment, prepared
from vitjax.models import ViT
from vitjax.runs import Loaded

MODEL = ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10)


def test_every_image_is_predicted_once_for_any_batch_size():
    rng = np.random.default_rng(0)
    data = Data(rng.integers(0, 256, (37, 8, 8, 3), np.uint8), np.arange(37) % 10, ())
    params = MODEL.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))['params']
    settings = Preprocessing(size=8, crop=1.0)
    whole = evaluate.predict(MODEL, params, data, settings, 37)
    assert whole.shape == (37, 10)
    for batch in (1, 5, 36, 1000):
        done: list[int] = []

        def note(count, total=0, /, *, now='', done=done):
            done.append(count)

        part = evaluate.predict(MODEL, params, data, settings, batch, report=note)
        np.testing.assert_allclose(part, whole, atol=1e-5)
        assert done == sorted(set(done)) and done[-1] == 37


def test_scores_match_their_definitions():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 8)), rng.integers(0, 8, 40)
    got = evaluate.scores(logits, labels)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.argsort(-logits, 1)
    assert got['loss'] == pytest.approx(-np.log(p[np.arange(40), labels]).mean())
    assert got['accuracy'] == (order[:, 0] == labels).mean()
    assert got['top5'] == (order[:, :5] == labels[:, None]).any(1).mean()


def test_equal_logits_rank_in_the_order_of_their_classes_as_in_training():
    logits = np.zeros((12, 12), np.float32)
    labels = np.arange(12)
    got = evaluate.scores(logits, labels)
    top = np.asarray(jax.lax.top_k(logits, 5)[1])
    assert got['accuracy'] == (top[:, 0] == labels).mean() == 1 / 12
    assert got['top5'] == (top == labels[:, None]).any(1).mean() == 5 / 12
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 3, (200, 12)).astype(np.float32)  # ties everywhere
    labels = rng.integers(0, 12, 200)
    top = np.asarray(jax.lax.top_k(logits, 5)[1])
    got = evaluate.scores(logits, labels)
    assert got['accuracy'] == (top[:, 0] == labels).mean()
    assert got['top5'] == (top == labels[:, None]).any(1).mean()


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(value):
    logits = np.zeros((3, 4))
    logits[1, 2] = value
    with pytest.raises(ValueError, match='logits must be finite: those of 1 of 3 images'):
        evaluate.scores(logits, np.zeros(3, int))


def test_data_with_another_number_of_classes_are_refused():
    data = Data(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2), ('cat', 'dog'))
    evaluate.require_same_classes(data, ('cat', 'dog'))
    evaluate.require_same_classes(data, ('n02', 'n03'))  # by order, which the command reports
    with pytest.raises(ValueError, match=r'they have 2 \(cat, dog, ...\), the model none'):
        evaluate.require_same_classes(data, ())


def test_class_scores_and_their_means_match_scikit_learn():
    """Random labels and predictions of few and many classes, some of them absent."""
    score: Any = sklearn.metrics.precision_recall_fscore_support
    rng = np.random.default_rng(0)
    for _ in range(200):
        count = int(rng.choice([1, 2, 3, 10, 100, 1000]))
        there = rng.permutation(count)[: rng.integers(1, count + 1)]
        labels, predicted = rng.choice(there, (2, rng.integers(1, 300)))
        if rng.random() < 0.5:  # outputs without an image
            predicted = rng.integers(0, count, len(labels))
        found = evaluate.class_scores(labels, predicted, count)
        wanted = score(labels, predicted, labels=range(count), zero_division=0)
        np.testing.assert_allclose(found[:4], wanted, rtol=1e-12)
        macro = score(labels, predicted, average='macro', zero_division=0)[:3]
        np.testing.assert_allclose([*found.means().values()], macro, rtol=1e-12)
        assert found.present.sum() == len(np.union1d(labels, predicted))


def test_class_indices_out_of_range_are_refused():
    for labels, predicted in (([0, 3], [0, 1]), ([0, 1], [0, 3]), ([-1, 0], [0, 0])):
        with pytest.raises(ValueError, match='classes must be 0 to 2'):
            evaluate.class_scores(np.array(labels), np.array(predicted), 3)
    with pytest.raises(ValueError, match='there are no images'):
        evaluate.class_scores(np.array([], int), np.array([], int), 3)


def test_a_grey_model_predicts_the_same_for_a_colour_photograph_and_its_grey_version():
    pixels = np.random.default_rng(0).integers(0, 256, (13, 19, 3), np.uint8)
    grey = np.asarray(Image.fromarray(pixels).convert('L').convert('RGB'))
    params = random_params(MODEL, np.zeros((1, 8, 8, 3), np.float32))
    plain = Preprocessing(size=8)
    found = {}
    for settings in (plain, dataclasses.replace(plain, grey=True)):
        loaded = Loaded(prepared(Experiment(MODEL, preprocessing=settings)), params)
        found[settings.grey] = evaluate.classify(loaded, [pixels, grey], top=10)
        device = [
            evaluate.predict(MODEL, params, Data(x[None], np.zeros(1, int), ()), settings, 1)[0]
            for x in (pixels, grey)
        ]
        assert (device[0] == device[1]).all() == settings.grey
    assert found[True][0] == found[True][1]
    assert found[False][0] != found[False][1]
