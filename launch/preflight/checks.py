"""What is checked before a trainer starts, so that a wrong path or a cut row costs seconds and not a night."""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig

from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.export.llama_factory import check_messages
from data_pipeline.records import read_jsonl
from launch.cli import arguments
from launch.cli.moved import python_tree
from launch.models.find import parameters

INPUTS = (".yaml", ".yml", ".json", ".jinja", ".py", ".parquet")  # endings of files that trainers read
NOT_THE_TRAINERS = ("psyforge", "reward_kwargs")  # ours, and what a reward makes of its own


def check_memory_on_cpu(model: str, key: str) -> None:
    """Raises BadInput when full training of the model cannot fit into this machine's memory.

    16 bytes per parameter: weights, gradient and two AdamW states in fp32, before activations.
    """
    count = parameters(model)
    memory = psutil.virtual_memory().total
    if count and 16 * count > memory:
        raise BadInput(
            f"{key}={model}: training {count / 1e9:.1f}B parameters takes about {16 * count / 2**30:.0f} GiB, and this "
            f"machine has {memory / 2**30:.0f} GiB and {arguments.count_gpus()} GPUs. The paper recipes are made for "
            "hardware=gpu8; what runs here is recipe=demo, or a small base_model="
        )


def check_ray(address: str, key: str, seconds: float = 5) -> None:
    """Raises BadInput unless a Ray cluster answers at HOST:PORT: `seconds` for the port, twice as many for Ray."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise BadInput(f"{key}={address}: expected HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=seconds).close()
        asked = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=2 * seconds, stdin=subprocess.DEVNULL)
        fault = answer.stderr.strip().splitlines()[-1:] if answer.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        fault = [str(error) if isinstance(error, OSError) else f"something listens, but no Ray in {2 * seconds:g} s"]
    if fault is not None:
        raise BadInput(
            f"{key}={address}: no Ray cluster answers there ({''.join(fault)}); start Ray (`ray start --head`), set "
            f"the RAY_AUTH_MODE that it was started with, or unset {key}"
        )


def check_fused_kernels(part: DictConfig, strategy: str, tied: bool) -> None:
    """Raises BadInput for fused kernels under FSDP2 and a head of its own: verl 0.9.1 then multiplies a tensor by the
    sharded head, and torch refuses in the first update ("got mixed torch.Tensor and DTensor").
    """
    if part.use_fused_kernels and strategy == "fsdp2" and not tied:
        raise BadInput(
            "actor_rollout_ref.model.use_fused_kernels=true: fails in verl 0.9.1 with FSDP2 and a model whose head is "
            "not tied to its embeddings, such as this one; say actor_rollout_ref.model.use_fused_kernels=false, and "
            "actor_rollout_ref.model.use_liger=true for other fused kernels"
        )


def check_ray_cpus(config: DictConfig) -> None:
    """Raises BadInput when Ray started here would have too few logical CPUs, and so wait for ever.

    verl takes three for each worker, one for each storage of its transfer queue, one each for the queue's controller
    and its own driver (read in verl 0.9.1); placing any other actor needs one that is free.
    """
    storages = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    needed = 3 * config.trainer.n_gpus_per_node + storages + 3
    there = config.ray_kwargs.ray_init.num_cpus or os.cpu_count() or 1
    if there < needed:
        raise BadInput(
            f"ray_kwargs.ray_init.num_cpus={there}: verl reserves {needed} of Ray's CPUs and would wait for ever; they "
            f"are logical, so say ray_kwargs.ray_init.num_cpus={needed}"
        )


def check_port_free(port: str, key: str) -> None:
    """Raises BadInput unless this machine can listen on the port, where the nodes of a training meet."""
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise BadInput(f"{key}={port}: must be a port number, 1 to 65535")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", int(port)))
        except OSError as error:
            raise BadInput(f"{key}={port}: {error.strerror}; set another {key} on all nodes") from None


def check_working_dir(repository: Path) -> None:
    """Raises BadInput inside the copy that `ray job submit --working-dir` makes, which Ray deletes with all results,
    and under a path that `datasets`, with which both frameworks read their rows, takes for a pattern.
    """
    if signs := sorted(set("[]*?") & set(str(repository))):
        raise BadInput(
            f"{repository}: the library `datasets` takes {' '.join(signs)} in a path for a pattern and finds no rows; "
            "move the repository to a path without them, and install it there anew: bash launch/install.sh cpu (or gpu)"
        )
    if "working_dir_files" in repository.parts:
        raise BadInput(
            f"{repository}: a copy of the working directory that Ray deletes after the job, results included, and that "
            "holds no runs/. Submit without --working-dir: ray job submit -- bash -c 'cd REPOSITORY && "
            ".venv/bin/python -m launch.grpo ...', with REPOSITORY on a file system that the cluster sees"
        )


def token_lengths(tokenizer, conversations: list[list[dict]], generation_prompt: bool = False) -> list[int]:
    """Returns the number of tokens of each conversation, rendered with the model's chat template."""
    if not conversations:
        return []
    texts = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=generation_prompt)
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def read_sft_rows(folder: Path, dataset: str) -> list[tuple[str, dict]]:
    """Returns (file and line, row) of every row of our data set; raises BadInput for what LLaMA-Factory would drop."""
    path = folder / f"{dataset}.jsonl"
    seen, rows = {}, []
    for number, row in read_jsonl(path):
        where = f"{path} line {number}"
        check_messages(row.get("messages"), where)
        if (id := row.get("id")) is not None:
            if id in seen:
                raise BadInput(f"{where}: the id {id!r} stands already on line {seen[id]}; ids must be unique")
            seen[id] = number
        rows.append((where, row))
    return rows


def read_grpo_rows(path: Path) -> list[dict]:
    """Returns the rows of a GRPO parquet file; raises BadInput when it is missing, broken or of another shape."""
    import pyarrow.parquet  # here, so that a dry run stays quick

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; first: python -m launch.data") from None
    except pyarrow.ArrowException as error:
        raise BadInput(f"{path}: not a parquet file ({error})") from None
    for key in ("data_source", "prompt", "reward_model"):
        if rows and key not in rows[0]:
            raise BadInput(f"{path}: no column {key!r}, which verl needs; it has {', '.join(rows[0])}")
    return rows


def cut_rows(lengths: list[int], limit: int, names: list[str], key: str) -> list[str]:
    """Returns lines that say how long the rows are and which ones `limit` would cut; BadInput when it cuts them all."""
    if not lengths:
        return []
    longest = max(lengths)
    notes = [f"token lengths: mean {sum(lengths) / len(lengths):.0f}, longest {longest}, {key}={limit}"]
    cut = [name for name, length in zip(names, lengths, strict=True) if length > limit]
    if len(cut) == len(lengths):
        raise BadInput(
            f"{key}={limit}: every row is longer (the shortest has {min(lengths)} tokens, the longest {longest}), and "
            f"would lose its end; say {key}={longest}"
        )
    if cut:
        shown = ", ".join(cut[:5]) + (f" and {len(cut) - 5} more" if len(cut) > 5 else "")
        notes.append(f"WARNING: {len(cut)} of {len(lengths)} rows are longer and lose their end: {shown}; raise {key}")
    return notes


def check_inputs(settings: dict[str, Any], prefix: str = "") -> None:
    """Raises BadInput for a setting of the trainer that names a file to be read, by its ending, which is not there."""
    for name, value in settings.items():
        if name in NOT_THE_TRAINERS:
            continue
        if isinstance(value, dict):
            check_inputs(value, f"{prefix}{name}.")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and "://" not in one and Path(one).suffix in INPUTS and not Path(one).exists():
                raise BadInput(f"{prefix}{name}={one}: no such file")


def check_defines(file: Path, name: str, key: str) -> None:
    """Raises BadInput unless the Python file defines or imports the function `name`; runs nothing of it."""
    tree, defined = python_tree(file, f"{key}.path"), set()
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    if name not in defined:
        there = sorted(word for word in functions if not word.startswith("_"))
        raise BadInput(
            f"{key}.name={name}: {file} has {', '.join(there) or 'no function'}{did_you_mean(name, [*there, *defined])}"
        )
