"""Kappa and alpha against other people's code, on random tables; what there is no number of; MindEval's clinicians."""

import numpy
import pytest

from data_pipeline.tables.rows import Layout, table_rows
from eval.judging import agreement, comparison, ratings
from tests.conftest import real_data


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(agreement, "RESAMPLES", 20)


def test_kappa_is_statsmodels_on_200_random_tables(few):
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="the reference of kappa")
    random, compared = numpy.random.default_rng(1), 0
    for _ in range(200):
        n, top = random.integers(2, 60), random.integers(1, 6)
        a, b = random.integers(0, top + 1, n), random.integers(0, top + 1, n)
        value, _ = agreement.quadratic_kappa(a.tolist(), b.tolist())
        if value is not None:
            table = numpy.zeros((top + 1, top + 1))
            numpy.add.at(table, (a, b), 1)
            expected = inter_rater.cohens_kappa(table, wt="quadratic", return_results=False)
            assert value == pytest.approx(expected, abs=1e-6)
            compared += 1
    assert compared > 190


def test_alpha_is_nltks_on_200_random_tables_with_ratings_missing(few):
    from nltk.metrics.agreement import AnnotationTask

    random, compared = numpy.random.default_rng(2), 0
    for _ in range(200):
        units, raters = random.integers(2, 30), random.integers(2, 6)
        table = random.integers(0, 6, (units, raters)) / 2 + 100  # far from 0
        table[random.random((units, raters)) < random.random() / 2] = numpy.nan
        value, _ = agreement.alpha(table)
        if value is not None:
            said = [
                (r, u, float(table[u, r])) for u in range(units) for r in range(raters) if table[u, r] == table[u, r]
            ]
            task = AnnotationTask([(str(r), str(u), v) for r, u, v in said], distance=lambda a, b: (a - b) ** 2)
            assert value == pytest.approx(task.alpha(), abs=1e-6)
            compared += 1
    assert compared > 180


def test_there_is_no_agreement_where_all_values_are_one_or_nobody_rated_the_same():
    assert agreement.quadratic_kappa([1, 1, 1], [1, 1, 1]) == (None, None)
    assert agreement.quadratic_kappa([], []) == (None, None)
    assert agreement.alpha(numpy.array([[1.0, 1.0], [1.0, 1.0]])) == (None, None)
    assert agreement.alpha(numpy.array([[1.0, numpy.nan], [numpy.nan, 2.0]])) == (None, None)
    assert agreement.stability([[1.0], [2.0]]) is None and agreement.stability([[1.0, 1.0], [1.0, 2.0], [3.0]]) == 0.5


def test_the_interval_of_alpha_holds_the_true_value_and_narrows_with_the_units():
    def rated(units: int, seed: int) -> numpy.ndarray:
        random = numpy.random.default_rng(seed)
        return random.normal(size=(units, 1)) + random.normal(size=(units, 3))  # of all: 0.5

    covered, widths = 0, []
    for seed in range(60):
        _, interval = agreement.alpha(rated(80, seed))
        assert interval
        covered += interval[0] <= 0.5 <= interval[1]
        widths.append(interval[1] - interval[0])
    assert covered >= 52
    _, wide = agreement.alpha(rated(20, 1))
    assert wide and wide[1] - wide[0] > max(widths)


def test_a_judge_that_is_lenient_to_one_system_is_found_out_within_a_tenth():
    random = numpy.random.default_rng(3)
    rows = []
    for n in range(600):
        system = ("plain", "favoured", "slighted")[n % 3]
        quality = random.integers(1, 6)
        for person in ("li", "wang"):
            value = int(numpy.clip(quality + random.integers(-1, 2), 0, 6))
            rows.append({"item": n, "system": system, "rater": person, "dimension": "d", "value": value})
        judged = quality + {"plain": 0.0, "favoured": 0.6, "slighted": -0.2}[system] + random.normal(0, 0.5)
        rows.append({"item": n, "system": system, "rater": "judge", "kind": "judge", "dimension": "d", "value": judged})
    table = comparison.biases(ratings.of_rows((f"row {n}", row) for n, row in enumerate(rows)))
    told = {row[1]: float(row[4].split()[0]) for row in table.rows}
    assert told["favoured"] - told["plain"] == pytest.approx(0.6, abs=0.1)
    assert told["slighted"] - told["plain"] == pytest.approx(-0.2, abs=0.1)
    assert told["plain"] == pytest.approx(0.0, abs=0.1)


def test_mindevals_clinicians_hardly_agree_but_on_the_order_of_models():
    file = real_data("mindeval/human_annotations.jsonl")
    rows = [(row.where, row.values) for row in table_rows(file, Layout())]
    read = ratings.of_rows((where, values) for where, values in rows if isinstance(values, dict))
    tables = ratings.tables(read)
    units, raters, overall = tables[ratings.OVERALL]
    assert (len(units), len(raters), len(tables)) == (60, 4, 11)
    alphas = {name: agreement.alpha(table)[0] or 0.0 for name, (_, _, table) in tables.items()}
    assert alphas.pop(ratings.OVERALL) == pytest.approx(0.02, abs=0.005)
    assert min(alphas.values()) == pytest.approx(-0.22, abs=0.005)
    assert max(alphas.values()) == pytest.approx(0.07, abs=0.005)
    assert sorted(numpy.nanmean(overall, axis=0).round(2)) == [3.04, 3.49, 4.10, 4.16]
    assert agreement.alpha(agreement.levelled(overall))[0] == pytest.approx(0.23, abs=0.005)
    pairs = [numpy.corrcoef(overall[:, i], overall[:, j])[0, 1] for i in range(4) for j in range(i)]
    assert min(pairs) == pytest.approx(0.01, abs=0.01) and max(pairs) == pytest.approx(0.55, abs=0.01)
    of_model = {m: numpy.nanmean(overall[[u[1] == m for u in units]], axis=0) for m in {u[1] for u in units}}
    order = sorted(of_model, key=lambda m: -of_model[m].mean())
    for better, worse in zip(order, order[1:], strict=False):
        assert (of_model[better] >= of_model[worse] - 0.01).all()
    assert ["gpt-5" in order[0], "Qwen3" in order[1], "DeepSeek" in order[2]] == [True] * 3
