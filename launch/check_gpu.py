"""Says in minutes whether this machine can run the paper recipes: what can be asked, then every stage, small.

    python -m launch.check_gpu              on all cards that are seen; without one the same list small, on the CPU,
                                            and through vLLM where that is installed (hardware=cpu does without)
    python -m launch.check_gpu cards=4

A random Qwen2.5 of 0.6 billion weights, with a head of its own and the real vocabulary, goes through SFT, two steps of
GRPO, merge, server and ten questions, with the flags of recipe=psyche_r1. Each line is ok, failed (with cause and cure)
or "not tried" (with what is not here). Exit code 1 when one has failed. Writes runs/check_gpu/: a log of each part, the
stages' folders, and summary.json, whose MFU the dry runs take for their hours. Every call begins anew.
"""

import fcntl
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig
from rich.table import Table

from data_pipeline.errors import BadInput
from data_pipeline.records import read_jsonl
from launch.cli import arguments
from launch.cli.arguments import GRPO
from launch.cli.configuration import compose_stage
from launch.cli.entry import console, run_command
from launch.cli.words import parse_words
from launch.frameworks import vllm
from launch.models import tiny
from launch.preflight import gpu, machine, throughput
from launch.preflight.machine import FAILED, NOT_TRIED, OK, Line
from launch.reports import check_gpu as figures
from launch.running.child import Ended, call, end, last_words
from launch.running.folder import read_manifest
from launch.running.trainer import end_with_parent

RUN = "check_gpu"
FOLDER = Path("runs") / RUN
RECIPE = "psyche_r1"
QUESTIONS = Path("data_pipeline/samples/questions.jsonl")
LIMIT = 600  # seconds for one part: whoever waits longer has an answer too
ITEMS = 10  # of the evaluation
SFT_STEPS, GRPO_STEPS = 12, 2


def main(argv: list[str]) -> int:
    """Returns the exit code: 0 all ok or not tried, 1 something failed, 2 wrong input."""
    return run_command(check, __doc__, argv)


def check(argv: list[str]) -> int:
    given = parse_words(argv, "the check", ("hardware", "cards")).values
    hardware = given.get("hardware") or this_machine()
    words = [f"hardware={hardware}", *([f"cards={given['cards']}"] if "cards" in given else [])]
    composed = compose_stage(GRPO, arguments.parse(GRPO, [f"recipe={RECIPE}", *words, f"run={RUN}"]))
    if composed.trainer.device == "cuda":
        gpu.check_gpus(max(1, composed.cards), "cards")
    elif composed.actor_rollout_ref.rollout.name == "vllm":
        vllm.check_installed(f"hardware={hardware}", cpu=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("a") as lock:
        start_anew(lock)
        return Check(composed, words).run()


def this_machine() -> str:
    """Returns the hardware that shows most of this machine: "gpu", else "cpu_vllm" where vLLM runs without one."""
    hardware = arguments.detect_hardware()
    return "cpu_vllm" if hardware == "cpu" and vllm.is_for_cpu() else hardware


def start_anew(lock) -> None:
    """Deletes what an earlier check left; raises BadInput while one runs, and for a folder of somebody else."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise BadInput(f"{FOLDER}: another check is running; wait for it") from None
    old = [path for path in FOLDER.iterdir() if path.name != ".lock"]
    if old and not (FOLDER / "summary.json").is_file():
        raise BadInput(f"{FOLDER}: holds no summary.json, so it is not of this command; move it away")
    for path in old:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class Check:
    """One check: its lines, and the figures for summary.json."""

    def __init__(self, config: DictConfig, words: list[str]) -> None:
        """`config`: the GRPO stage's, composed for this machine; `words`: hardware= and cards= for every stage."""
        self.config, self.words = config, words
        self.on_gpu, self.cards = config.trainer.device == "cuda", config.cards
        self.with_vllm = config.actor_rollout_ref.rollout.name == "vllm"
        self.names = machine.names()[: config.cards] if self.on_gpu else []
        self.lines: list[Line] = []
        self.summary: dict = {"cards": len(self.names), "card": next(iter(self.names), None)}

    def run(self) -> int:
        """Runs every part; returns the exit code."""
        started = time.monotonic()
        self.save()
        for line in machine.ask(self.config):
            self.say(line)
        self.part("data", self.make_data)
        self.part("SFT", self.sft, ("llamafactory",), ("data",))
        self.part("GRPO", self.grpo, ("verl", "ray", *(["vllm"] if self.with_vllm else [])), ("SFT",))
        self.part("merge", self.merge, ("verl",), ("GRPO",))
        self.part("server, ten questions", self.evaluate, ("transformers",), ("SFT",))
        if not self.with_vllm:
            why = "hardware=cpu does without" if vllm.is_installed() else "no vllm here"
            self.say(Line("vLLM", NOT_TRIED, f"{why}: rollout and server were those of transformers"))
        if not self.on_gpu:
            self.say(Line("sleep and wake, full run", NOT_TRIED, "no GPU here"))
        self.summary["wall_s"] = round(time.monotonic() - started, 1)
        self.save()
        if self.on_gpu:
            self.full_run()
        return self.close()

    def say(self, line: Line) -> None:
        self.lines.append(line)
        console.print(f"  {line.name}: {line.state}")

    def part(self, name: str, do: Callable[[], str], needs: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> None:
        """Does one part and says how it went; one whose packages or predecessors are missing is not tried."""
        missing = [package for package in needs if importlib.util.find_spec(package) is None]
        broken = [line.name for line in self.lines if line.name in after and line.state != OK]
        if missing or broken:
            why = f"no {missing[0]} here" if missing else f"it begins where {broken[0]} ends"
            return self.say(Line(name, NOT_TRIED, why))
        started = time.monotonic()
        try:
            told, state = do(), OK
        except (BadInput, OSError, KeyError, ValueError) as error:
            told, state = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}", FAILED
        self.say(Line(name, state, f"{told} ({time.monotonic() - started:.0f} s)"))
        self.save()

    def stage(self, stage: str, words: list[str], watch: throughput.Watch | None = None) -> Ended:
        """Runs a stage to its end, its output in FOLDER/STAGE.log; raises BadInput with its own last words."""
        log = FOLDER / f"{stage}.log"
        with log.open("wb") as output:
            ended = call(stage, [*words, f"run={RUN}"], output=output, look=watch and watch.look, limit=LIMIT)
        if ended.late:
            raise BadInput(f"not done in {LIMIT} s, and ended; its log: {log}")
        if ended.code:
            raise BadInput(f"exit code {ended.code}: {last_words(log)}")
        return ended

    def make_data(self) -> str:
        """Makes rows of the questions that ship with the project; on GPUs with longer rationales."""
        rows = [row for _, row in read_jsonl(QUESTIONS)]
        source = FOLDER / "questions.jsonl"
        with source.open("w", encoding="utf-8") as file:
            for row in rows:
                longer = row["rationale"] * (4 if self.on_gpu else 1)
                file.write(json.dumps({**row, "rationale": longer}, ensure_ascii=False) + "\n")
        prompts = GRPO_STEPS * self.prompts
        if prompts > len(rows) // 2:
            raise BadInput(f"{self.cards} cards would need {prompts} prompts, and there are {len(rows)}; say cards=16")
        split = [f"split.grpo={prompts}", f"split.heldout={ITEMS}"]
        self.stage("data", [f"recipe={RECIPE}", "source=table", f"source_path={source}", *split])
        return f"{len(rows)} questions, {prompts} of them for GRPO, {ITEMS} for the evaluation"

    @property
    def prompts(self) -> int:
        """Prompts of a GRPO step: as many as make one of the recipe's micro batches on each card."""
        actor, rollout = self.config.actor_rollout_ref.actor, self.config.actor_rollout_ref.rollout
        return max(1, self.cards) * actor.ppo_micro_batch_size_per_gpu // rollout.n

    def sft(self) -> str:
        rows = 4 * max(1, self.cards)
        watch = throughput.Watch(FOLDER / "sft/model")
        shape = json.dumps(tiny.LARGE if self.on_gpu else tiny.SMALL)
        words = [f"recipe={RECIPE}", *self.words, f"base_model={tiny.RANDOM}", f"psyforge.random_model={shape}",
                 f"max_steps={SFT_STEPS}",
                 f"psyforge.total_train_batch_size={rows}", "logging_steps=1", "save_strategy=no",
                 "learning_rate=1.0e-3"]  # fmt: skip
        ended = self.stage("sft", words, watch)
        found = throughput.sft(RUN, watch, rows, self.names) | {"peak_gib": watch.peak(ended.peak)}
        self.summary["sft"] = found
        mfu = f", MFU {found['mfu']:.1%}" if "mfu" in found else ""
        loss = f"loss {found['loss_first']} -> {found['loss_last']}"
        return f"{found['tokens_per_s']:.0f} tokens/s{mfu}, peak {found['peak_gib']} GiB, {loss}"

    def grpo(self) -> str:
        watch = throughput.Watch()
        batch = [f"data.train_batch_size={self.prompts}", f"actor_rollout_ref.actor.ppo_mini_batch_size={self.prompts}"]
        words = [f"recipe={RECIPE}", *self.words, *batch, f"trainer.total_training_steps={GRPO_STEPS}",
                 f"trainer.save_freq={GRPO_STEPS}", "trainer.test_freq=-1", "trainer.val_before_train=false",
                 # so that weights move in one step, and each text has a reward of its own
                 "actor_rollout_ref.actor.optim.lr=1.0e-3", "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
                 "reward.custom_reward_function.path=launch/models/varied_reward.py"]  # fmt: skip
        if not self.on_gpu:
            words += ["data.max_response_length=48"]
        ended = self.stage("grpo", words, watch)
        found = figures.grpo(RUN)
        found["peak_gib"] = watch.peak(ended.peak)
        self.summary["grpo"] = found
        parts = ", ".join(f"{name} {found[f'{name}_s']}" for name in figures.PARTS if f"{name}_s" in found)
        before, after = (f"{value:.1e}" if value is not None else "unknown" for value in found["rollout_kl"])
        return (
            f"step of {found['step_s']} s ({parts}), peak {found['peak_gib']} GiB; KL between rollout "
            f"and trainer {before} and, with new weights, {after}" + ("; vLLM slept and woke" if self.on_gpu else "")
        )

    def merge(self) -> str:
        self.stage("merge", [])
        counts = (read_manifest(RUN, "merge") or {})["counts"]
        return f"log-probabilities differ by {counts['max_logprob_diff']:.1e} from the checkpoint's"

    def evaluate(self) -> str:
        """Serves the newest model and asks it ten questions."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        engine = "vllm" if self.with_vllm and vllm.is_installed() else "transformers"
        log, url = FOLDER / "serve.log", f"http://127.0.0.1:{port}/v1"
        argv = [sys.executable, "-m", "launch.serve", f"run={RUN}", f"engine={engine}", f"port={port}"]
        with log.open("wb") as output:
            server = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, preexec_fn=end_with_parent)
        try:
            wait_for(server, f"{url}/models", log)
            words = [f"recipe={RECIPE}", *self.words[:1], f"endpoint.base_url={url}", f"endpoint.model={RUN}"]
            self.stage("eval", [*words, f"max_new_tokens={512 if self.on_gpu else 48}"])
        finally:
            end(server)
        self.summary["eval"] = found = figures.evaluation(RUN)
        return f"{engine}: {found['items']} answers, {found['tokens_per_s']:.0f} tokens/s"

    def full_run(self) -> None:
        """Prints what the dry runs say of the paper recipe on this machine, with what has been measured here."""
        for stage in ("sft", "grpo", "eval"):
            argv = [sys.executable, "-m", f"launch.{stage}", f"recipe={RECIPE}", "run=full", "dry_run=true"]
            done = subprocess.run([*argv, *self.words[: 1 if stage == "eval" else 2]], capture_output=True, text=True)
            notes = [line[2:] for line in done.stdout.splitlines() if line.startswith("# ") and line != "# command:"]
            console.print(f"\nfull run, {stage}:", *(notes or [done.stderr.strip()]), sep="\n  ")

    def save(self) -> None:
        text = json.dumps({**self.summary, "lines": [vars(line) for line in self.lines]}, indent=2, ensure_ascii=False)
        (FOLDER / "summary.json").write_text(text + "\n", encoding="utf-8")

    def close(self) -> int:
        """Prints the table, deletes the models of a check in which all went well; returns the exit code."""
        table = Table("", "part", "", title=f"{RUN}: {self.summary['wall_s']:.0f} s")
        for line in self.lines:
            table.add_row(line.state, line.name, line.told)
        console.print(table)
        failed = [line.name for line in self.lines if line.state == FAILED]
        console.print(f"{FOLDER}/summary.json")
        if failed:
            console.print(f"failed: {', '.join(failed)}; logs and models are in {FOLDER}")
            return 1
        for folder in ("base", "sft/model", "grpo/checkpoints", "merge/model"):
            shutil.rmtree(FOLDER / folder, ignore_errors=True)
        return 0


def wait_for(server: subprocess.Popen, url: str, log: Path) -> None:
    """Returns when the server answers; raises BadInput when it ends before, or has not within LIMIT."""
    for _ in range(LIMIT * 2):
        if server.poll() is not None:
            raise BadInput(f"the server ended with {server.returncode}: {last_words(log)}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise BadInput(f"the server does not answer after {LIMIT} s; its log: {log}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
