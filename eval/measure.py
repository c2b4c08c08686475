"""From responses to figures: what every benchmark shares is counted here, the rest is what it declares."""

from collections.abc import Sequence
from dataclasses import replace

from data_pipeline.errors import BadInput
from data_pipeline.records import Response
from eval import intervals, metrics
from eval.contract import Answered, Benchmark, Figures, Item, Judgement, Scoring, judge_calls, own_scores
from eval.figures import Cell, Choice, Judgements, Mean, SetMetrics
from eval.items import check, fingerprint, group_by
from eval.judging.votes import by_judge
from reward.thought import template_opened

Judged = list[list[Judgement | None]]
Scores = list[list[dict[str, float | None]]]


def read_all(items: Sequence[Item], responses: list[list[Response]], scoring: Scoring) -> list[Answered]:
    """Returns the items with their responses, each read; raises BadInput for responses that do not fit the items."""
    return [
        Answered(
            item,
            samples,
            [
                metrics.score_response(item.record, r, scoring.elastic_rule, scoring.think_prefilled)
                for r in samples
            ],
            None,
        )
        for item, samples in zip(items, check(items, responses), strict=True)
    ]  # fmt: skip


def measure(
    benchmark: Benchmark, answered: list[Answered], scoring: Scoring, judge: str | None = None
) -> tuple[SetMetrics, Scores]:
    """Returns the figures of a set, and the benchmark's own scores of every response.

    A score that is missing is left out of its mean and counted, never 0. Failed, cut and unreadable responses stay in
    every denominator. `judge` is the model that gave the judgements. Raises BadInput for scores that do not fit.
    """
    scores = own_scores(benchmark, answered, scoring)
    in_cells = group_by([one.item.cell for one in answered], list(zip(answered, scores, strict=True)))
    names = dict.fromkeys([*benchmark.cells, *in_cells])
    cells = {name: _cell(benchmark, name, in_cells.get(name, []), scoring) for name in names}
    figures = benchmark.figures(answered, cells, scoring) if benchmark.figures else Figures()
    counts = metrics.counts([one.readings for one in answered])
    judged = _judgements(benchmark, answered)
    own = {"judges": judges} if (judges := by_judge(answered, scoring, benchmark.shown)) else {}
    result = SetMetrics(
        benchmark=benchmark.name,
        version=metrics.VERSION,
        fingerprint=fingerprint([one.item for one in answered]),
        elastic_rule=scoring.elastic_rule,
        elastic_rule_source=metrics.ELASTIC_RULES[scoring.elastic_rule],
        samples=len(answered[0].responses),
        **counts,
        judge=judge,
        judge_missing=judged.judge_missing if judged else None,
        judge_failed=judged.judge_failed if judged else None,
        readings=_readings(answered),
        kinds=_kinds(answered),
        means=_means(scores, scoring),
        cells=cells,
        subjects=_subjects(answered),
        published_columns=figures.published_columns,
        notes=figures.notes + _judge_notes(benchmark, judged) + _thought_notes(answered, scoring),
        own={**own, **figures.own},
    )
    if taken := result.taken_names():
        raise BadInput(f"benchmark {benchmark.name}: figures of its own are called {', '.join(taken)}, as shared ones")
    return result, scores


def choice(answered: Sequence[Answered]) -> Choice:
    """Returns the figures of the questions with letters, accuracies of those that have a key."""
    lettered = [one for one in answered if one.item.has_letters]
    keyed = [one.readings for one in lettered if one.item.question.answer]
    figures = metrics.describe(keyed)
    return Choice(
        accuracy=figures["accuracy"],
        accuracy_ci=figures["accuracy_ci"],
        strict_match=figures["strict_match"],
        strict_match_ci=figures["strict_match_ci"],
        elastic=figures["elastic"],
        elastic_ci=figures["elastic_ci"],
        format_rate=metrics.mean(metrics.per_item([one.readings for one in lettered], "format")),
        pass_at=figures["pass_at"],
    )


def mean_by_item(scores: Scores, name: str) -> list[float]:
    """Returns each item's mean of a score over the responses that have it; an item without any is left out."""
    of_items = ([v for row in rows if (v := row.get(name)) is not None] for rows in scores)
    return [metrics.mean_of(values) for values in of_items if values]


def _cell(benchmark: Benchmark, name: str, members: list[tuple[Answered, list[dict]]], scoring: Scoring) -> Cell:
    answered, scores = [one for one, _ in members], [rows for _, rows in members]
    counts = metrics.counts([one.readings for one in answered])
    cell = Cell(**counts, choice=None, means=_means(scores, scoring), judged=_judgements(benchmark, answered),
                release_items=benchmark.cells.get(name))  # fmt: skip
    if not members or any(one.item.has_letters for one in answered):
        cell.choice = choice(answered)
    return cell


def _means(scores: Scores, scoring: Scoring) -> dict[str, Mean]:
    means = {}
    for name in dict.fromkeys(key for rows in scores for row in rows for key in row):
        values = mean_by_item(scores, name)
        means[name] = Mean(metrics.mean(values), intervals.bootstrap(values, scoring.resamples, scoring.seed))
    return means


def _judgements(benchmark: Benchmark, answered: Sequence[Answered]) -> Judgements | None:
    """Returns what a judge owes, None where it is asked about none of the items."""
    wanted = [one for one in answered if judge_calls(benchmark, one.item)]
    if not wanted:
        return None
    if any(one.judgements is None for one in wanted):
        return Judgements(None, None, None)
    judgements = [judgement for one in wanted for judgement in one.judgements or [] if judgement]
    missing, failed = sum(j.missing for j in judgements), sum(j.lost for j in judgements)
    return Judgements(missing, failed, missing - failed)


def _judge_notes(benchmark: Benchmark, judged: Judgements | None) -> list[str]:
    if judged is None:
        return []
    if judged.judge_missing is None:
        return [benchmark.unjudged or "not judged: no judge is named (judge.base_url, judge.model)"]
    if not judged.judge_missing:
        return []
    return [
        f"{judged.judge_missing} judgements are missing ({judged.judge_failed} requests failed, "
        f"{judged.unreadable_judgements} replies cannot be read); scores are over what was judged"
    ]


def _thought_notes(answered: Sequence[Answered], scoring: Scoring) -> list[str]:
    """Returns a note where all responses that came to their end close a thought that nothing opened."""
    ended = [metrics.whole_text(r) for one in answered for r in one.responses if r.finish == "stop"]
    if scoring.think_prefilled or not ended or not all(map(template_opened, ended)):
        return []
    return [
        "every response closes a thought that nothing opened, and none can be read: the chat template opens it; score "
        "again with think_prefilled=true (`python -m launch.eval rescore run=NAME think_prefilled=true`)"
    ]


def _readings(answered: Sequence[Answered]) -> dict[str, dict]:
    """Returns what both readings make of the questions that have letters and a key."""
    keyed = [one.readings for one in answered if one.item.has_letters and one.item.question.answer]
    figures = metrics.describe(keyed)
    return {
        name: {
            "accuracy": figures[key],
            "accuracy_ci": figures[f"{key}_ci"],
            "readable": metrics.mean(metrics.per_item(keyed, readable)),
        }
        for name, key, readable in (
            ("flexible_extract", "accuracy", "readable"),
            ("strict_match", "strict_match", "format"),
        )
    }


def _kinds(answered: Sequence[Answered]) -> dict[str, dict]:
    kinds = {}
    for kind in ("single", "multi"):
        keyed = [one.readings for one in answered if one.item.kind == kind and one.item.question.answer]
        figures = metrics.describe(keyed)
        kinds[kind] = {k: figures[k] for k in ("items", "accuracy", "accuracy_ci", "elastic", "elastic_ci")}
    return kinds


def _subjects(answered: Sequence[Answered]) -> dict[str, dict]:
    """Returns the accuracy of every subject that has questions with a key, in order of appearance."""
    keyed = [one for one in answered if one.item.has_letters and one.item.question.answer]
    groups = group_by([one.item.question.subject for one in keyed], [one.readings for one in keyed])
    figures = {subject: metrics.describe(readings) for subject, readings in groups.items()}
    return {s: {k: f[k] for k in ("items", "accuracy", "accuracy_ci")} for s, f in figures.items()}


def with_judgements(answered: list[Answered], judged: Judged | None) -> list[Answered]:
    """Returns the answered items with what a judge said of them; None: no judge was asked."""
    if judged is None:
        return answered
    return [replace(one, judgements=judgements) for one, judgements in zip(answered, judged, strict=True)]
