"""What `python -m launch.check_gpu` reads from GRPO and evaluation: times of a step, whether new weights arrived."""

import json
from pathlib import Path
from typing import Any

from data_pipeline.errors import BadInput
from data_pipeline.llm.ledger import Ledger
from eval.responses import file_name, read_rows
from launch.running.folder import ledger_of

PARTS = ("gen", "old_log_prob", "ref", "update_actor", "update_weights")  # of a GRPO step, as verl names them


def grpo(run: str) -> dict[str, Any]:
    """Returns the second step's times by part, and the differences between rollout and trainer; raises BadInput when
    the second step was not sampled from the weights that the first had made.
    """
    lines = (Path("runs") / run / "grpo/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [step for step in map(json.loads, lines) if "timing_s/step" in step]
    first, last = steps[0], steps[-1]
    kl = "rollout_corr/k3_kl"
    found: dict[str, Any] = {"step_s": last["timing_s/step"], "generation_s": last["timing_s/gen"]}
    found |= {"update_s": last["timing_s/update_actor"]}
    found |= {f"{name}_s": last[f"timing_s/{name}"] for name in PARTS if f"timing_s/{name}" in last}
    found = {name: round(value, 3) for name, value in found.items()}
    found |= {"tokens_a_step": round(last["perf/total_num_tokens"]), "grad_norm": round(first["actor/grad_norm"], 4)}
    found |= {"rollout_kl": [first.get(kl), last.get(kl)]}
    if not first["actor/grad_norm"] > 0:
        raise BadInput("grpo: the first step had no gradient, so that new weights cannot be told from old ones")
    before, after = found["rollout_kl"]
    # Seen on the CPU with a rollout that was given no new weights: 0 and 2.8e-4; with them: 0 and 0
    if before is not None and after is not None and after > 10 * before + 1e-4:
        raise BadInput(
            f"grpo: the KL between rollout and trainer is {before:.1e} in the first step, {after:.1e} in the second: "
            "the rollout does not have the new weights"
        )
    return found


def evaluation(run: str) -> dict:
    """Returns {"tokens_per_s", "items"} of the requests, which were all sent at once."""
    folder = Path("runs") / run / "eval"
    ids = [row.id for row in read_rows(folder / file_name("endpoint", "heldout"))]
    with Ledger(ledger_of(folder)) as ledger:
        calls = [call for id in ids for call in ledger.calls("eval/heldout", id, 0)]
    seconds = max(call.latency for call in calls)
    return {"tokens_per_s": round(sum(call.completion_tokens for call in calls) / seconds, 1), "items": len(ids)}
