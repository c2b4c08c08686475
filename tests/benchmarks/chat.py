"""Seconds from a message to the first text of its answer, after start-up, beside transformers' own streamer.

python -m tests.benchmarks.chat [ROUNDS]

Both load the same tiny model, say that they are ready, read a message from a pipe and stream the answer; transformers'
side has generated a token before, as `launch.chat` does at its start. The bar: the first text within 2 s on CPU.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.launch import tiny_model

PEER = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModelForCausalLM.from_pretrained(sys.argv[1])

def answer(text, **more):
    chat = [{"role": "user", "content": text}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    model.generate(**inputs, do_sample=True, **more)

answer("你好", max_new_tokens=1)
print("ready", file=sys.stderr, flush=True)
answer(sys.stdin.readline(), max_new_tokens=80, streamer=TextStreamer(tokenizer, skip_prompt=True))
"""


def seconds(line: list[str]) -> float:
    """Returns the seconds from a message, sent when the command is ready, to the first of its answer."""
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin and process.stdout and process.stderr
        told = ""
        while not any(sign in told for sign in ("ready", "研究用工具")):
            told = process.stderr.readline().decode()
            assert told, "it ended before it was ready"
        begun = time.perf_counter()
        process.stdin.write("什么是记忆？\n".encode())
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100)
        waited = time.perf_counter() - begun
        process.kill()
    return waited


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        model = str(tiny_model.make(Path(folder)))
        ours = [sys.executable, "-m", "launch.chat", f"base_model={model}", "recipe=demo"]
        peer = [sys.executable, "-c", PEER, model]
        times = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    first, beside = (median(column) for column in zip(*times, strict=True))
    print(
        f"first text after {first:.2f} s (bar 2 s), transformers' streamer {beside:.2f} s, {first / beside:.2f} of it"
    )
