import numpy as np
import pytest

from napari_mosaik.core import InputError, Table
from napari_mosaik.spatial import choose_proxies

GROUPS = {"vascular": ["area", "diameter"], "nuclear": ["entropy", "size"], "caix": ["score"]}


def table(**coefficients):
    names = list(coefficients)
    return Table(
        {
            "parameter": np.array(names),
            "pearson": np.array([coefficients[name][0] for name in names], float),
            "spearman": np.array([coefficients[name][1] for name in names], float),
        }
    )


CASES = {
    "A": table(
        area=(0.5, 0.1), diameter=(-0.4, -0.4), entropy=(0.2, 0.2), size=(0.1, 0.1), score=(0, 0)
    ),
    "B": table(
        area=(0.3, 0.3), diameter=(0.4, 0.4), entropy=(0.2, 0.2), size=(0.1, 0.1), score=(0, 0)
    ),
    "C": table(area=(0.9, 0.9), diameter=(0, 0), entropy=(0, 0), size=(0.9, 0.9), score=(1, 1)),
}


def test_largest_mean_absolute_coefficient_over_training_cases():
    choice = choose_proxies(CASES, GROUPS, test_cases=["C"])
    assert choice.proxies == {"vascular": "diameter", "nuclear": "entropy", "caix": "score"}
    assert choice.cases == ("A", "B")
    assert not choice.leaking
    ranking = choice.ranking
    assert ranking["parameter"].tolist() == ["diameter", "area", "entropy", "size", "score"]
    assert ranking["score"].tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
    assert ranking["mean_pearson"][0] == pytest.approx(0.0)
    assert ranking["pearson:B"][0] == 0.4
    assert "diameter" in choice.warnings[0]


def test_training_choice_is_the_same_whatever_the_test_case_says():
    other = {**CASES, "C": table(entropy=(-1, -1))}
    ours = choose_proxies(CASES, GROUPS, test_cases=["C"])
    theirs = choose_proxies(other, GROUPS, test_cases=["C"])
    assert ours.proxies == theirs.proxies
    np.testing.assert_array_equal(ours.ranking["score"], theirs.ranking["score"])


def test_paper_rule_uses_the_test_case_and_warns():
    choice = choose_proxies(CASES, GROUPS, "paper", test_cases=["C"])
    assert choice.proxies["vascular"] == "area"
    assert choice.leaking
    assert "underestimated" in choice.warnings[0]


def test_parameter_missing_in_a_case_goes_last():
    cases = {
        **CASES,
        "B": table(area=(np.nan, np.nan), diameter=(0, 0), entropy=(0.1, 0.1), score=(0, 0)),
    }
    choice = choose_proxies(cases, GROUPS)
    assert choice.proxies["vascular"] == "diameter"
    assert choice.proxies["nuclear"] == "entropy"
    place = choice.ranking["parameter"].tolist().index("size")
    assert choice.ranking["n_cases"][place] == 2


def test_equal_scores_keep_the_order_of_the_group():
    cases = {"A": table(area=(0.2, 0.2), diameter=(-0.2, 0.2), entropy=(0, 0), score=(0, 0))}
    assert choose_proxies(cases, GROUPS).proxies["vascular"] == "area"


def test_no_training_case_or_no_coefficient_is_refused():
    with pytest.raises(InputError, match="no training case"):
        choose_proxies(CASES, GROUPS, test_cases=["A", "B", "C"])
    with pytest.raises(InputError, match="'caix'"):
        choose_proxies({"A": table(area=(1, 1), entropy=(1, 1))}, GROUPS)
