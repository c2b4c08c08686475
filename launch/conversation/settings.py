"""The settings of a conversation, checked before anything is loaded or asked."""

from omegaconf import DictConfig

from data_pipeline.errors import BadInput
from data_pipeline.llm.server import Server, server_from
from data_pipeline.prompts import prompt_text
from launch.cli.configuration import as_dict
from launch.models.find import CHECKPOINTS


def check(config: DictConfig) -> None:
    """Raises BadInput for a value that cannot be."""
    for key, kind, least, most in (
        ("temperature", (int, float), 0, 2),
        ("top_p", (int, float), 0.001, 1),
        ("max_new_tokens", int, 1, 10**6),
        ("seed", int, 0, 2**32),
    ):
        value = config[key]
        if value is None and key == "seed":
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            raise BadInput(f"{key}={value}: a {'whole ' * (kind is int)}number from {least} to {most}")
    for key, known in (("thoughts", ("shown", "hidden")), ("language", ("zh", "en")), ("checkpoint", CHECKPOINTS)):
        if config[key] not in known and not (key == "checkpoint" and config[key] is None):
            raise BadInput(f"{key}={config[key]}: known are {', '.join(known)}")
    for key in ("once", "keep_thoughts", "think_prefilled", "dry_run"):
        if not isinstance(config[key], bool):
            raise BadInput(f"{key}={config[key]}: true or false")
    if config.message is not None and not config.once:
        raise BadInput("message= goes with once=true; without it, messages come from standard input")
    for key in ("system", "prefix"):
        prompt_text(config[key], key)
    for key in ("endpoint", "guard"):
        if config[key].base_url:
            described(config[key], key)


def described(settings: DictConfig, key: str) -> Server:
    """Returns the server of `settings`, called "?" while its model is not known; raises BadInput for wrong ones."""
    return server_from({**as_dict(settings), "model": settings.model or "?"}, key)
