"""What ratings say of the raters: the tables of `python -m launch.eval agreement FILES` and of a judged report."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from data_pipeline.errors import BadInput
from eval.contract import Table
from eval.figures import interval
from eval.judging import agreement
from eval.judging.ratings import JUDGE, Rating, tables

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check(ratings: Sequence[Rating]) -> list[str]:
    """Returns notes on ratings that are missing or stand alone; raises BadInput where there is nothing to compare."""
    raters = list(dict.fromkeys(rating.rater for rating in ratings))
    if not ratings:
        raise BadInput("no rating in these files; python -m launch.eval agreement SCORES.csv JUDGEMENTS.jsonl")
    repeated = {r.repeat for r in ratings if r.repeat} - {ratings[0].repeat}
    if len(raters) == 1 and not repeated:
        raise BadInput(f"{raters[0]} alone has rated; agreement needs two raters, so name a second file")
    units = {kind: {r.unit: r for r in ratings if (r.kind == JUDGE) == kind} for kind in (False, True)}
    if units[True] and units[False] and not units[True].keys() & units[False].keys():
        person, judge = next(iter(units[False].values())), next(iter(units[True].values()))
        raise BadInput(
            f"people and judges have rated nothing in common: {person.where} has {_named(person)}, {judge.where} has "
            f"{_named(judge)}; item, system and sample have to be the same"
        )
    alone = [(x, y) for x, y in combinations(raters, 2) if not _common(ratings, x, y)]
    notes = [f"{x} and {y} have rated nothing in common" for x, y in alone]
    missing = sum(rating.value is None for rating in ratings)
    return notes + ([f"{missing} of {len(ratings)} ratings are missing"] if missing else [])


def _named(rating: Rating) -> str:
    return f"item {rating.item!r}, system {rating.system!r}, sample {rating.sample!r}"


def _common(ratings: Sequence[Rating], *raters: str) -> bool:
    of = [{(r.unit, r.dimension) for r in ratings if r.rater == rater} for rater in raters]
    return bool(set.intersection(*of))


def compared(ratings: Sequence[Rating]) -> list[Table]:
    """Returns all tables on the raters; those without a row are left out."""
    shown = [*agreements(ratings), biases(ratings), _systems(tables(ratings))]
    return [table for table in shown if table.rows]


def agreements(ratings: Sequence[Rating]) -> list[Table]:
    """Returns the tables of who agrees with whom, and with themselves."""
    made, judges = tables(ratings), {rating.rater for rating in ratings if rating.kind == JUDGE}
    return [_alphas(made, judges), _kappas(made), _repeats(ratings)]


Tables = dict[str, tuple[list, list[str], "NDArray"]]


def _alphas(made: Tables, judges: set[str]) -> Table:
    lines = []
    for dimension, (units, raters, table) in made.items():
        groups = [raters, [r for r in raters if r not in judges], [r for r in raters if r in judges]]
        of_groups = [table[:, [raters.index(r) for r in group]] for group in groups]
        cells = [_told(agreement.alpha(one)) if one.shape[1] > 1 else "-" for one in of_groups]
        level = _told(agreement.alpha(agreement.levelled(table))) if len(raters) > 1 else "-"
        if len(raters) > 1:
            lines.append([dimension, str(len(units)), str(len(raters)), *cells, level])
    head = ("dimension", "units", "raters", "alpha of all", "of people", "of judges", "of all, without their levels")
    return Table("Krippendorff's alpha (interval) [95 %]", head, lines)


def _kappas(made: Tables) -> Table:
    import numpy

    lines = []
    for dimension, (_, raters, table) in made.items():
        for i, j in combinations(range(len(raters)), 2):
            both = table[~numpy.isnan(table[:, [i, j]]).any(axis=1)]
            if len(both):
                a, b = both[:, i].tolist(), both[:, j].tolist()
                cells = [_told(agreement.quadratic_kappa(a, b)), _told(agreement.bias(b, a), "+")]
                lines.append([raters[i], raters[j], dimension, str(len(both)), *cells])
    head = ("rater", "rater", "dimension", "units", "kappa (quadratic)", "second - first")
    return Table("pairs of raters, Cohen's kappa [95 %]", head, lines)


def biases(ratings: Sequence[Rating]) -> Table:
    """Returns how much higher each judge stands than the people's mean, for each system: its leniency differs."""
    import numpy

    lines, judges = [], {rating.rater for rating in ratings if rating.kind == JUDGE}
    for dimension, (units, raters, table) in tables(ratings).items():
        people = [n for n, rater in enumerate(raters) if rater not in judges]
        for n, judge in enumerate(raters):
            if judge not in judges or not people:
                continue
            of_systems = defaultdict(list)
            for unit, row in zip(units, table, strict=True):
                known = row[people][~numpy.isnan(row[people])]
                if len(known) and not numpy.isnan(row[n]):
                    of_systems[unit[1]].append((float(row[n]), float(known.mean())))
            for system, pairs in of_systems.items():
                told = _told(agreement.bias([a for a, _ in pairs], [b for _, b in pairs]), "+")
                lines.append([judge, system, dimension, str(len(pairs)), told])
    return Table("bias: judge - mean of people [95 %]", ("judge", "system", "dimension", "units", "bias"), lines)


def _systems(made: Tables) -> Table:
    """Returns every rater's mean of every system: absolute levels differ, the order is what raters share."""
    import numpy

    systems = list(dict.fromkeys(unit[1] for units, _, _ in made.values() for unit in units))
    lines = []
    for dimension, (units, raters, table) in made.items() if len(systems) > 1 else ():
        for n, rater in enumerate(raters):
            rows = [table[[unit[1] == system for unit in units], n] for system in systems]
            means = [float(numpy.nanmean(row)) if not numpy.isnan(row).all() else None for row in rows]
            places = [None if m is None else 1 + sum(o is not None and o > m + 1e-9 for o in means) for m in means]
            told = ["-" if m is None else f"{m:.2f} ({p})" for m, p in zip(means, places, strict=True)]
            lines.append([dimension, rater, *told])
    return Table("systems by each rater: mean (place)", ("dimension", "rater", *systems), lines)


def _repeats(ratings: Sequence[Rating]) -> Table:
    of_units: dict[str, dict[tuple, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rating in ratings:
        if rating.value is not None:
            of_units[rating.rater][rating.unit, rating.dimension].append(rating.value)
    lines = []
    for rater, units in of_units.items():
        steady = agreement.stability(list(units.values()))
        if steady is not None:
            several = sum(len(values) > 1 for values in units.values())
            lines.append([rater, str(several), f"{steady:.1%}"])
    return Table("asked again", ("rater", "units rated twice or more", "all the same"), lines)


def _told(value: tuple[float | None, tuple[float, float] | None], sign: str = "") -> str:
    number, bounds = value
    told = interval(number, bounds, 1)
    return f"+{told}" if sign and number is not None and number > 0 else told
