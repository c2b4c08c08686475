"""verl's trainer with a look at Ray's actors beside it: a dead one ends the run, where verl may wait for it for ever.

    python -m launch.frameworks.verl_driver --config-path FOLDER --config-name verl   # as launch/grpo.py starts it

What counts is a fact, that Ray has lost the process of an actor, never how long a step takes: Ray's own record says why
an actor is gone. verl itself is told of it in most cases, and then says more; hence the wait. For Ray 2.60, verl 0.9.1.
"""

import os
import sys
import threading
import time
from typing import Any

WAIT = 60.0  # seconds that verl has to end by itself once an actor is dead
SHOWN = 200  # characters of Ray's reason
LOOK = 5.0  # seconds between two looks


def dead_actors() -> dict[str, str]:
    """Returns {actor id: what died and why} of actors whose process or node was lost; those that verl ended are none.

    In the driver's process only, once Ray is initialised.
    """
    from ray._private import state
    from ray.core.generated import common_pb2

    died_of = common_pb2.ActorDiedErrorContext  # pyright: ignore[reportAttributeAccessIssue]
    lost = (died_of.WORKER_DIED, died_of.NODE_DIED)
    dead = {}
    for id, actor in state.actors().items():
        cause = actor["DeathCause"]
        died, kind = cause.actor_died_error_context, cause.WhichOneof("context")
        if actor["State"] != "DEAD" or not (kind == "oom_context" or died.reason in lost):
            continue
        why = cause.oom_context.error_message if kind == "oom_context" else died.error_message
        name = f"{actor['ActorClassName']} (pid {actor['Pid']}, {actor['Address']['IPAddress'] or 'its node is gone'})"
        dead[id] = f"{name}: {' '.join(why.split())[:SHOWN]}"
    return dead


def watch() -> None:
    """Ends this process with code 1 when an actor has been dead for WAIT seconds; the last line says which and why."""
    import ray

    since: dict[str, float] = {}
    while True:
        time.sleep(LOOK)
        if not ray.is_initialized():
            continue
        dead = dead_actors()
        now = time.monotonic()
        since = {id: since.get(id, now) for id in dead}
        if late := [id for id, first in since.items() if now - first >= WAIT]:
            sys.stdout.flush()
            told = f"ActorDiedError: a worker is dead and verl waits for it: {dead[late[0]]}"
            print(told, file=sys.stderr, flush=True)
            os._exit(1)  # the main thread waits inside Ray; what this process has started ends with it


def main() -> None:
    threading.Thread(target=watch, daemon=True).start()
    import ray
    from verl.trainer import main_ppo

    remote: Any = main_ppo.TaskRunnerV1

    class Runner(remote.__ray_metadata__.modified_class):
        """verl's own, in whose process the trainer is; see launch/frameworks/verl_metrics.py."""

        def run(self, config):
            from verl.trainer.ppo.v1 import PPOTrainer

            from launch.frameworks.verl_metrics import before_checkpoints

            before_checkpoints(PPOTrainer)
            super().run(config)

    main_ppo.TaskRunnerV1 = ray.remote(Runner)
    main_ppo.main()


if __name__ == "__main__":
    main()
