"""Tables of ratings as people bring them; what is refused, with file and row; what is missing is no number."""

import numpy
import pytest

from data_pipeline.errors import BadInput
from eval.judging import comparison, ratings
from eval.judging.ratings import OVERALL


def read(*rows: dict) -> list[ratings.Rating]:
    return ratings.of_rows((f"scores.csv row {n}", row) for n, row in enumerate(rows, 2))


def test_a_sheet_with_a_column_for_each_dimension_is_the_long_one():
    wide = read({"item": "1", "system": "a", "rater": "li", "empathy": "2", "safety": "", "comment": "好"})
    long = read(
        {"item": "1", "system": "a", "rater": "li", "dimension": "empathy", "value": 2},
        {"item": "1", "system": "a", "rater": "li", "dimension": "safety", "value": None},
    )
    assert [(r.dimension, r.value, r.unit) for r in wide] == [(r.dimension, r.value, r.unit) for r in long]


def test_an_argilla_export_loses_what_does_not_apply_and_what_is_text():
    row = {"id": "s1", "model": "m", "c.responses": [3, 0], "c.responses.users": ["u", "v"],
           "why.responses": ["gut", "schlecht"], "why.responses.users": ["u", "v"],
           "none.responses": None, "none.responses.users": None}  # fmt: skip
    assert [(r.item, r.system, r.dimension, r.rater, r.value) for r in read(row)] == [("s1", "m", "c", "u", 3.0)]
    with pytest.raises(BadInput, match=r"scores.csv row 2: c.responses and c.responses.users are not lists of one"):
        read({"id": "s1", "c.responses": [3], "c.responses.users": ["u", "v"]})


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"item": "1", "rater": "", "d": 1}, "row 2: rater is empty or not a column"),
        ({"rater": "li", "d": 1}, "row 2: item is empty or not a column"),
        ({"item": "1", "rater": "li", "d": "sehr gut"}, "row 2: d='sehr gut' is not a number"),
        ({"item": "1", "rater": "li", "d": "inf"}, "row 2: d='inf' is not a number"),
        ({"item": "1", "rater": "li", "value": 1}, "row 2: dimension is empty or not a column"),
        ({"item": "1", "rater": "li", "comment": "x"}, "row 2: no rating"),
    ],
)
def test_what_is_no_rating_is_refused_with_its_row(row, told):
    with pytest.raises(BadInput, match=told):
        read(row)


def test_a_rating_that_stands_twice_is_refused_unless_it_is_a_repeat():
    row = {"item": "1", "rater": "li", "dimension": "d", "value": 1}
    with pytest.raises(BadInput, match=r"row 3: li has rated 1 on d already \(scores.csv row 2\)"):
        read(row, row)
    assert len(read({**row, "repeat": 0}, {**row, "repeat": 1})) == 2


def test_nothing_averages_over_a_missing_dimension():
    rows = [
        {"item": "1", "rater": "li", "empathy": 2, "safety": 1},
        {"item": "2", "rater": "li", "empathy": 4, "safety": ""},
        {"item": "1", "rater": "wang", "empathy": 1, "safety": 1},
    ]
    _, _, table = ratings.tables(read(*rows))[OVERALL]
    numpy.testing.assert_array_equal(table, [[1.5, 1.0], [numpy.nan, numpy.nan]])


def test_one_rater_and_other_ids_are_told_and_a_missing_rater_is_a_note():
    def judged(item: str) -> dict:
        return {"item": item, "system": "m", "rater": "j", "kind": "judge", "dimension": "d", "value": 1}

    person = {"item": "1", "system": "m", "rater": "li", "dimension": "d", "value": 1}
    with pytest.raises(BadInput, match="li alone has rated; agreement needs two raters"):
        comparison.check(read(person))
    with pytest.raises(BadInput, match=r"nothing in common: scores.csv row 2 has item '1', system 'm', sample '0'"):
        comparison.check(read(person, judged("x1")))
    notes = comparison.check(read(person, judged("1"), {**person, "item": "9", "rater": "wang"}))
    assert "li and wang have rated nothing in common" in notes
    with pytest.raises(BadInput, match="no rating in these files"):
        comparison.check([])
