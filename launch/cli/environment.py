"""Which environment variables a recipe may read, `${oc.env:NAME,DEFAULT}`: those of this list, which hold no secret.

What a recipe reads is written into config.yaml and printed, so that a key would stand there.
"""

import os
from typing import Any

from omegaconf import OmegaConf

from data_pipeline.errors import BadInput
from data_pipeline.safety.credentials import leaves

READABLE = ("HF_HUB_OFFLINE", "HF_HOME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID",
            "SLURM_JOB_NUM_NODES", "TMPDIR", "SCRATCH")  # fmt: skip
_NOTHING = object()


def readable(name: str, default: Any = _NOTHING) -> Any:
    """Returns the variable's value, else the default; raises BadInput for one that is not on the list, or not set."""
    if name not in READABLE:
        raise BadInput(
            f"${{oc.env:{name}}}: a recipe reads no environment variable but {', '.join(READABLE)}; say the value "
            "itself, and name the variable of a key by api_key_env"
        )
    value = os.environ.get(name, default)
    if value is _NOTHING:
        raise BadInput(
            f"${{oc.env:{name}}}: the variable is not set; set it, or give a default, ${{oc.env:{name},VALUE}}"
        )
    return None if value is None else str(value)


def check_plain(settings: dict) -> None:
    """Raises BadInput for a text that a framework would take for an interpolation, and read what it likes."""
    for key, value in leaves(settings):
        if isinstance(value, str) and "${" in value:
            raise BadInput(f"{key}: holds ${{...}} as a text, which a framework would read as its own; say the value")


OmegaConf.register_new_resolver("oc.env", readable, replace=True)
