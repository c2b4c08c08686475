"""Models in order of strength, from who won which pair: Bradley-Terry, with bootstrap intervals.

A strength is a log-odds: A beats B with probability 1 / (1 + exp(B - A)); the strengths of all models add up to 0. A
tie is half a win for each (ours, in place of a factor for ties). Histories are resampled with all their pairs: what is
said about one history is alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval import intervals
from eval.intervals import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES, SEED = 1000, 42  # ours


@dataclass(frozen=True)
class Ranked:
    """One model among others."""

    model: str
    strength: float | None  # None: without a loss or without a win against the others there is no finite one
    interval: Interval | None  # 95 %
    wins: float  # a tie counts a half
    games: int

    @property
    def share(self) -> float:
        return self.wins / self.games


@dataclass(frozen=True, slots=True)
class Game:
    """What came of one comparison: how much of it the first one won: 1, 0, or 0.5 for a tie."""

    history: str
    first: str
    second: str
    won: float


def rank(games: Sequence[Game]) -> list[Ranked]:
    """Returns the models, the strongest first; those without a finite strength by their share of wins."""
    import numpy

    models = list(dict.fromkeys(name for game in games for name in (game.first, game.second)))
    histories = {history: n for n, history in enumerate(dict.fromkeys(game.history for game in games))}
    wins = numpy.zeros((len(histories), len(models), len(models)))
    for game in games:
        i, j, n = models.index(game.first), models.index(game.second), histories[game.history]
        wins[n, i, j] += game.won
        wins[n, j, i] += 1 - game.won
    whole = wins.sum(axis=0)
    (found,) = strengths(whole[None])
    draw, flat = numpy.random.default_rng(SEED), wins.reshape(len(wins), -1)
    drawn = (numpy.bincount(draw.integers(0, len(wins), len(wins)), minlength=len(wins)) for _ in range(RESAMPLES))
    resampled = strengths(numpy.stack([times @ flat for times in drawn]).reshape(-1, *whole.shape))
    finite = resampled[~numpy.isnan(resampled).any(axis=1)]
    told = len(wins) > 1 and len(finite) > 0.95 * RESAMPLES
    ranked = [
        Ranked(
            model=model,
            strength=None if numpy.isnan(found[n]) else float(found[n]),
            interval=intervals.percentiles(finite[:, n]) if told and not numpy.isnan(found[n]) else None,
            wins=float(whole[n].sum()),
            games=round(whole[n].sum() + whole[:, n].sum()),
        )
        for n, model in enumerate(models)
    ]
    return sorted(ranked, key=lambda one: (-one.share if one.strength is None else 0, -(one.strength or 0)))


def strengths(wins: "NDArray") -> "NDArray":
    """Returns the likeliest strengths, tables x models, of tables x models x models of wins (row over column).

    By Newton's method. NaN in a table where the models fall apart in two groups of which one never wins: there the
    likeliest strengths are without bound (Ford, Am. Math. Mon. 64, 1957).
    """
    import numpy

    models = wins.shape[-1]
    found = numpy.full(wins.shape[:2], numpy.nan)
    left = _connected(wins)
    wins, games = wins[left], (wins + wins.swapaxes(1, 2))[left]
    theta = numpy.zeros(wins.shape[:2])
    for _ in range(100):
        chance = 1 / (1 + numpy.exp(theta[:, None, :] - theta[:, :, None]))
        gradient = (wins - games * chance).sum(axis=2)
        weight = games * chance * (1 - chance)
        curvature = numpy.eye(models) * weight.sum(axis=2)[:, :, None] - weight
        step = numpy.linalg.solve(curvature + 1 / models, gradient[:, :, None])[:, :, 0]
        theta += step / numpy.maximum(1, abs(step).max(axis=1, keepdims=True, initial=0))  # not too far at a time
        if abs(step).max(initial=0) < 1e-10:
            break
    found[left] = theta - theta.mean(axis=1, keepdims=True)
    return found


def _connected(wins: "NDArray") -> "NDArray":
    """Returns of each table whether every model is above every other by a chain of wins."""
    import numpy

    reach = (wins > 0) | numpy.eye(wins.shape[-1], dtype=bool)
    for _ in range(wins.shape[-1].bit_length()):
        reach = reach @ reach
    return numpy.asarray(reach.all(axis=(1, 2)))
