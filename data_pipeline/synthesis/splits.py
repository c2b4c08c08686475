"""Which question goes where: to SFT, to GRPO, to the held-out set, or, by the recipe's limits, nowhere."""

import random

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from data_pipeline.records import Dialogue, Question, Reject

LEFT_OUT = "left out by the recipe"  # the code of rejects whose detail is one of a few phrases too


def take(
    questions: list[Question], rejects: list[Reject], select: DictConfig, seed: int, open_questions: bool = False
) -> list[Question]:
    """Returns the questions that the recipe's limits take, in their order; the others join `rejects`."""
    taken, left = [], []
    for q in questions:
        length = len(q.context) + len(q.stem) + sum(map(len, q.options))
        too_long = select.max_question_chars is not None and length > select.max_question_chars
        too_long |= select.max_rationale_chars is not None and len(q.rationale) > select.max_rationale_chars
        if q.kind == "open" and not open_questions:
            left.append((q, "an open question, whose answer no rule can check"))
        elif too_long:
            left.append((q, "too long"))
        else:
            taken.append(q)
    for kind in ("single", "multi"):
        if select[kind] is not None:
            # questions with a rationale first: they serve for both stages
            pool = sorted((q for q in taken if q.kind == kind), key=lambda q: not q.rationale)
            with_rationale = [q for q in pool if q.rationale]
            random.Random(seed).shuffle(with_rationale)
            chosen = {id(q) for q in (with_rationale + pool[len(with_rationale) :])[: select[kind]]}
            left += [(q, "outside the sample") for q in taken if q.kind == kind and id(q) not in chosen]
            taken = [q for q in taken if q.kind != kind or id(q) in chosen]
    rejects += [Reject(q.id, q.meta["where"], LEFT_OUT, why) for q, why in left]
    return taken


def split(questions: list[Question], sizes: DictConfig, seed: int):
    """Returns (heldout, grpo, sft), drawn with the seed and with the same share of multi-answer questions in each.

    Questions without a rationale can only be GRPO prompts; when there are more of them than `sizes.grpo`, they all are.
    Open questions always are, beside those that `sizes.grpo` counts: only a judge can reward them.
    """
    judged = [q for q in questions if q.kind == "open"]
    order = [q for q in questions if q.kind != "open"]
    random.Random(seed).shuffle(order)
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

    needed = sizes.heldout + sizes.grpo
    if needed > len(order):
        raise BadInput(
            f"split: {sizes.heldout} held-out questions and {sizes.grpo} GRPO prompts are wanted, but only "
            f"{len(order)} questions are left; lower split.heldout and split.grpo"
        )
    heldout = draw(order, sizes.heldout)
    held = {q.id for q in heldout}
    rest = [q for q in order if q.id not in held]
    bare = [q for q in rest if not q.rationale]
    grpo = bare + draw([q for q in rest if q.rationale], max(0, sizes.grpo - len(bare)))
    chosen = {q.id for q in grpo}
    return heldout, grpo + judged, [q for q in rest if q.id not in chosen]


def split_selected(questions: list[Question], rejects: list[Reject], sizes: DictConfig, seed: int):
    """Returns (heldout, grpo, sft) of synthesised questions: what the selectors said, held out by source passage.

    Whole passages are held out until there are `sizes.heldout` questions, so that no passage is on both sides. With
    `sizes.grpo` above 0 at most so many prompts are drawn; the others join `rejects`.
    """
    draw = random.Random(seed)
    passages = list(dict.fromkeys(q.meta["passage"] for q in questions))
    draw.shuffle(passages)
    heldout_passages, count = set(), 0
    for passage in passages:
        if count >= sizes.heldout:
            break
        heldout_passages.add(passage)
        count += sum(q.meta["passage"] == passage for q in questions)
    if count < sizes.heldout or len(heldout_passages) == len(passages) > 0:
        raise BadInput(f"split.heldout={sizes.heldout}: only {len(questions)} questions are left; lower it")
    heldout = [q for q in questions if q.meta["passage"] in heldout_passages]
    rest = [q for q in questions if q.meta["passage"] not in heldout_passages]
    grpo = [q for q in rest if q.meta["selection"]["split"] == "grpo"]
    if sizes.grpo and len(grpo) > sizes.grpo:
        kept = {q.id for q in draw.sample(grpo, sizes.grpo)}
        left = [q for q in grpo if q.id not in kept]
        rejects += [Reject(q.id, q.meta.get("where", q.id), LEFT_OUT, "beyond split.grpo") for q in left]
        grpo = [q for q in grpo if q.id in kept]
    return heldout, grpo, [q for q in rest if q.meta["selection"]["split"] == "sft"]


def mix(dialogues: list, questions: int, rejects: list[Reject], per_question: float | None, seed: int) -> list:
    """Returns at most `per_question` dialogues per question, a seeded sample in their order; None takes all."""
    most = len(dialogues) if per_question is None else round(per_question * questions)
    if most >= len(dialogues):
        return dialogues
    kept = {d.id for d in random.Random(seed).sample(dialogues, most)}
    left = [d for d in dialogues if d.id not in kept]
    rejects += [Reject(d.id, d.meta.get("where", d.id), LEFT_OUT, "dialogues_per_question") for d in left]
    return [d for d in dialogues if d.id in kept]


def without_crisis(dialogues: list[Dialogue], rejects: list[Reject], train_on_crisis: bool) -> list[Dialogue]:
    """Returns the dialogues without crisis content, or, with `train_on_crisis`, with those that no step refused.

    The others join `rejects` and wait for people; they stand in the step's files as well.
    """

    def trained(dialogue: Dialogue) -> bool:
        if not dialogue.meta.get("crisis"):
            return True
        refused = dialogue.meta.get("validation", {}).get("keep", True) is not True
        return train_on_crisis and not refused and dialogue.meta.get("answer") != "guidance"

    why = ("flagged for people", "crisis content (train_on_crisis=true trains on answers that no step refused)")
    rejects += [Reject(d.id, d.meta.get("where", d.id), *why) for d in dialogues if not trained(d)]
    return [d for d in dialogues if trained(d)]
