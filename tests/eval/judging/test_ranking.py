"""Bradley-Terry against statsmodels', and against strengths that are known."""

import numpy
import pytest

from eval.judging import ranking
from eval.judging.ranking import Game


@pytest.mark.filterwarnings("ignore:Perfect separation", "ignore:divide by zero")
def test_strengths_are_statsmodels_on_200_random_tables():
    api = pytest.importorskip("statsmodels.api", reason="the reference of Bradley-Terry, as a binomial model")
    random, compared = numpy.random.default_rng(1), 0
    for _ in range(200):
        models = random.integers(2, 7)
        wins = random.integers(0, 7, (models, models)) / 2  # halves of ties
        numpy.fill_diagonal(wins, 0)
        (found,) = ranking.strengths(wins[None])
        if numpy.isnan(found).any():
            continue
        pairs = [(i, j) for i in range(models) for j in range(i) if wins[i, j] + wins[j, i]]
        rows = numpy.zeros((len(pairs), models))
        for row, (i, j) in zip(rows, pairs, strict=True):
            row[i], row[j] = 1, -1
        won = numpy.array([[wins[i, j], wins[j, i]] for i, j in pairs])
        with numpy.errstate(invalid="ignore"):  # of a fit without a degree of freedom it wants the residuals' scale
            fit = api.GLM(won, rows[:, 1:], family=api.families.Binomial()).fit(
                tol=1e-12, maxiter=200
            )  # the first is 0
        expected = numpy.concatenate([[0.0], fit.params])
        assert found == pytest.approx(expected - expected.mean(), abs=1e-6)
        compared += 1
    assert compared > 120


def games(true: list[float], seed: int) -> list[Game]:
    random = numpy.random.default_rng(seed)
    return [
        Game(str(history), str(a), str(b), float(random.random() < 1 / (1 + numpy.exp(true[b] - true[a]))))
        for i in range(len(true)) for j in range(i) for history in range(200) for a, b in ((i, j), (j, i))
    ]  # fmt: skip


def test_five_models_of_known_strength_come_in_their_order_and_intervals_hold_it():
    true, ordered, covered = [0.6, 0.3, 0.0, -0.3, -0.6], 0, 0
    for seed in range(100):
        ranked = ranking.rank(games(true, seed))
        ordered += [one.model for one in ranked] == list("01234")
        for one in ranked:
            assert one.interval and one.games == 1600
            covered += one.interval[0] <= true[int(one.model)] <= one.interval[1]
    assert ordered >= 95 and 0.92 <= covered / 500 <= 0.98


def test_a_model_that_never_loses_has_no_finite_strength_and_ties_alone_make_equals():
    ranked = ranking.rank([Game("1", "a", "b", 1), Game("1", "b", "c", 1), Game("2", "c", "b", 1)])
    assert [one.model for one in ranked] == ["a", "c", "b"] and [one.wins for one in ranked] == [1, 1, 1]
    assert all(one.strength is None and one.interval is None for one in ranked)
    ranked = ranking.rank([Game("1", "a", "b", 0.5), Game("2", "a", "b", 0.5)])
    assert [one.strength for one in ranked] == pytest.approx([0, 0])
