"""Which question and dialogue goes where: to SFT, to GRPO, to the held-out set, or, by the recipe's limits, nowhere.

Every function returns what it takes and Rejects of what it leaves out, and changes nothing that it is given.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Question, Reject

LEFT_OUT = "left out by the recipe"  # the code of rejects whose detail is one of a few phrases too


class TooFew(BadInput):
    """Fewer rows are left than the recipe asks for: what, the words that are the cure, and the rejects so far."""

    def __init__(self, what: str, cure: str = "", rejects: Sequence[Reject] = ()) -> None:
        super().__init__(what + (f"; say {cure}" if cure else ""))
        self.what, self.cure, self.rejects = what, cure, rejects


class Select(BaseModel):
    """What of the questions to take; None takes all. The sources of a recipe's values stand in the recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_question_chars: int | None = Field(default=None, ge=1)  # stem, context and options together
    max_rationale_chars: int | None = Field(default=None, ge=1)
    single: int | None = Field(default=None, ge=0)  # at most so many single-answer questions
    multi: int | None = Field(default=None, ge=0)


class Sizes(BaseModel):
    """How many rows each part gets; what is left is SFT's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    heldout: int = Field(default=0, ge=0)  # questions
    grpo: int = Field(default=0, ge=0)  # questions
    grpo_dialogues: int = Field(default=0, ge=0)


class SplitSettings(BaseModel):
    """The keys of launch/conf/data.yaml that are read here; the stage has others."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    seed: int
    select: Select = Select()
    split: Sizes = Sizes()
    dialogues_per_question: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    open_questions: bool = False
    train_on_crisis: bool = False


def take(questions: list[Question], limits: SplitSettings) -> tuple[list[Question], list[Reject]]:
    """Returns (the questions that the recipe's limits take, in their order; Rejects of the others)."""
    select, taken, left = limits.select, [], []
    for q in questions:
        length = len(q.context) + len(q.stem) + sum(map(len, q.options))
        too_long = select.max_question_chars is not None and length > select.max_question_chars
        too_long |= select.max_rationale_chars is not None and len(q.rationale) > select.max_rationale_chars
        if q.kind == "open" and not limits.open_questions:
            left.append((q, "an open question, whose answer no rule can check"))
        elif too_long:
            left.append((q, "too long"))
        else:
            taken.append(q)
    for kind, most in (("single", select.single), ("multi", select.multi)):
        if most is not None:
            # questions with a rationale first: they serve for both stages
            pool = sorted((q for q in taken if q.kind == kind), key=lambda q: not q.rationale)
            with_rationale = [q for q in pool if q.rationale]
            random.Random(limits.seed).shuffle(with_rationale)
            chosen = {id(q) for q in (with_rationale + pool[len(with_rationale) :])[:most]}
            left += [(q, "outside the sample") for q in taken if q.kind == kind and id(q) not in chosen]
            taken = [q for q in taken if q.kind != kind or id(q) in chosen]
    return taken, [_left_out(q, why) for q, why in left]


def split(questions: list[Question], limits: SplitSettings) -> tuple[list[Question], list[Question], list[Question]]:
    """Returns (heldout, grpo, sft), drawn with the seed and with the same share of multi-answer questions in each.

    Questions without a rationale can only be GRPO prompts; when there are more of them than `split.grpo`, they all are.
    Open questions always are, beside those that `split.grpo` counts: only a judge can reward them.
    """
    sizes = limits.split
    judged = [q for q in questions if q.kind == "open"]
    order = [q for q in questions if q.kind != "open"]
    random.Random(limits.seed).shuffle(order)
    share = sum(q.kind == "multi" for q in order) / max(1, len(order))

    def draw(pool: list[Question], size: int) -> list[Question]:
        multi = min(round(size * share), sum(q.kind == "multi" for q in pool))
        wanted = {"multi": multi, "single": size - multi}
        drawn = []
        for q in pool:
            if wanted[q.kind] > 0:
                wanted[q.kind] -= 1
                drawn.append(q)
        return drawn

    if sizes.heldout + sizes.grpo > len(order):
        heldout, grpo = min(sizes.heldout, len(order) // 10), min(sizes.grpo, len(order) // 5)
        raise TooFew(
            f"split: {sizes.heldout} held-out questions and {sizes.grpo} GRPO prompts are wanted, but only "
            f"{len(order)} questions are left",
            f"for example split.heldout={heldout} split.grpo={grpo}",
        )
    heldout = draw(order, sizes.heldout)
    held = {q.id for q in heldout}
    rest = [q for q in order if q.id not in held]
    bare = [q for q in rest if not q.rationale]
    grpo = bare + draw([q for q in rest if q.rationale], max(0, sizes.grpo - len(bare)))
    chosen = {q.id for q in grpo}
    return heldout, grpo + judged, [q for q in rest if q.id not in chosen]


def check_reach(limits: SplitSettings, reach: Mapping[str, float], passages: int) -> None:
    """Raises BadInput for sizes that cannot be reached, when so many passages are there, and at most `reach` rows come
    of each pipeline, whatever the models write.
    """
    sizes, questions = limits.split, reach.get("questions", 0)
    dialogues = reach.get("posts", 0) + reach.get("dialogues", 0)
    if sizes.heldout and (passages < 2 or sizes.heldout >= questions):
        source = f"of {passages} passages come at most {questions:,.0f} questions" if passages else (
            "without passages= there is no question")  # fmt: skip
        # whole passages are held out, and one is left to train on
        most = int(questions * (passages - 1) / passages) if passages > 1 else 0
        cure = f"say split.heldout={most}" + (" or fewer" if most else "") + ", or give more passages="
        raise BadInput(f"split.heldout={sizes.heldout}: {source}; {cure}")
    if limits.dialogues_per_question is not None and not questions:
        raise BadInput(
            f"dialogues_per_question={limits.dialogues_per_question:g}: without passages= there is no question, so no "
            "dialogue would be left; say dialogues_per_question=null, or give passages="
        )
    if sizes.grpo_dialogues > dialogues:
        raise BadInput(
            f"split.grpo_dialogues={sizes.grpo_dialogues}: at most {dialogues:,.0f} dialogues come of posts= and "
            f"dialogues=; say split.grpo_dialogues={dialogues:.0f} or fewer, or give more of them"
        )


def split_selected(
    questions: list[Question], limits: SplitSettings
) -> tuple[list[Question], list[Question], list[Question], list[Reject]]:
    """Returns (heldout, grpo, sft, rejects) of synthesised questions: what the selectors said, held out by passage.

    Whole passages are held out until there are `split.heldout` questions, so that no passage is on both sides. With
    `split.grpo` above 0 at most so many prompts are drawn; the others are the Rejects.
    """
    sizes, draw = limits.split, random.Random(limits.seed)
    passages = list(dict.fromkeys(q.meta["passage"] for q in questions))
    draw.shuffle(passages)
    of_passage = Counter(q.meta["passage"] for q in questions)
    most = len(questions) - (of_passage[passages[-1]] if passages else 0)  # one is left to train on
    if sizes.heldout > most:
        raise TooFew(
            f"split.heldout={sizes.heldout}: only {len(questions)} questions of {len(passages)} passages are left",
            f"split.heldout={most}",
        )
    heldout_passages, count = set(), 0
    for passage in passages:
        if count >= sizes.heldout:
            break
        heldout_passages.add(passage)
        count += of_passage[passage]
    heldout = [q for q in questions if q.meta["passage"] in heldout_passages]
    rest = [q for q in questions if q.meta["passage"] not in heldout_passages]
    grpo, left = [q for q in rest if q.meta["selection"]["split"] == "grpo"], []
    if sizes.grpo and len(grpo) > sizes.grpo:
        kept = {q.id for q in draw.sample(grpo, sizes.grpo)}
        left = [_left_out(q, "beyond split.grpo") for q in grpo if q.id not in kept]
        grpo = [q for q in grpo if q.id in kept]
    return heldout, grpo, [q for q in rest if q.meta["selection"]["split"] == "sft"], left


def draw_prompts(dialogues: list[Dialogue], limits: SplitSettings) -> tuple[list[Dialogue], list[Dialogue]]:
    """Returns (dialogues that become GRPO prompts, each cut after one reply; the others, whole), both in their order.

    Drawn are whole posts (or parents, or dialogues that open alike), as passages are held out, so that what SFT learns
    and what GRPO asks share none; the last one drawn may bring more than `split.grpo_dialogues`. A dialogue with crisis
    content is never drawn: an empathy judge is no judge of safety. Raises BadInput when there are fewer.
    """
    wanted = limits.split.grpo_dialogues
    if not wanted:
        return [], dialogues
    by_origin: dict[str, list[Dialogue]] = {}
    for dialogue in dialogues:
        by_origin.setdefault(_origin(dialogue), []).append(dialogue)
    fit = {origin: all(not d.meta.get("crisis") for d in alike) for origin, alike in by_origin.items()}
    there = sum(len(alike) for origin, alike in by_origin.items() if fit[origin])
    if wanted > there:
        crisis = f" ({len(dialogues) - there} with crisis content are none)" if there < len(dialogues) else ""
        what = f"split.grpo_dialogues={wanted}: only {there} dialogues can be prompts{crisis}"
        raise TooFew(what, f"split.grpo_dialogues={there}")
    drawn: set[str] = set()
    count = 0
    for origin in sorted((o for o in by_origin if fit[o]), key=lambda o: _chance(limits.seed, o)):
        if count >= wanted:
            break
        drawn.add(origin)
        count += len(by_origin[origin])
    prompts = [cut(d, limits.seed) for d in dialogues if _origin(d) in drawn]
    return prompts, [d for d in dialogues if _origin(d) not in drawn]


def cut(dialogue: Dialogue, seed: int) -> Dialogue:
    """Returns the dialogue up to and with one reply, which a model is to write anew: any of them, by seed and id.

    Not always the last: dialogues end in farewells, which take little empathy, and a model is used from the first
    words on. By id, so that the choice does not move when other dialogues come or go.
    """
    replies = [place for place, turn in enumerate(dialogue.turns) if turn.role == "counselor"]
    if not replies:
        return dialogue  # the exporter names it
    last = replies[_chance(seed, dialogue.id) % len(replies)]
    return Dialogue(dialogue.id, dialogue.source, dialogue.turns[: last + 1], dialogue.meta)


def _origin(dialogue: Dialogue) -> str:
    meta = dialogue.meta
    opening = next((turn.content for turn in dialogue.turns if turn.role == "client"), dialogue.id)
    return str(meta.get("post_id") or next(iter(meta.get("parents", ())), opening))


def _chance(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8])


def mix(dialogues: list[Dialogue], questions: int, limits: SplitSettings) -> tuple[list[Dialogue], list[Reject]]:
    """Returns (at most `dialogues_per_question` dialogues per question, a seeded sample in their order; Rejects)."""
    share = limits.dialogues_per_question
    most = len(dialogues) if share is None else round(share * questions)
    if most >= len(dialogues):
        return dialogues, []
    kept = {d.id for d in random.Random(limits.seed).sample(dialogues, most)}
    left = [_left_out(d, "dialogues_per_question") for d in dialogues if d.id not in kept]
    return [d for d in dialogues if d.id in kept], left


def without_crisis(dialogues: list[Dialogue], limits: SplitSettings) -> tuple[list[Dialogue], list[Reject]]:
    """Returns (the dialogues without crisis content, or, with `train_on_crisis`, with those that no step refused;
    Rejects of the others, which wait for people and stand in the step's files as well).
    """

    def trained(dialogue: Dialogue) -> bool:
        if not dialogue.meta.get("crisis"):
            return True
        refused = dialogue.meta.get("validation", {}).get("keep", True) is not True
        return limits.train_on_crisis and not refused and dialogue.meta.get("answer") != "guidance"

    why = ("flagged for people", "crisis content (train_on_crisis=true trains on answers that no step refused)")
    left = [Reject(d.id, d.meta.get("where", d.id), *why) for d in dialogues if not trained(d)]
    return [d for d in dialogues if trained(d)], left


def _left_out(row: Question | Dialogue, why: str) -> Reject:
    return Reject(row.id, row.meta.get("where", row.id), LEFT_OUT, why)


def count_reasons(rejects: Iterable[Reject]) -> Counter[str]:
    """Returns how often each code stands; what the recipe left out is counted by its detail too."""
    return Counter(r.reason if r.code == LEFT_OUT else r.code for r in rejects)
