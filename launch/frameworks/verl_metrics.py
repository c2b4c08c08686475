"""A step's metrics are written before its checkpoint is, so that no kill leaves a checkpoint without them.

verl 0.9.1 saves the checkpoint first, validates, and logs then: killed in between, it goes on from the next step, and
metrics.jsonl has a gap. They stand in before_checkpoint.N.jsonl beside verl's own metrics.N.jsonl, whose lines take
their place where there are any (`verl.collect_metrics`).
"""

import time
from pathlib import Path
from typing import Any

import orjson

NAME = "before_checkpoint"


def before_checkpoints(trainer: Any) -> None:
    """Makes the class of verl's trainers log a step that ends with a checkpoint before that is saved."""
    step = trainer.step

    def step_told(self: Any, metrics: dict, timing_raw: dict) -> Any:
        begun = time.monotonic()
        batch = step(self, metrics, timing_raw)
        every, last = self.config.trainer.save_freq, self.global_steps >= self.total_training_steps
        file = self.logger.logger.get("file")
        if file is not None and every > 0 and (last or self.global_steps % every == 0):
            told, timing = dict(metrics), {**timing_raw, "step": time.monotonic() - begun}
            epoch = (self.global_steps - 1) // self.steps_per_epoch
            self._compute_metrics(batch, told, timing, global_steps=self.global_steps, epoch=epoch)
            own = Path(file.filepath)
            with own.with_name(own.name.replace("metrics", NAME)).open("ab") as beside:
                line = {"step": self.global_steps, "data": told}
                beside.write(b"\n" + orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY))  # behind a cut line, too
        return batch

    trainer.step = step_told
