"""A whole job in one command, summary and report at its end.

    bash launch/demo.sh                           questions: data -> SFT -> GRPO -> merge -> evaluation
    bash launch/demo.sh recipe=psyllm_demo        dialogues with thoughts: data -> SFT -> a conversation, judged replies
    bash launch/demo.sh source=cpsyexam source_path=DIR
    bash launch/demo.sh source=table source_path=FILE run=mine base_model=PATH seed=7
    bash launch/demo.sh grpo.cards=2 sft.learning_rate=1e-3

Words that several stages know (run, recipe, hardware, seed, base_model) go to each that takes them, source words to the
data stage, and STAGE.KEY=VALUE to that stage. A second call continues or finds everything done; a call with other words
first moves the earlier run aside (runs/demo -> runs/demo.1), so that two never mix.
"""

import json
import sys
from pathlib import Path

from rich.table import Table

from data_pipeline.errors import BadInput
from data_pipeline.records import write_text
from launch.cli import arguments
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.pages import alone
from launch.reports import demo as report
from launch.running import overview
from launch.running.child import Ended, call
from launch.running.folder import read_manifest

WORDS = {  # which stages take which word
    "recipe": ("data", "sft", "grpo", "eval", "chat"),
    "hardware": ("sft", "grpo", "eval"),
    "seed": ("data", "sft", "grpo", "eval", "chat"),
    "source": ("data",),
    "source_path": ("data",),
    "source_options": ("data",),
    "base_model": ("sft",),
}
QUESTIONS = ("data", "sft", "grpo", "merge", "eval")  # the stages of a recipe that has GRPO
DIALOGUES = ("data", "sft", "chat", "eval")  # and of one that has not; the evaluation where the recipe has one
CONVERSATION = Path("data_pipeline/samples/conversation.txt")  # what the client says in it, a message a line


def main(argv: list[str]) -> int:
    """Runs every stage that is not done; returns the exit code."""
    return run_command(lambda words: run(*parse(words)), __doc__, argv)


def parse(argv: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Returns (our words, {stage: its arguments}); raises BadInput for a word that belongs to no stage."""
    recipe = next((word[7:] for word in argv if word.startswith("recipe=")), "demo")
    given = parse_words(argv, "the demo", ("run", *WORDS), stages_of(recipe))
    words = {"recipe": recipe, "hardware": "cpu"} | given.values
    words.setdefault("run", recipe)
    arguments.check_run_name(words["run"])
    arguments.check_hardware(words["hardware"], "sft")
    shared = {
        stage: [f"{word}={value}" for word, value in words.items() if word == "run" or stage in WORDS[word]]
        for stage in given.stages
    }
    return words, {stage: shared[stage] + own for stage, own in given.stages.items()}


def stages_of(recipe: str) -> tuple[str, ...]:
    """Returns the stages of the recipe's demo; raises BadInput for a recipe that lacks one of them."""
    has_grpo, has_eval = ((arguments.RECIPES / recipe / f"{stage}.yaml").is_file() for stage in ("grpo", "eval"))
    for stage in ("data", "sft", "eval" if has_grpo else "chat"):
        arguments.check_recipe(recipe, stage)
    return QUESTIONS if has_grpo else DIALOGUES if has_eval else DIALOGUES[:-1]


def run(words: dict[str, str], by_stage: dict[str, list[str]]) -> int:
    folder = Path("runs") / words["run"]
    try:
        set_aside(folder, by_stage)
        folder.mkdir(parents=True, exist_ok=True)
        state_file = folder / "demo.json"
        state = json.loads(state_file.read_text()) if state_file.is_file() else {"seconds": {}, "peak_rss_gib": 0.0}
        state["arguments"] = by_stage
        write_text(state_file, json.dumps(state, indent=2) + "\n")
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot write there ({error.strerror}); make runs/ writable") from None
    for number, stage in enumerate(by_stage, 1):
        console.rule(f"{number}/{len(by_stage)} {stage}")
        done = is_done(words["run"], stage)
        ended = talk(words["run"], by_stage[stage]) if stage == "chat" else call(stage, by_stage[stage])
        if not done:
            state["seconds"][stage] = round(state["seconds"].get(stage, 0) + ended.seconds, 1)
            state["peak_rss_gib"] = max(state["peak_rss_gib"], round(ended.peak / 2**30, 2))
            write_text(state_file, json.dumps(state, indent=2) + "\n")
        if ended.code:
            told = f"the {stage} stage ended with exit code {ended.code}; the same command continues from here"
            print(told, file=sys.stderr)
            return ended.code
    summary = report.write(words["run"], state)
    alone.write(overview.read_run(words["run"]), folder, report.figures(summary))
    show(folder, summary)
    return 0


def is_done(run: str, stage: str) -> bool:
    if stage == "chat":
        return (Path("runs") / run / report.TRANSCRIPT).is_file()
    return (read_manifest(run, stage) or {}).get("status") == "finished"


def talk(run: str, words: list[str]) -> Ended:
    """Has the scripted conversation through `launch.chat` in pipe mode; returns as `call`. A transcript is whole."""
    transcript = Path("runs") / run / report.TRANSCRIPT
    if transcript.is_file():
        console.print(f"chat: {transcript} is there already")
        return Ended(0, 0.0, 0)
    transcript.parent.mkdir(exist_ok=True)
    partial, script = transcript.with_suffix(".partial"), transcript.with_name("script.txt")
    partial.unlink(missing_ok=True)
    script.write_text(CONVERSATION.read_text(encoding="utf-8") + f"/save {partial}\n", encoding="utf-8")
    with script.open("rb") as said:
        ended = call("chat", words, said)
    if ended.code == 0:
        partial.replace(transcript)
    return ended


def set_aside(folder: Path, by_stage: dict[str, list[str]]) -> None:
    """Moves an earlier demo run with other words away."""
    file = folder / "demo.json"
    if file.is_file() and json.loads(file.read_text())["arguments"] != by_stage:
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.{n}").exists())
        away = folder.with_name(f"{folder.name}.{number}")
        folder.rename(away)
        console.print(f"{folder} was made with other words; it is {away} now, and {folder} starts anew")


def show(folder: Path, summary: dict) -> None:
    for who, thought, said in report.spoken(summary):
        console.print(f"{who}:", style="bold", end=" ")
        console.print(thought, style="dim", end=" ")
        console.print(said)
    table = Table("", "", title=f"run {summary['run']}", show_header=False)
    for label, value in report.figures(summary):
        table.add_row(label, value)
    console.print(table)
    console.print(f"{folder}/summary.json\n{folder}/report.html")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
