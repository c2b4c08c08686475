"""FSDP2 on the CPU and a Hugging Face `generate` rollout for verl 0.9.1.

Loaded by actor_rollout_ref.model.external_lib=launch.cpu.rollout with actor_rollout_ref.rollout.name=hf. One server
per worker holds full weights; concurrent requests of the agent loop are coalesced into batches.
"""

import asyncio
import os
import zlib
from typing import Any

import ray
import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import FSDPEngineWithLMHead, transformer_impl
from verl.workers.rollout.base import _ROLLOUT_REGISTRY, BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")(FSDPEngineWithLMHead)
# verl offloads the frozen reference model with pinned memory, which needs an accelerator.
transformer_impl.CPUOffloadPolicy = lambda pin_memory: None  # pyright: ignore[reportPrivateImportUsage]

GATHER_SECONDS = 0.05  # a batch is closed when no request has come for so long


def _server_name(replica_rank: int) -> str:
    return f"hf_server_{replica_rank}"


@ray.remote(num_cpus=0)
class HFServer:
    """Tokens in, tokens and log-probabilities out."""

    def __init__(self, config, model_config, replica_rank: int):
        self.config = config
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            model_config.path, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
        ).eval()
        ends = self.model.generation_config.eos_token_id or self.model.config.eos_token_id
        self.ends = ends if isinstance(ends, list) else [ends]
        self.replica_rank = replica_rank
        self.global_steps = None
        self.batches = 0  # since the last weight update
        self.queue = asyncio.Queue()
        self.serving = None

    def ready(self) -> bool:
        return True

    async def generate(self, prompt_ids, sampling_params, request_id, **multimodal) -> TokenOutput:
        if given := sorted(name for name, value in multimodal.items() if value is not None):
            raise ValueError(f"the hf rollout is for text only, got {given}")
        if self.serving is None:
            self.serving = asyncio.create_task(self._serve())
        answer = asyncio.get_running_loop().create_future()
        await self.queue.put((list(prompt_ids), tuple(sorted(sampling_params.items())), answer))
        return await answer

    async def _serve(self) -> None:
        while True:
            requests = [await self.queue.get()]
            while True:
                try:
                    requests.append(await asyncio.wait_for(self.queue.get(), GATHER_SECONDS))
                except TimeoutError:
                    break
            groups = {}
            for request in sorted(requests, key=lambda r: r[0]):
                groups.setdefault(request[1], []).append(request)
            for params, group in groups.items():
                for start in range(0, len(group), self.config.max_num_seqs):
                    await self._answer(group[start : start + self.config.max_num_seqs], dict(params))

    async def _answer(self, requests: list, params: dict) -> None:
        try:
            outputs = await asyncio.to_thread(self._generate, [prompt for prompt, _, _ in requests], params)
        except Exception as error:  # whoever waits gets it
            for _, _, answer in requests:
                answer.set_exception(error)
        else:
            for (_, _, answer), output in zip(requests, outputs, strict=True):
                answer.set_result(output)

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]], params: dict) -> list[TokenOutput]:
        room = self.config.prompt_length + self.config.response_length
        limit = params.get("max_tokens") or params.get("max_new_tokens") or self.config.response_length
        limits = [min(limit, self.config.response_length, room - len(prompt)) for prompt in prompts]
        # never one seed twice: two replicas, or two batches, may hold prompts of one GRPO group, and equal samples
        # have no advantage
        self.batches += 1
        seed = (self.config.seed, self.replica_rank, self.global_steps, self.batches)
        torch.manual_seed(zlib.crc32(repr(seed).encode()))
        width, pad = max(map(len, prompts)), self.ends[0]
        temperature = params.get("temperature", 1.0)
        sampling: dict[str, Any] = {"do_sample": False}  # said, or the model's generation_config.json would say it
        if temperature > 0:
            top_k = max(params.get("top_k", 0), 0)
            sampling = {
                "do_sample": True,
                "temperature": temperature,
                "top_p": params.get("top_p", 1.0),
                "top_k": top_k,
            }
        wants_log_probs = bool(params.get("logprobs"))
        output = self.model.generate(
            input_ids=torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts]),
            attention_mask=torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
            generation_config=GenerationConfig(
                max_new_tokens=max(limits),
                repetition_penalty=params.get("repetition_penalty", 1.0),
                eos_token_id=self.ends,
                pad_token_id=pad,
                cache_implementation="static",  # a growing one is copied at every token
                return_dict_in_generate=True,
                output_scores=wants_log_probs,
                **sampling,
            ),
        )
        tokens = output.sequences[:, width:].tolist()
        log_probs = [None] * len(prompts)
        if wants_log_probs:
            log_probs = self.model.compute_transition_scores(
                output.sequences, output.scores, normalize_logits=True
            ).tolist()
        results = []
        for ids, probs, limit in zip(tokens, log_probs, limits, strict=True):
            stop = min(next((i + 1 for i, token in enumerate(ids) if token in self.ends), limit), limit)
            results.append(
                TokenOutput(
                    token_ids=ids[:stop],
                    log_probs=probs[:stop] if probs else None,
                    stop_reason="completed",
                    extra_fields={"global_steps": self.global_steps},
                )
            )
        return results

    async def update_weights(self, state: dict, global_steps: int) -> None:
        self.model.load_state_dict(state)  # strict: a missing tensor must not leave old weights behind
        self.global_steps, self.batches = global_steps, 0

    async def _nothing(self, *args, **kwargs) -> None:
        return None  # there is no cache to free on a CPU; the trainers call these around every weight update

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = _nothing


class HFReplica(RolloutReplica):
    async def launch_servers(self) -> None:
        name = _server_name(self.replica_rank)
        server: Any = HFServer.options(name=name, max_concurrency=self.max_concurrency).remote(
            self.config, self.model_config, self.replica_rank
        )
        await server.ready.remote()
        self.servers = [server]
        self._server_handle, self._server_address = server, name


class HFServerAdapter(BaseRollout):
    """Lives in the trainer's process; hands its gathered weights to this rank's server."""

    def __init__(self, config, model_config, device_mesh, replica_rank: int = -1):
        super().__init__(config, model_config, device_mesh)
        if config.tensor_model_parallel_size != 1:
            raise ValueError("the hf rollout needs actor_rollout_ref.rollout.tensor_model_parallel_size=1")
        self.replica_rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank
        self.is_leader_rank = True

    async def resume(self, tags) -> None:
        pass

    async def release(self) -> None:
        pass

    async def update_weights(self, weights, wire_format="named_tensors", global_steps=None, peft_config=None, **kwargs):
        if wire_format != "named_tensors" or peft_config is not None:
            raise ValueError(
                "the hf rollout takes full weights only; for LoRA set actor_rollout_ref.model.lora.merge=true"
            )
        # clones: the actor updates its parameters in place while the object store may still read them
        state = {name: tensor.detach().to("cpu", torch.float32).clone() for name, tensor in weights}
        server: Any = ray.get_actor(_server_name(self.replica_rank))
        await server.update_weights.remote(state, global_steps)


RolloutReplicaRegistry.register("hf", lambda: HFReplica)
_ROLLOUT_REGISTRY[("hf", "async")] = f"{__name__}.HFServerAdapter"
