"""A reward that fails as the reward_kwargs `fault` says; for tests of what a failed GRPO run tells."""

import importlib
import socket


def compute_score(data_source, solution_str, ground_truth, extra_info=None, fault="", port=0, **recipes) -> float:
    if fault == "raises":
        raise ValueError("planted: the reward cannot read this answer")
    if fault == "port":
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
    if fault == "package":
        importlib.import_module("no_such_package_of_anybody")
    return len(solution_str) % 5 / 5
