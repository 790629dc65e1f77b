"""The data that come with the package are the published ones, split the same way always."""

import dataclasses

import numpy as np
import pytest

from aimc_sim.errors import UsageError
from ssm.tasks import load_task, task_names


@pytest.fixture(scope="module")
def digits():
    return load_task("digits")


def test_digits_are_64_step_sequences_between_zero_and_one(digits):
    for x in (digits.x_train, digits.x_test):
        assert x.shape[1:] == (64, 1)
        assert x.dtype == np.float32
        assert x.min() == 0.0 and x.max() == 1.0
    assert digits.y_train.dtype == digits.y_test.dtype == np.int64
    assert digits.n_classes == 10


def test_digits_are_the_published_1797_with_their_class_counts(digits):
    labels = np.concatenate([digits.y_train, digits.y_test])
    published = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(labels).tolist() == published


def test_digits_equal_the_copy_of_scikit_learn(digits):
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    ours = np.concatenate([digits.x_train, digits.x_test])[:, :, 0] * 16
    theirs = sklearn_datasets.load_digits().data
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))


def test_test_set_holds_a_fifth_of_every_class(digits):
    counts = np.bincount(digits.y_test)
    whole = counts + np.bincount(digits.y_train)
    np.testing.assert_array_equal(counts, np.round(whole / 5))


def test_no_image_is_both_in_training_and_in_test(digits):
    train = {row.tobytes() for row in digits.x_train}
    assert not any(row.tobytes() in train for row in digits.x_test)


def test_first_test_labels_do_not_change(digits):
    assert digits.y_test[:12].tolist() == [5, 9, 2, 4, 6, 7, 9, 3, 4, 6, 8, 5]


def test_source_names_licence_and_doi(digits):
    assert "CC BY 4.0" in digits.source and "10.24432/C50P49" in digits.source


def test_task_is_frozen(digits):
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.n_classes = 3


def test_unknown_task_suggests_the_nearest():
    text = r"Task 'digit'.*No task.*Did you mean 'digits'\?"
    with pytest.raises(UsageError, match=text) as error:
        load_task("digit")
    assert error.value.exit_code == 2


def test_unknown_task_without_a_near_name_lists_all():
    with pytest.raises(UsageError, match=r"Choose one of the known tasks: .*digits"):
        load_task("weather")
    assert "digits" in task_names()


def test_sequences_for_calibration_are_the_first_or_spread_where_those_lack_a_class(digits):
    np.testing.assert_array_equal(digits.calibration(64), digits.x_train[:64])
    order = np.argsort(digits.y_train, kind="stable")
    ordered = dataclasses.replace(
        digits, x_train=digits.x_train[order], y_train=digits.y_train[order]
    )
    found = {row.tobytes() for row in ordered.calibration(64)}
    assert len(found) == 64
    labels = [y for x, y in zip(digits.x_train, digits.y_train, strict=True)
              if x.tobytes() in found]
    assert set(labels) == set(range(10))
