"""What the data stage ends with, and the files that the trainings and the evaluation read."""

from dataclasses import dataclass
from pathlib import Path

from data_pipeline.counts import DataCounts
from data_pipeline.export import exportable, exportable_dialogues, llama_factory
from data_pipeline.records import Dialogue, Question, Reject, write_jsonl
from data_pipeline.synthesis.decontaminate import Overlaps
from data_pipeline.synthesis.splits import count_reasons

FILES = (
    "questions.jsonl",
    "dialogues.jsonl",
    "questions.rejects.jsonl",
    "overlaps.jsonl",
    "sft.jsonl",
    "dataset_info.json",
    "grpo.jsonl",
    "grpo_dialogues.jsonl",
    "grpo_train.parquet",
    "heldout.jsonl",
    "grpo_validation.parquet",
)


@dataclass
class Export:
    """Every question and dialogue that came in stands in exactly one of the first six lists."""

    heldout: list[Question]
    grpo: list[Question]
    sft: list[Question]
    dialogues: list[Dialogue]  # of SFT
    grpo_dialogues: list[Dialogue]  # each cut after the reply that is to be written anew
    rejects: list[Reject]
    overlaps: Overlaps

    def check(self, train_on_benchmark: bool, open_questions: bool) -> None:
        """Raises BadInput for what the exporters refuse, before anything is written."""
        for _ in exportable([*self.sft, *self.grpo], train_on_benchmark, open_questions):
            pass
        for _ in exportable_dialogues(self.grpo_dialogues, train_on_benchmark):
            pass

    def write(self, out: Path, train_on_benchmark: bool, thoughts: str, system: str) -> dict[str, Path]:
        """Writes the training files into `out`, after `check`; returns {name: path}. `thoughts` is of dialogues in SFT
        rows, `system` of all dialogues.
        """
        write_jsonl(out / "questions.jsonl", [*self.sft, *self.grpo, *self.heldout])
        write_jsonl(out / "dialogues.jsonl", [*self.dialogues, *self.grpo_dialogues])
        write_jsonl(out / "questions.rejects.jsonl", self.rejects)
        write_jsonl(out / "overlaps.jsonl", self.overlaps.hits)
        write_jsonl(out / "grpo.jsonl", self.grpo)
        write_jsonl(out / "grpo_dialogues.jsonl", self.grpo_dialogues)
        write_jsonl(out / "heldout.jsonl", self.heldout)
        from data_pipeline.export import verl  # here, so that a dry run stays quick: it imports pyarrow

        llama_factory.write(out, self.sft, self.dialogues, "sft", train_on_benchmark, thoughts, system)
        train = verl.question_rows(self.grpo, "train", train_on_benchmark, open_questions=True)
        train += verl.dialogue_rows(self.grpo_dialogues, "train", len(train), system, train_on_benchmark)
        verl.write(out / "grpo_train.parquet", train)
        validation = verl.question_rows(self.heldout or self.grpo, "validation", True, open_questions=True)
        # verl refuses an empty file, also where nothing is validated
        validation = validation or verl.dialogue_rows(self.grpo_dialogues, "validation", 0, system, True)
        verl.write(out / "grpo_validation.parquet", validation)
        return {name: out / name for name in FILES}

    def counts(self, total: int) -> DataCounts:
        """Returns the figures of the manifest; raises AssertionError unless `total` rows are all accounted for."""
        sft, grpo = len(self.sft) + len(self.dialogues), len(self.grpo) + len(self.grpo_dialogues)
        out = sft + grpo + len(self.heldout)
        if total != out + len(self.rejects):
            raise AssertionError(f"rows were lost: {total} in, {out} out, {len(self.rejects)} rejected")
        return DataCounts(
            into=total,
            out=out,
            rejected=len(self.rejects),
            sft=sft,
            dialogues=len(self.dialogues),
            grpo=grpo,
            grpo_dialogues=len(self.grpo_dialogues),
            heldout=len(self.heldout),
            decontaminated=self.overlaps.counts,
            reasons=dict(count_reasons(self.rejects).most_common()),
        )
