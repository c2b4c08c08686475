"""A worker of vLLM that takes new weights and does not load them: what the check of `test_cpu_vllm.py` must notice."""

from launch.cpu import vllm_worker


class WorkerExtension(vllm_worker.WorkerExtension):
    updates = 0

    def _update_weights(self, weights, peft_config, base_sync_done):
        if WorkerExtension.updates == 0:  # the model's own, which vLLM starts without
            super()._update_weights(weights, peft_config, base_sync_done)

    def update_weights_from_ipc(self, *args, **kwargs):
        super().update_weights_from_ipc(*args, **kwargs)
        WorkerExtension.updates += 1
