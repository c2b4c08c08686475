"""A reward that fails as the reward_kwargs `fault` says; for tests of what a failed GRPO run tells.

It gives the right answer its due, so that the call before the start finds nothing.
"""

import importlib
import socket
import time
from pathlib import Path


def compute_score(data_source, solution_str, ground_truth, extra_info=None, fault="", value="", **recipes) -> float:
    if solution_str == str(ground_truth):
        return 1.0
    if fault == "raises":
        raise ValueError("planted: the reward cannot read this answer")
    if fault == "file":
        Path(value).read_text(encoding="utf-8")
    if fault == "port":
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", int(value)))
    if fault == "package":
        importlib.import_module("no_such_package_of_anybody")
    if fault == "pause" and not (marker := Path(value)).exists():
        marker.touch()
        time.sleep(300)
    return len(solution_str) % 5 / 5
