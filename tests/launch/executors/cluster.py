"""A Ray cluster of several nodes on this machine, each started by `ray start` and ended by its own handle."""

import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}

WAIT = 240  # seconds: on a busy machine a node takes minutes to start


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port: int) -> None:
    for _ in range(WAIT * 4):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.25)
    raise TimeoutError(f"nothing listens at port {port}")


class Cluster:
    """A head that takes no work, and the nodes that `add` starts; `folder` is for logs, and where the nodes run."""

    def __init__(self, folder: Path, dashboard: int | None = None) -> None:
        self.folder, self.port, self.nodes = folder, free_port(), []
        more = [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"] if dashboard else []
        self.dashboard = dashboard
        words = ["--head", f"--port={self.port}", f"--include-dashboard={str(bool(dashboard)).lower()}", *more]
        self.head = self._start(*words, "--num-cpus=0")
        wait_for(dashboard or self.port)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self, *words: str, **options) -> subprocess.Popen:
        """Returns a node with one CPU, which may not have joined yet."""
        self.nodes.append(self._start(f"--address={self.address}", "--num-cpus=1", *words, **options))
        return self.nodes[-1]

    def wait(self, nodes: int) -> None:
        """Returns when so many nodes are there, the head among them."""
        import ray

        with ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR):
            for _ in range(WAIT * 4):
                if sum(node["Alive"] for node in ray.nodes()) >= nodes:
                    return
                time.sleep(0.25)
        raise TimeoutError(f"{nodes} nodes did not come")

    def _start(self, *words: str, **options) -> subprocess.Popen:
        ray = str(Path(sys.executable).with_name("ray"))
        line = [
            sys.executable,
            ray,
            "start",
            "--block",
            "--node-ip-address=127.0.0.1",
            "--object-store-memory=80000000",
        ]
        options = {"cwd": self.folder, "env": {**os.environ, **ENVIRONMENT}} | options
        with open(self.folder / f"ray-{len(self.nodes)}.log", "ab") as log:
            return subprocess.Popen([*line, *words], stdout=log, stderr=log, **options)


def kill(node: subprocess.Popen) -> None:
    """Ends a node at once, its workers too, as a machine does that loses its power."""
    kill_tree(node.pid)
    node.wait(30)


def kill_tree(pid: int) -> None:
    """Ends a process and its children, if they are still there."""
    try:
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            one.kill()
    except psutil.NoSuchProcess:
        pass


def submit(dashboard: str, job: str, env: dict[str, str]) -> subprocess.CompletedProcess:
    """Runs a shell command as `ray job submit`, asked again as long as no node is ready to take jobs."""
    ray = str(Path(sys.executable).with_name("ray"))
    line = [sys.executable, ray, "job", "submit", "--address", dashboard, "--", "bash", "-c", job]
    for _ in range(WAIT):
        done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=600)
        if "No available agent" not in done.stderr + done.stdout:
            break
        time.sleep(1)
    return done


@contextmanager
def cluster(folder: Path, nodes: int = 2, **options):
    """Gives a cluster of a head and so many nodes; ends it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Cluster(folder, **options)
    try:
        for number in range(nodes):
            made.add()
            made.wait(2 + number)
        yield made
    finally:
        for one in (*made.nodes, made.head):
            if one.poll() is None:
                kill(one)
