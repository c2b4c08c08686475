"""in = out + rejected + merged, by occurrence: no row is lost and none counts twice, whatever its id."""

import pytest

from data_pipeline.records import Post, Reject
from data_pipeline.steps import Result, check_balance


def post(id: str, *parents: str) -> Post:
    return Post(id, "test", "", "", [], {"parents": list(parents)} if parents else {})


REJECT = Reject("a", "here", "no")


@pytest.mark.parametrize(
    ("ids", "result"),
    [
        ("ab", Result([post("a"), post("b")])),
        ("aa", Result([post("a"), post("a")])),
        ("aa", Result([post("a")], [REJECT])),
        ("aaa", Result([post("a")], [REJECT], merged=["a"])),
        ("a", Result([post("a/q1", "a"), post("a/q2", "a")], [Reject("a/q3", "here", "no")])),
        ("aa", Result([post("a/q1", "a"), post("a/q2", "a")])),
        ("a", Result([post("a", "a")])),
        ("", Result([])),
    ],
)
def test_every_row_is_accounted_for(ids, result):
    check_balance("step", ids, result)


@pytest.mark.parametrize(
    ("ids", "result", "told"),
    [
        ("ab", Result([post("a")]), "step: 1 rows were lost, first b"),
        ("aab", Result([post("a")]), "step: 2 rows were lost, first a, b"),
        ("aa", Result([post("a", "a")]), "step: 1 rows were lost, first a"),
        ("aa", Result([post("a/q1", "a")]), "step: 1 rows were lost, first a"),
        ("a", Result([post("a")], [REJECT]), "step: 1 rows came out more often than in, first a"),
        ("aa", Result([post("a")], [REJECT], merged=["a"]), "step: 1 rows came out more often than in, first a"),
    ],
)
def test_a_row_that_is_lost_or_counts_twice_is_an_error(ids, result, told):
    with pytest.raises(AssertionError, match=f"^{told}$"):
        check_balance("step", ids, result)
