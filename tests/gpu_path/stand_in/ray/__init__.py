"""Stands in for Ray where it is not installed, so that verl's modules import; whatever is really asked of it fails.

For a machine that takes no more than 60 MiB of files, since Ray's wheel alone is larger: tests/gpu_path/lent.py puts
it last on the PYTHONPATH of what imports verl.
"""

from typing import Any

__version__ = "0.0.0"


class ObjectRef:
    """A name for annotations and isinstance."""


def is_initialized() -> bool:
    return False


def remote(*given: Any, **options: Any) -> Any:
    """Leaves a class or function as it is."""
    return given[0] if given and not options else lambda decorated: decorated


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_, **__):
        raise RuntimeError(f"ray.{name}: Ray is not installed here; this is a stand-in for imports")

    return missing
