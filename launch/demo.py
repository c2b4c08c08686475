"""The whole main job in one command: data -> SFT -> GRPO -> merge -> evaluation -> summary and report.

    bash launch/demo.sh
    bash launch/demo.sh source=cpsyexam source_path=DIR
    bash launch/demo.sh source=table source_path=FILE run=mine base_model=PATH seed=7
    bash launch/demo.sh grpo.trainer.n_gpus_per_node=2 sft.learning_rate=1e-3

Words that several stages know (run, recipe, hardware, seed, base_model) go to each that takes them, source words to the
data stage, and STAGE.KEY=VALUE to that stage. A second call continues or finds everything done; a call with other words
first moves the earlier run aside (runs/demo -> runs/demo.1), so that two never mix.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
from rich.table import Table

from data_pipeline.records import BadInput, read_jsonl
from eval import report
from launch import arguments, runs, sft
from launch.stage import console, run_plain

WORDS = {  # which stages take which word
    "recipe": ("data", "sft", "grpo", "eval"),
    "hardware": ("sft", "grpo", "eval"),
    "seed": ("data", "sft", "grpo", "eval"),
    "source": ("data",),
    "source_path": ("data",),
    "source_options": ("data",),
    "base_model": ("sft",),
}
STAGES = ("data", "sft", "grpo", "merge", "eval")


def main(argv: list[str]) -> int:
    """Runs every stage that is not done; returns the exit code."""
    return run_plain(lambda words: run(*parse(words)), __doc__, argv)


def parse(argv: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Returns (our words, {stage: its arguments}); raises BadInput for a word that belongs to no stage."""
    words = {"recipe": "demo", "hardware": "cpu"}
    extra = {stage: [] for stage in STAGES}
    for argument in argv:
        key, separator, value = argument.partition("=")
        stage, dot, rest = key.partition(".")
        if separator and dot and stage in STAGES:
            extra[stage].append(f"{rest}={value}")
        elif separator and (key in WORDS or key == "run"):
            words[key] = value
        else:
            known = ["run", *WORDS]
            raise BadInput(
                f"{argument!r}: the demo takes {', '.join(f'{w}=' for w in known)} and STAGE.KEY=VALUE "
                f"(stages: {', '.join(STAGES)}){arguments.did_you_mean(key, known)}"
            )
    words.setdefault("run", words["recipe"])
    arguments.check_run_name(words["run"])
    arguments.check_recipe(words["recipe"], "data")
    arguments.check_hardware(words["hardware"], "sft")
    by_stage = {}
    for stage in STAGES:
        own = [f"{w}={v}" for w, v in words.items() if w == "run" or stage in WORDS.get(w, ())]
        by_stage[stage] = own + extra[stage]
    return words, by_stage


def run(words: dict[str, str], by_stage: dict[str, list[str]]) -> int:
    folder = Path("runs") / words["run"]
    try:
        set_aside(folder, by_stage)
        folder.mkdir(parents=True, exist_ok=True)
        state_file = folder / "demo.json"
        state = json.loads(state_file.read_text()) if state_file.is_file() else {"seconds": {}, "peak_rss_gib": 0.0}
        state["arguments"] = by_stage
        state_file.write_text(json.dumps(state, indent=2) + "\n")
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot write there ({error.strerror}); make runs/ writable") from None
    for number, stage in enumerate(STAGES, 1):
        console.rule(f"{number}/{len(STAGES)} {stage}")
        done = (runs.read_manifest(words["run"], stage) or {}).get("status") == "finished"
        code, seconds, peak = call(stage, by_stage[stage])
        if not done:
            state["seconds"][stage] = round(state["seconds"].get(stage, 0) + seconds, 1)
            state["peak_rss_gib"] = max(state["peak_rss_gib"], round(peak / 2**30, 2))
            state_file.write_text(json.dumps(state, indent=2) + "\n")
        if code:
            print(
                f"the {stage} stage ended with exit code {code}; the same command continues from here", file=sys.stderr
            )
            return code
    summary = summarise(words["run"], state)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_report(words["run"], summary)
    show(folder, summary)
    return 0


def set_aside(folder: Path, by_stage: dict[str, list[str]]) -> None:
    """Moves an earlier demo run with other words away."""
    file = folder / "demo.json"
    if file.is_file() and json.loads(file.read_text())["arguments"] != by_stage:
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.{n}").exists())
        away = folder.with_name(f"{folder.name}.{number}")
        folder.rename(away)
        console.print(f"{folder} was made with other words; it is {away} now, and {folder} starts anew")


def call(stage: str, words: list[str]) -> tuple[int, float, int]:
    """Runs a stage as a user would; returns (exit code, seconds, peak memory of its process tree in bytes)."""
    started, peak = time.monotonic(), 0
    process = subprocess.Popen([sys.executable, "-m", f"launch.{stage}", *words])
    finished = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(2):
            peak = max(peak, tree_memory(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    finally:
        finished.set()
        watcher.join()
    return code, time.monotonic() - started, peak


def tree_memory(pid: int) -> int:
    """Returns the memory of a process and its descendants in bytes, pages that they share counted once (PSS)."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def summarise(name: str, state: dict) -> dict:
    """Returns what summary.json holds, read from the manifests of the stages."""
    manifests = {stage: runs.need(name, stage, "bash launch/demo.sh") for stage in STAGES}
    metrics = json.loads((Path("runs") / name / "eval" / "metrics.json").read_text(encoding="utf-8"))
    heldout, prompts = metrics["sets"]["heldout"], metrics["sets"]["grpo_prompts"]
    gain = metrics["gains"]["grpo_prompts"]["sft -> grpo"]
    data, sft_counts, grpo_counts = (manifests[s]["counts"] for s in ("data", "sft", "grpo"))
    final = heldout["grpo"]
    installed = Path(".venv/install_seconds")
    return {
        "run": name,
        "seed": manifests["grpo"]["seed"],
        "install_s": int(installed.read_text()) if installed.is_file() else None,
        "data": {k: data[k] for k in ("in", "out", "rejected", "sft", "grpo", "heldout")},
        "sft": {
            **{k: sft_counts[k] for k in ("rows", "steps", "loss_first", "loss_last")},
            "format_before": heldout["base"]["format_rate"],
            "format_after": heldout["sft"]["format_rate"],
        },
        "grpo": {
            "prompts": grpo_counts["prompts"],
            "steps": grpo_counts["steps"],
            "samples": prompts["sft"]["samples"],
            "accuracy_before": prompts["sft"]["accuracy"],
            "accuracy_after": prompts["grpo"]["accuracy"],
            "gain_ci_low": gain["ci_low"],
            "gain_ci_high": gain["ci_high"],
            **{k: grpo_counts[k] for k in (
                "reward_first5", "reward_last5", "grad_norm_min", "grad_norm_max", "steps_with_signal",
                "rollout_probs_diff_max", "kl_first", "kl_last", "workers",
            )},
        },
        "merge": {k: manifests["merge"]["counts"][k] for k in ("max_logprob_diff", "rounding_logprob_diff")},
        "eval": {
            "n": final["items"],
            "single_accuracy": final["cells"]["single"]["accuracy"],
            "multi_strict_accuracy": final["cells"]["multi"]["accuracy"],
            "format_rate": final["format_rate"],
            "unreadable_rate": final["unreadable"] / final["responses"],
        },
        "seconds": state["seconds"],
        "wall_s": round(sum(state["seconds"].values()), 1),
        "peak_rss_gib": state["peak_rss_gib"],
    }  # fmt: skip


def write_report(name: str, summary: dict) -> None:
    """Writes runs/NAME/report.html."""
    folder = Path("runs") / name
    model = Path(runs.need(name, "sft", "")["model"])
    losses = [(e["step"], e["loss"]) for e in sft.log_history(model) if "loss" in e]
    steps = [json.loads(line) for line in (folder / "grpo" / "metrics.jsonl").read_text().splitlines()]
    rewards = [(s["step"], s["critic/score/mean"]) for s in steps if "critic/score/mean" in s]
    kl = [(s["step"], s["actor/kl_loss"]) for s in steps if "actor/kl_loss" in s]
    plots = [
        report.plot({"loss": losses}, "SFT step", "SFT loss"),
        report.plot({"mean reward": rewards, "mean of five": report.smooth(rewards)}, "GRPO step", "GRPO reward"),
        report.plot({"KL": kl}, "GRPO step", "KL to the SFT model"),
        report.plot(
            {"tokens": [(s["step"], s["response_length/mean"]) for s in steps]}, "GRPO step", "response tokens"
        ),
    ]
    found = json.loads((folder / "eval" / "metrics.json").read_text(encoding="utf-8"))
    rows = {
        (checkpoint, name): [row for _, row in read_jsonl(folder / "eval" / f"responses.{checkpoint}.{name}.jsonl")]
        for name, results in found["sets"].items()
        for checkpoint in results
    }
    content = report.page(f"run {name}", found, rows)
    report.write(folder, {**content, "title": f"PsyForge run {name}", "figures": figures(summary), "plots": plots})


def figures(summary: dict) -> list[tuple[str, str]]:
    """Returns the (label, text) lines of the closing table and the report."""
    s, g, e, d = summary["sft"], summary["grpo"], summary["eval"], summary["data"]

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    return [
        ("questions in / rejected / used", f"{d['in']} / {d['rejected']} / {d['out']}"),
        ("SFT rows, steps", f"{s['rows']}, {s['steps']}"),
        ("SFT loss", f"{s['loss_first']:.2f} -> {s['loss_last']:.2f}"),
        ("well-formed responses on held-out questions", f"{share(s['format_before'])} -> {share(s['format_after'])}"),
        ("GRPO prompts, steps, workers", f"{g['prompts']}, {g['steps']}, {g['workers']}"),
        ("GRPO reward, first and last five steps", f"{g['reward_first5']:.2f} -> {g['reward_last5']:.2f}"),
        (f"accuracy on the GRPO prompts, {g['samples']} samples each",
         f"{share(g['accuracy_before'])} -> {share(g['accuracy_after'])}"),
        ("its gain, 95 % interval", f"{g['gain_ci_low']:+.1%} to {g['gain_ci_high']:+.1%}"),
        ("merged model's log-probabilities differ by", f"{summary['merge']['max_logprob_diff']:.1e}"),
        (f"held-out questions (n={e['n']}): single / multi strict",
         f"{share(e['single_accuracy'])} / {share(e['multi_strict_accuracy'])}"),
        ("held-out: well-formed / unreadable", f"{share(e['format_rate'])} / {share(e['unreadable_rate'])}"),
        ("time without install, peak memory", f"{summary['wall_s']:.0f} s, {summary['peak_rss_gib']:.1f} GiB"),
    ]  # fmt: skip


def show(folder: Path, summary: dict) -> None:
    table = Table("", "", title=f"run {summary['run']}", show_header=False)
    for label, value in figures(summary):
        table.add_row(label, value)
    console.print(table)
    console.print(f"{folder}/summary.json\n{folder}/report.html")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
