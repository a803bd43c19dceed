"""Statistics over seeds, compared with scipy and with numbers by hand."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from gen.evaluation.statistics import holm, over_seeds, p_paired


def test_an_interval_is_that_of_students_t():
    values = [0.60, 0.55, 0.71]
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    found = over_seeds(values)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert str(found) == f"0.620 ± {(high - low) / 2:.3f}"


def test_a_single_seed_has_no_interval():
    assert str(over_seeds([0.5])) == "0.500"


def test_p_is_that_of_the_paired_test():
    a, b = np.array([0.60, 0.55, 0.71]), np.array([0.58, 0.50, 0.66])
    assert p_paired(a - b) == pytest.approx(ttest_rel(a, b).pvalue)
    assert np.isnan(p_paired([0.1])) and np.isnan(p_paired([0, 0, 0]))
    assert p_paired([0.1, 0.1]) == 0


def test_holm_by_hand():
    nan = float("nan")
    found = holm([0.01, 0.04, nan, 0.03, 0.5])
    assert found[:2] + found[3:] == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert np.isnan(found[2])
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == []
