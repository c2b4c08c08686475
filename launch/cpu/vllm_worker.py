"""What verl's vLLM rollout needs without a GPU: linear layers that keep their weights, so that new ones can be loaded.

When a model is loaded vLLM packs the weights of its linear layers for oneDNN and drops the originals; verl's weight
update then finds nothing to write to. recipes/hardware/cpu_vllm/grpo.yaml names this class to vLLM's workers. For vLLM
0.28 and verl 0.9.1.
"""

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from vllm.model_executor.layers import utils


def _plain_linear(layer: torch.nn.Module, remove_weight: bool) -> None:
    setattr(layer, "cpu_linear", torch.nn.functional.linear)  # noqa: B010  (typed, a Module holds tensors and modules)


utils.dispatch_cpu_unquantized_gemm = _plain_linear


class WorkerExtension(vLLMColocateWorkerExtension):
    """verl's own; what counts is that this module is imported before the model is loaded."""
