"""What a demo says at its end: runs/NAME/summary.json, and the lines of the closing table."""

import json
from pathlib import Path

from eval.figures import Measured
from launch.running.folder import finished_manifest
from reward.thought import stray_mark

TRANSCRIPT = Path("chat/transcript.json")  # of the scripted conversation, in the run's folder


def write(name: str, state: dict) -> dict:
    """Writes the summary from the manifests of the stages and `state` (seconds, peak memory); returns the
    summary: {"run", "seed", "install_s", "data", "sft", "seconds", "wall_s", "peak_rss_gib"}, and "grpo", "merge" and
    "eval" of a demo with questions, or "chat" and "judged" of one with dialogues.
    """
    folder, installed = Path("runs") / name, Path(".venv/install_seconds")
    data, trained = (
        finished_manifest(name, "data", "bash launch/demo.sh"),
        finished_manifest(name, "sft", "bash launch/demo.sh"),
    )
    talked = (folder / TRANSCRIPT).is_file()
    parts = _conversation(folder) if talked else _questions(name)
    counted = ("dialogues",) if talked else ("sft", "grpo", "heldout")
    summary = {
        "run": name,
        "seed": trained["seed"],
        "install_s": int(installed.read_text()) if installed.is_file() else None,
        "data": {key: data["counts"][key] for key in ("in", "out", "rejected", *counted)},
        "sft": {key: trained["counts"][key] for key in ("rows", "steps", "loss_first", "loss_last")}
        | parts.pop("sft", {}),
        **parts,
        "seconds": state["seconds"],
        "wall_s": round(sum(state["seconds"].values()), 1),
        "peak_rss_gib": state["peak_rss_gib"],
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    (folder / "summary.json").write_text(text, encoding="utf-8")
    return summary


def _questions(name: str) -> dict:
    """Returns the parts of the summary of a demo that ends in an evaluation."""
    folder = Path("runs") / name
    measured = Measured.read(folder / "eval" / "metrics.json")
    heldout, prompts = ({c: r.as_json() for c, r in measured.sets[n].items()} for n in ("heldout", "grpo_prompts"))
    gain, final = measured.as_json()["gains"]["grpo_prompts"]["sft -> grpo"], heldout["grpo"]
    grpo, merge = (finished_manifest(name, stage, "bash launch/demo.sh")["counts"] for stage in ("grpo", "merge"))
    return {
        "sft": {"format_before": heldout["base"]["format_rate"], "format_after": heldout["sft"]["format_rate"]},
        "grpo": {
            "prompts": grpo["prompts"],
            "steps": grpo["steps"],
            "samples": prompts["sft"]["samples"],
            "accuracy_before": prompts["sft"]["accuracy"],
            "accuracy_after": prompts["grpo"]["accuracy"],
            "gain_ci_low": gain["ci_low"],
            "gain_ci_high": gain["ci_high"],
            **{k: grpo[k] for k in (
                "reward_first5", "reward_last5", "grad_norm_min", "grad_norm_max", "steps_with_signal",
                "rollout_probs_diff_max", "kl_first", "kl_last", "workers",
            )},
        },
        "merge": {k: merge[k] for k in ("max_logprob_diff", "rounding_logprob_diff")},
        "eval": {
            "n": final["items"],
            "single_accuracy": final["cells"]["single"]["accuracy"],
            "multi_strict_accuracy": final["cells"]["multi"]["accuracy"],
            "format_rate": final["format_rate"],
            "unreadable_rate": final["unreadable"] / final["responses"],
        },
    }  # fmt: skip


def _conversation(folder: Path) -> dict:
    """Returns the parts of the summary of a demo that ends in a conversation."""
    turns = json.loads((folder / TRANSCRIPT).read_text(encoding="utf-8"))["messages"]
    replies = [turn for turn in turns if turn["role"] == "assistant"]
    parts = {"chat": {"turns": len(replies), "well_formed": sum(map(well_formed, replies)), "messages": turns}}
    if (file := folder / "eval" / "metrics.json").is_file():
        parts["judged"] = {
            name: {"items": r.items, "missing": r.judge_missing, "means": {n: m.value for n, m in r.means.items()},
                   "judges": {j: {n: m["value"] for n, m in of["means"].items()} for j, of in r.own["judges"].items()}}
            for name, results in Measured.read(file).sets.items() for r in results.values() if "judges" in r.own
        }  # fmt: skip
    return parts


def well_formed(turn: dict) -> bool:
    """Returns whether a turn of a transcript has one thought, then a reply, neither cut nor with tags in it."""
    thought, reply = turn.get("thought", ""), turn["content"]
    return bool(thought and reply) and not turn.get("cut") and not stray_mark(thought + reply)


def spoken(summary: dict) -> list[tuple[str, str, str]]:
    """Returns (who, thought, what was said) of the summary's conversation, [] without one."""
    turns = summary.get("chat", {}).get("messages", [])
    who = {"user": "client", "assistant": "counselor"}
    return [(who[turn["role"]], turn.get("thought", ""), turn["content"]) for turn in turns]


def figures(summary: dict) -> list[tuple[str, str]]:
    """Returns the (label, text) lines of the closing table and the report."""
    s, d = summary["sft"], summary["data"]
    trained = [("SFT rows, steps", f"{s['rows']}, {s['steps']}"),
               ("SFT loss", f"{s['loss_first']:.2f} -> {s['loss_last']:.2f}")]  # fmt: skip
    cost = ("time without install, peak memory", f"{summary['wall_s']:.0f} s, {summary['peak_rss_gib']:.1f} GiB")
    if "chat" in summary:
        c = summary["chat"]
        return [
            ("dialogues made / left out / used", f"{d['in']} / {d['rejected']} / {d['dialogues']}"),
            *trained,
            ("counselor turns with a well-formed thought", f"{c['well_formed']} of {c['turns']}"),
            *[
                (f"{name}: hand-written verdicts, {judge}", ", ".join(f"{n} {v:.2f}" for n, v in means.items()))
                for name, of in summary.get("judged", {}).items()
                for judge, means in of["judges"].items()
            ],
            cost,
        ]
    g, e = summary["grpo"], summary["eval"]

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    return [
        ("questions in / rejected / used", f"{d['in']} / {d['rejected']} / {d['out']}"),
        *trained,
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
        cost,
    ]  # fmt: skip
