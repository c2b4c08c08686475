"""What people get wrong, through the real commands: a clear message, exit code 2, nothing half-written."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.models import tiny
from tests.conftest import TABLE, launch, refused
from tests.launch.frameworks.test_frameworks import SHAPE

GOOD = {"stem": "下列正确的是", "options": ["对", "错"], "answer": "A", "rationale": "因为对。"}


def data(name: str, path, *words: str, grpo: int = 1):
    split = ("split.heldout=0", f"split.grpo={grpo}")
    source = () if any(word.startswith("source=") for word in words) else ("source=table",)
    return launch("data", "recipe=demo", f"run={name}", *source, f"source_path={path}", *split, *words)


def jsonl(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def nothing_written(run_name):
    yield run_name
    assert not Path("runs", run_name).exists()


def test_a_missing_folder(nothing_written):
    refused(data(nothing_written, "/nowhere", "source=cpsyexam"), "/nowhere: no such file or folder")
    refused(data(nothing_written, "/nowhere/x.csv"), "/nowhere/x.csv: no such file")


def test_a_zip_that_is_not_one(nothing_written, tmp_path):
    (tmp_path / "cpsyexam.zip").write_text("not found")
    refused(data(nothing_written, tmp_path, "source=cpsyexam"), "not a zip file")


def test_broken_json_with_file_and_position(nothing_written, tmp_path):
    path = tmp_path / "t.json"
    path.write_text(f'[{json.dumps(GOOD)},\n{{"stem": "x", ]')
    refused(data(nothing_written, path), f"{path}: broken JSON at line 2, column")


def test_a_table_is_refused_with_a_mapping_that_can_be_pasted_and_works(run_name, tmp_path):
    path = tmp_path / "题 库.txt"
    path.write_bytes("题 面;选:一;选{二};正确'答案'\n下列正确的是;对;错;A\n".encode("gb18030"))
    message = refused(
        data(run_name, path), "no column 'stem' for stem; the columns are 题 面, 选:一, 选{二}, 正确'答案'"
    )
    hint = "".join(line.strip(" ") for line in message.split("such as ")[1].splitlines())
    assert hint.startswith("\"source_options={columns: {stem: '题 面', answer:"), hint
    words = shlex.split(hint)
    done = data(run_name, path, *words)
    assert done.returncode == 0, done.stderr
    (row,) = Path("runs", run_name, "data/questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert (json.loads(row)["options"], json.loads(row)["answer"]) == (["对", "错"], "A")
    shutil.rmtree(Path("runs", run_name))


def test_a_kind_is_explained_on_the_command_line_in_chinese(run_name, tmp_path):
    path = jsonl(tmp_path / "t.jsonl", {**GOOD, "kind": "配伍题"}, {**GOOD, "stem": "另一题"})
    assert data(run_name, path).returncode == 0
    (reject,) = Path("runs", run_name, "data/questions.rejects.jsonl").read_text(encoding="utf-8").splitlines()
    hint = json.loads(reject)["detail"].split("explain it: ")[1].split(", multi")[0]
    shutil.rmtree(Path("runs", run_name))
    done = data(run_name, path, *shlex.split(hint))
    assert done.returncode == 0 and Path("runs", run_name, "data/questions.rejects.jsonl").read_text() == "", (
        done.stderr
    )
    shutil.rmtree(Path("runs", run_name))


def test_a_table_without_the_mapped_column(nothing_written, tmp_path):
    path = jsonl(tmp_path / "t.jsonl", GOOD)
    refused(
        data(nothing_written, path, "source_options={columns: {stem: 题目}}"),
        "no column '题目' for stem",
        "stem, options",
    )
    refused(data(nothing_written, path, "source_options={colums: {}}"), "colums")
    refused(data(nothing_written, path, "source_options=题目"), "expected a dictionary")
    refused(data(nothing_written, path, "select=题目"), "expected a dictionary")


def test_a_data_set_that_is_empty_after_rejects(run_name, tmp_path):
    path = jsonl(tmp_path / "t.jsonl", {**GOOD, "answer": "C"}, {**GOOD, "answer": ""})
    told = ("no question left of 2", "1 x no answer", "beyond the options", "questions.rejects.jsonl")
    refused(data(run_name, path, "dry_run=true", grpo=0), *told[:3])
    assert not Path("runs", run_name).exists()
    refused(data(run_name, path, grpo=0), *told)
    rejects = Path("runs", run_name, "data/questions.rejects.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["where"] for line in rejects] == [f"{path} row 1", f"{path} row 2"]
    shutil.rmtree(Path("runs", run_name))


def test_an_option_letter_beyond_the_options_and_a_repeated_id_are_rejects_with_their_rows(run_name, tmp_path):
    first, beyond = {**GOOD, "id": "a"}, {**GOOD, "stem": "另一题", "answer": "C"}
    again = {**GOOD, "id": "a", "stem": "第四题"}
    path = jsonl(tmp_path / "题 库 (1).jsonl", first, beyond, {**GOOD, "stem": "第三题"}, again)
    done = data(run_name, path)
    assert done.returncode == 0, done.stderr
    rejects = [
        json.loads(line) for line in Path("runs", run_name, "data/questions.rejects.jsonl").read_text().splitlines()
    ]
    assert [(r["where"], r["code"], r["detail"]) for r in rejects] == [
        (f"{path} row 2", "the answer names a letter beyond the options", "C of C, options A to B"),
        (f"{path} row 4", "the id stands already",
         f"{path} row 1; columns: {{id: null}} numbers the rows where an id is of several"),
    ]  # fmt: skip
    counts = json.loads(Path("runs", run_name, "data/manifest.json").read_text())["counts"]
    assert (counts["in"], counts["out"], counts["rejected"]) == (4, 2, 2)
    refused(data(run_name, path, "seed=5"), "seed: 42 -> 5", "run=NAME")
    shutil.rmtree(Path("runs", run_name))


def test_a_benchmark_as_training_data(nothing_written, pceb):
    refused(data(nothing_written, pceb, "source=pceb"), "train_on_benchmark=true")


def test_a_path_that_the_source_does_not_read(nothing_written, tmp_path):
    path = jsonl(tmp_path / "t.jsonl", GOOD)
    refused(launch("data", "recipe=demo", f"run={nothing_written}", f"source_path={path}"), "source=table")


def test_names_that_are_none(nothing_written):
    refused(launch("data", "recipe=demo", "run=a/b"), "plain name")
    refused(launch("data", "recipe=demmo"), "Did you mean demo?")
    refused(launch("sft", "recipe=demo", "hardware=tpu"), "there is: cpu")
    refused(data(nothing_written, "x", "source=cpsyexm"), "Did you mean cpsyexam?")
    refused(data(nothing_written, "x", "split.helout=3"), "Did you mean split.heldout?")


def test_a_stage_without_the_one_before(nothing_written):
    refused(launch("sft", "recipe=demo", "hardware=cpu", f"run={nothing_written}"), "the data stage has not run")
    refused(launch("grpo", "recipe=demo", "hardware=cpu", f"run={nothing_written}"), "the data stage has not run")


def test_models_that_cannot_be_trained(run_name, tmp_path):
    assert launch("data", "recipe=demo", *TABLE, f"run={run_name}").returncode == 0
    words = ("recipe=demo", "hardware=cpu", f"run={run_name}")
    refused(launch("sft", *words, f"base_model={tmp_path / 'none'}"), "no such folder, and not the ID of a model")
    model = tmp_path / "模型 (1)"
    tiny.make(model, ["心理学" * 9], 1, {**SHAPE, "vocab_size": 300})
    (model / "chat_template.jinja").unlink()
    refused(launch("sft", *words, f"base_model={model}"), "no chat template")
    (model / "tokenizer.json").unlink()
    refused(launch("grpo", *words, f"base_model={model}"), "no tokenizer")
    message = refused(
        launch("grpo", *words, f"base_model={model}", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=7")
    )
    assert "ppo_micro_batch_size_per_gpu=7" in message and "nearest" in message
    assert sorted(p.name for p in Path("runs", run_name).iterdir()) == ["data"]
    shutil.rmtree(Path("runs", run_name))


def test_a_table_without_rationales_cannot_be_sft_rows(run_name, tmp_path):
    path = jsonl(tmp_path / "t.jsonl", *({**GOOD, "stem": f"第{i}题", "rationale": ""} for i in range(4)))
    assert data(run_name, path).returncode == 0
    refused(
        launch("sft", "recipe=demo", "hardware=cpu", f"run={run_name}"), "no question has a rationale", "base_model="
    )
    shutil.rmtree(Path("runs", run_name))


def test_a_runs_folder_that_cannot_be_written(monkeypatch, tmp_path):
    """In a copy of the code, since runs/ of this checkout may hold runs."""
    copied(tmp_path, "launch", "data_pipeline", "reward", "eval", "recipes")
    (tmp_path / "runs").write_text("a file in its place")
    done = subprocess.run(
        [sys.executable, "-m", "launch.data", "recipe=demo"], cwd=tmp_path, capture_output=True, text=True
    )
    refused(done, "cannot write there")


def copied(tmp_path, *rooms: str) -> Path:
    """A copy of the code in which a test may change a file."""
    for room in rooms:
        shutil.copytree(room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_recipe_without_a_seed_or_with_a_wrong_value(tmp_path):
    here = copied(tmp_path, "launch", "data_pipeline", "reward", "eval", "recipes")
    recipe = here / "recipes/psyche_r1/sft.yaml"
    published = recipe.read_text()
    line = [sys.executable, "-m", "launch.sft", "recipe=psyche_r1_lora", "hardware=gpu8", "dry_run=true"]
    for change, told in (
        (("seed: 42 # published", ""), "seed has no value"),
        (("template: qwen #", "template: qwen25 #"), "template=qwen25: LLaMA-Factory takes one of 121 names"),
    ):
        recipe.write_text(published.replace(*change))
        assert recipe.read_text() != published
        said = refused(subprocess.run(line, cwd=here, capture_output=True, text=True), told)
    assert "Did you mean qwen" in said and said.endswith("(recipes/psyche_r1/sft.yaml)\n")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("{multi_rule: half}", "multi_rule='half': known are strict, subset, jaccard"),
        ("{formt_weight: 0.2}", "formt_weight"),
    ],
)
def test_reward_kwargs_that_the_reward_does_not_take(run_name, word, expected):
    assert launch("data", "recipe=demo", *TABLE, f"run={run_name}").returncode == 0
    model = Path("runs", run_name, "m")
    tiny.make(model, ["心理学" * 9], 1, {**SHAPE, "vocab_size": 300})
    kwargs = f"reward.custom_reward_function.reward_kwargs={word}"
    refused(launch("grpo", "recipe=demo", "hardware=cpu", f"run={run_name}", f"base_model={model}", kwargs), expected)
    shutil.rmtree(Path("runs", run_name))


def test_a_judge_without_its_key(run_name):
    assert launch("data", "recipe=demo", *TABLE, f"run={run_name}").returncode == 0
    model = Path("runs", run_name, "m")
    tiny.make(model, ["心理学" * 9], 1, {**SHAPE, "vocab_size": 300})
    judge = "{judge: {base_url: https://api.example.org/v1, model: m, api_key_env: NO_SUCH_KEY}}"
    function = "reward.custom_reward_function"
    refused(launch("grpo", "recipe=demo", "hardware=cpu", f"run={run_name}", f"base_model={model}",
                   f"{function}.path=reward/judge.py", f"{function}.reward_kwargs={judge}"),
            "NO_SUCH_KEY is not set")  # fmt: skip
    shutil.rmtree(Path("runs", run_name))


def test_a_change_under_a_started_grpo_run_is_refused(tmp_path):
    """One byte of the data, one value of the recipe, one source file of the reward; an own edit of the manifest."""
    here = copied(tmp_path, "launch", "data_pipeline", "reward", "eval", "recipes")
    tiny.make(here / "m", ["心理学" * 9], 1, {**SHAPE, "vocab_size": 300})
    words = ["recipe=demo", "hardware=cpu", "base_model=./m"]

    def run(stage: str, *more: str):
        line = [sys.executable, "-m", f"launch.{stage}", *words[: 3 if stage == "grpo" else 1], *more]
        return subprocess.run(line, cwd=here, capture_output=True, text=True)

    assert run("data").returncode == 0
    started = subprocess.Popen([sys.executable, "-m", "launch.grpo", *words], cwd=here, stdout=subprocess.DEVNULL)
    manifest = here / "runs/demo/grpo/manifest.json"
    while not manifest.exists() and started.poll() is None:
        time.sleep(0.05)
    started.kill()
    started.wait()
    (here / "runs/demo/grpo/train.log").touch()  # as the start of the trainer leaves it
    for path, says in ((here / "reward/answer.py", "input reward: reward changed"),
                       (here / "runs/demo/data/grpo_train.parquet", "grpo_train.parquet changed"),
                       (here / "m/tokenizer_config.json", "input model")):  # fmt: skip
        before = path.read_bytes()
        if path.suffix == ".parquet":  # the writer's name in the footer: still the same rows
            path.write_bytes(before.replace(b"parquet-cpp-arrow", b"Parquet-cpp-arrow"))
        else:
            path.write_bytes(before + b"\n")
        assert path.read_bytes() != before
        refused(run("grpo"), says, "resume=force")
        path.write_bytes(before)
    refused(run("grpo", "actor_rollout_ref.actor.kl_loss_coef=0.5"), "kl_loss_coef", "resume=force")
    manifest.write_text(manifest.read_text().replace('"seed": 42', '"seed": 43'))
    refused(run("grpo"), "edited")


def test_a_ray_address_that_does_not_answer(run_name):
    assert launch("data", "recipe=demo", *TABLE, f"run={run_name}").returncode == 0
    model = Path("runs", run_name, "m")
    tiny.make(model, ["心理学" * 9], 1, {**SHAPE, "vocab_size": 300})
    for address in ("127.0.0.1:9", "10.255.255.1:6379"):  # nobody, and an address of no host
        done = launch("grpo", "recipe=demo", "hardware=cpu", f"run={run_name}", f"base_model={model}",
                      env={**os.environ, "RAY_ADDRESS": address})  # fmt: skip
        refused(done, f"RAY_ADDRESS={address}", "no Ray cluster answers there")
    assert not Path("runs", run_name, "grpo").exists()
    shutil.rmtree(Path("runs", run_name))


def test_more_gpus_than_there_are(run_name):
    from launch.cli.arguments import count_gpus

    if count_gpus() >= 8:
        pytest.skip("this machine has eight GPUs")
    assert launch("data", "recipe=demo", *TABLE, f"run={run_name}").returncode == 0
    refused(launch("sft", "recipe=psyche_r1", "hardware=gpu8", f"run={run_name}"), "cards=8", "GPUs")
    actor = "actor_rollout_ref.actor"
    small = ("data.train_batch_size=16", f"{actor}.ppo_mini_batch_size=16", "base_model=owner/name")  # 16 prompts
    message = refused(launch("grpo", "recipe=psyche_r1", "hardware=gpu8", f"run={run_name}", *small,
                             f"{actor}.ppo_micro_batch_size_per_gpu=10",
                             "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=10",
                             "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=10"))  # fmt: skip
    assert "cards=8" in message
    shutil.rmtree(Path("runs", run_name))


def test_what_is_refused_before_a_trainer_starts_protects_nothing(run_name, tmp_path):
    """A reward that raises, and a limit that cuts every row; the corrected command then goes on in the same folder."""
    assert launch("data", "recipe=demo", *TABLE, f"run={run_name}").returncode == 0
    model = tmp_path / "m"
    tiny.make(model, ["心理学" * 9], 1, {**SHAPE, "vocab_size": 300})
    reward = tmp_path / "mine.py"
    reward.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info):\n    return extra_info['x']\n"
    )
    words = ("recipe=demo", "hardware=cpu", f"run={run_name}", f"base_model={model}")
    grpo = launch("grpo", *words, f"reward.custom_reward_function.path={reward}")
    message = refused(grpo, f"path={reward}: TypeError: got an unexpected keyword argument 'format_weight'")
    cure = shlex.split(message.split("leave the recipe's own out with ")[1])
    grpo = launch("grpo", *words, f"reward.custom_reward_function.path={reward}", *cure)
    refused(grpo, f"path={reward} line 2: KeyError: 'x', when it was called once")
    agents = "actor_rollout_ref.rollout.agent.agent_loop_config_path=/nowhere/l.yaml"
    refused(launch("grpo", *words, agents), f"{agents}: no such file")
    refused(launch("sft", *words[:3], "deepspeed=/nowhere/z.json"), "deepspeed=/nowhere/z.json: no such file")
    for limit in (8, 9):
        refused(
            launch("grpo", *words, f"data.max_prompt_length={limit}"), "every row is longer (the shortest has", "say"
        )
        sft = launch("sft", *words[:3], f"cutoff_len={limit}")
        message = refused(sft, f"cutoff_len={limit}: every row is longer (the shortest has")
    cure = message.split("say ")[1].strip()
    done = launch("sft", *words[:3], cure, "dataset_dir=/nowhere")  # the right length; stops at the next thing
    assert "exists with another configuration" not in done.stderr and done.returncode == 2
    clash = launch("sft", *words[:3], cure, "mask_history=true", "train_on_prompt=true")
    assert clash.returncode == 1 and "Traceback" not in clash.stdout + clash.stderr
    assert "together: `mask_history` is incompatible with `train_on_prompt`" in clash.stderr
    shutil.rmtree(Path("runs", run_name))
