"""vLLM's command: which flags it gets, and what is refused where vLLM is not. No vLLM is started or imported."""

import json
import re
import shlex
from pathlib import Path

import pytest

from data_pipeline.errors import BadInput
from eval.settings import settings
from launch.cli.configuration import CONF, as_dict, load_config
from launch.frameworks import vllm
from launch.models import answering, vllm_server
from launch.serve import Settings, check
from launch.serve import flags as serve_flags
from tests.conftest import REPOSITORY

ADDRESS = ("127.0.0.1", 8000)


@pytest.fixture(params=["cpu", "gpu"])
def build(request, monkeypatch) -> str:
    monkeypatch.setattr(vllm, "is_for_cpu", lambda: request.param == "cpu")
    return request.param


def flags(model: str = "MODEL", **given) -> list[str]:
    return vllm_server.command(model, "NAME", ADDRESS, given)[9:]


def test_decoding_is_what_is_asked_and_json_is_no_white_space(build):
    line = flags()
    assert line[:2] == ["--generation-config", "vllm"]  # not as the model's own file says
    assert line[2:4] == ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    assert ("--enforce-eager" in line) == ("--no-enable-chunked-prefill" in line) == (build == "cpu")
    environment = vllm_server.environment("MODEL")
    assert ("VLLM_USE_FLASHINFER_SAMPLER" in environment) == (build == "gpu")  # whose kernels need a CUDA toolkit
    assert environment["VLLM_NO_USAGE_STATS"] == "1"


def test_what_is_given_takes_the_place_of_ours(build):
    line = flags(generation_config="auto", enable_chunked_prefill=True, dtype=None, limit={"image": 0}, x=False, n=3)
    assert [line[i + 1] for i, word in enumerate(line) if word == "--generation-config"] == ["auto"]
    assert "--enable-chunked-prefill" in line and "--no-enable-chunked-prefill" not in line and "--dtype" not in line
    assert line[-5:] == ["--limit", '{"image": 0}', "--no-x", "--n", "3"]


def test_without_chunks_a_batch_holds_the_longest_prompt(monkeypatch, tmp_path):
    monkeypatch.setattr(vllm, "is_for_cpu", lambda: True)

    def batch(line: list[str]) -> int:
        return int(line[line.index("--max-num-batched-tokens") + 1])

    assert batch(flags("owner/name")) == 8192
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 32768}')
    assert batch(flags(str(tmp_path))) == 32768
    assert batch(flags(str(tmp_path), **{"max-model-len": 4096})) == 8192


def test_an_evaluation_spreads_copies_over_all_cards(monkeypatch):
    monkeypatch.setattr(vllm, "is_for_cpu", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    assert vllm_server.on_all_cards({}) == {"data-parallel-size": 8}
    assert vllm_server.on_all_cards({"tensor_parallel_size": 4})["data-parallel-size"] == 2
    assert vllm_server.on_all_cards({"tensor-parallel-size": 8}) == {"tensor-parallel-size": 8}
    assert vllm_server.on_all_cards({"data_parallel_size": 3}) == {"data-parallel-size": 3}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert vllm_server.on_all_cards({}) == {}


def serve(**given) -> Settings:
    conf = as_dict(load_config(CONF / "serve.yaml"))
    return Settings.model_validate({**conf, "base_model": "MODEL", "engine": "vllm", **given})


def test_replicas_are_vllms_own_data_parallel(monkeypatch):
    monkeypatch.setattr(vllm, "is_for_cpu", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    check(serve(replicas=4))
    check(serve(replicas=2, vllm={"tensor_parallel_size": 2}))
    line = vllm_server.command("MODEL", "NAME", ADDRESS, serve_flags(serve(replicas=4)))
    assert line[-2:] == ["--data-parallel-size", "4"] and "--data-parallel-size" not in flags(**serve_flags(serve()))
    for given, expected in (
        ({"replicas": 8}, "8 GPUs are needed, 1 each, and there are 4; say replicas=4"),
        ({"replicas": 4, "vllm": {"tensor-parallel-size": 2}}, "8 GPUs are needed, 2 each, .* say replicas=2"),
        ({"replicas": 2, "vllm": {"data_parallel_size": 2}}, "say the same; say one of them"),
        ({"replicas": 2, "engine": "transformers"}, "only vLLM has them; say engine=vllm"),
    ):
        with pytest.raises(BadInput, match=expected):
            check(serve(**given))
    check(serve(replicas=8, dry_run=True))


def test_the_recipe_for_a_server_of_ones_own_names_the_flags_that_serve_gives(monkeypatch):
    monkeypatch.setattr(vllm, "is_for_cpu", lambda: False)
    text = (REPOSITORY / "recipes/llm/vllm.yaml").read_text(encoding="utf-8")
    told = re.search(r"#   (vllm serve MODEL .*\n#     .*)", text)
    assert told
    argv = vllm_server.command("MODEL", "NAME", ADDRESS, {})
    assert shlex.split(told[1].replace("\n#", "")) == [Path(argv[0]).name, *argv[1:]]


def test_where_there_is_no_vllm_it_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(vllm, "is_installed", lambda: False)
    with pytest.raises(
        BadInput, match="engine=vllm: vLLM is not installed here; first: bash launch/install.sh cpu vllm"
    ):
        vllm.check_installed("engine=vllm", cpu=True)
    given = as_dict(load_config(CONF / "eval.yaml")) | {"run": "x"}
    assert answering.engine_of(settings(given)) == "transformers"
    with pytest.raises(BadInput, match="bash launch/install.sh"):
        answering.engine_of(settings(given | {"engine": "vllm"}))
    with pytest.raises(BadInput, match="engine='sglang'"):
        settings(given | {"engine": "sglang"})


def test_a_build_for_gpus_is_refused_for_a_cpu(monkeypatch):
    monkeypatch.setattr(vllm, "is_installed", lambda: True)
    monkeypatch.setattr(vllm, "version", lambda name: "0.24.0")
    with pytest.raises(BadInput, match="built for GPUs; .*bash launch/install.sh cpu vllm"):
        vllm.check_installed("actor_rollout_ref.rollout.name=vllm", cpu=True)


def test_heads_that_vllm_has_no_kernel_for_without_a_gpu_are_refused_before_it_starts(tmp_path):
    """It came up, and ended with the first request."""
    config = tmp_path / "config.json"
    for good in ({"hidden_size": 128, "num_attention_heads": 4}, {"head_dim": 128, "num_attention_heads": 16}, {}):
        config.write_text(json.dumps(good))
        vllm.check_heads(str(tmp_path), "model")
    vllm.check_heads("owner/name", "model")
    config.write_text(json.dumps({"hidden_size": 64, "num_attention_heads": 4}))
    with pytest.raises(BadInput, match=f"model={tmp_path}: its heads have 16 dimensions, .* 32, 64, .*hardware=cpu"):
        vllm.check_heads(str(tmp_path), "model")


def test_a_served_checkpoint_is_named_by_its_content():
    """The ledger answers for a model by its name: another model under the same path must have another one."""
    one = answering.served_name("sft", {"path": "runs/x/sft/model", "sha256": "a" * 64})
    other = answering.served_name("sft", {"path": "runs/x/sft/model", "sha256": "b" * 64})
    assert one != other and "/" not in one
    assert answering.served_name("base", {"path": "owner/name", "sha256": None}) == "owner/name"
