"""Where a synthesis runs, as its configuration says; what the choice needs is imported with it."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from data_pipeline.synthesis.apply import Executor
from data_pipeline.synthesis.configuration import READS, Configuration


def here(making: Configuration) -> Configuration:
    """Returns the configuration with sources at an address (s3://...) copied to this machine, where they changed."""
    update = {}
    for name, source in making.sources().items():
        if "://" in source.path:
            from launch.executors import storage  # pyarrow's file systems: nobody else needs them

            copy = storage.copy_out(source.path, Path("runs") / making.run / "inputs" / READS[name])
            update[READS[name]] = source.model_copy(update={"path": str(copy)}).model_dump()
    return making.model_copy(update=update)


def executor(making: Configuration, folder: Path) -> AbstractContextManager[Executor | None]:
    """Returns where the steps that ask nobody are applied, None for the processes of this machine."""
    if making.executor == "machine":
        return nullcontext()
    from launch.executors import ray  # which takes a second

    return ray.connected(folder, making.shared)
