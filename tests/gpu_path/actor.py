"""verl's own engine on one card: log-probabilities and backward of a micro batch, and a checkpoint. Without Ray.

    python -m tests.gpu_path.actor MODEL JOB.yaml ROWS TOKENS RESULT.json [CHECKPOINT]

JOB.yaml is the composed GRPO configuration (`python -m launch.grpo ... --cfg job`): its attention, packing and
precision are what is measured. Rows are of random tokens, all TOKENS long. RESULT.json holds seconds and memory.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

REPEATS = 2  # of each measurement; the first warms up


def make_engine(model: str, config: Any):
    """Returns verl's FSDP engine of the actor, initialised, in a world of one process."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    os.environ.setdefault("MASTER_PORT", "29517")
    from verl.utils.config import omega_conf_to_dataclass
    from verl.utils.device import get_device_name
    from verl.workers.config import HFModelConfig
    from verl.workers.engine import EngineRegistry

    backend = "cpu:gloo" if get_device_name() == "cpu" else "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend, rank=0, world_size=1)
    if get_device_name() == "cpu":  # as launch/cpu/rollout.py does, which imports Ray
        from verl.workers.engine.fsdp import FSDPEngineWithLMHead

        EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")(FSDPEngineWithLMHead)
    config.actor_rollout_ref.model.path = model
    described: Any = omega_conf_to_dataclass(config.actor_rollout_ref.model, HFModelConfig)
    actor: Any = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.engine.use_remove_padding = described.use_remove_padding
    actor.engine.use_fused_kernels = described.use_fused_kernels
    described.model_type = "language_model"
    made = EngineRegistry.new(
        model_type="language_model",
        backend=actor.strategy,
        model_config=described,
        engine_config=actor.engine,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
    )
    made.initialize()
    return made, described, actor


def rows_of(number: int, tokens: int, vocabulary: int, micro: int, packed: bool):
    """Returns verl's batch of `number` rows of random tokens, `micro` of them in a micro batch."""
    from verl.utils import tensordict_utils as tu
    from verl.utils.dataset.dataset_utils import DatasetPadMode
    from verl.utils.device import get_device_id

    torch.manual_seed(1)
    ids = [torch.randint(0, vocabulary, (tokens,)) for _ in range(number)]
    nested = {
        "input_ids": ids,
        "position_ids": [torch.arange(tokens) for _ in ids],
        "loss_mask": [torch.ones(tokens, dtype=torch.int64) for _ in ids],
    }
    tensors: dict[str, Any] = {
        name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for name, rows in nested.items()
    }
    settings = {
        "temperature": 1.0,
        "use_remove_padding": packed,
        "use_dynamic_bsz": False,
        "micro_batch_size_per_gpu": micro,
        "use_fused_kernels": False,
        "pad_mode": DatasetPadMode.NO_PADDING,
        "calculate_entropy": False,
        "global_batch_size": number,
    }
    return tu.get_tensordict(tensors, settings).to(get_device_id())


def loss_of(model_output, data, dp_group=None):
    """Returns the mean of the negative log-probabilities, as verl's losses return it."""
    return -model_output["log_probs"].values().mean(), {}


def measure(made, rows: int, tokens: int, vocabulary: int, micro: int, packed: bool) -> dict:
    """Returns {"log_prob_s", "backward_s", "peak_gib", "states_gib", "mean_log_prob"} of one micro batch."""
    from verl.utils.device import get_torch_device

    device = get_torch_device()
    found = {}
    for forward_only, mode in ((True, made.eval_mode), (False, made.train_mode)):
        with mode():
            if device.is_available():
                torch.cuda.reset_peak_memory_stats()
            found["states_gib"] = round(device.memory_allocated() / 2**30, 2)
            for _ in range(REPEATS):
                batch = rows_of(rows, tokens, vocabulary, micro, packed)
                device.synchronize()
                started = time.monotonic()
                output = made.forward_backward_batch(batch, loss_of, forward_only=forward_only)
                device.synchronize()
                seconds = time.monotonic() - started
            found["log_prob_s" if forward_only else "backward_s"] = round(seconds, 3)
            if forward_only:
                found["log_prob_peak_gib"] = round(device.max_memory_allocated() / 2**30, 2)
                found["mean_log_prob"] = float(output["model_output"]["log_probs"].values().float().mean())
            else:
                found["peak_gib"] = round(device.max_memory_allocated() / 2**30, 2)
                made.optimizer_zero_grad()
    return found


def main(argv: list[str]) -> None:
    model, job, rows, tokens, result = argv[0], argv[1], int(argv[2]), int(argv[3]), Path(argv[4])
    config: Any = OmegaConf.load(job)
    made, described, actor = make_engine(model, config)
    about = {
        "attention": described.hf_config._attn_implementation,
        "packed": described.use_remove_padding,
        "layers": described.hf_config.num_hidden_layers,
        "rows": rows,
        "tokens": tokens,
    }
    try:
        found = measure(made, rows, tokens, described.hf_config.vocab_size, rows, described.use_remove_padding)
    except torch.OutOfMemoryError as error:
        found = {"failed": str(error).splitlines()[0]}
    result.write_text(json.dumps(about | found) + "\n")
    print(json.dumps(about | found))
    if len(argv) > 5:
        made.save_checkpoint(argv[5], global_step=1)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
