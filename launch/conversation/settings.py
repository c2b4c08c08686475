"""The settings of a conversation, launch/conf/chat.yaml, checked before anything is loaded or asked."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_pipeline.errors import BadInput
from data_pipeline.llm.server import Server, server_from
from data_pipeline.prompts import prompt_text
from launch.cli.configuration import Text
from launch.models.find import Checkpoint
from launch.models.reasoning import Sampling


class Conversation(BaseModel):
    """The keys, as the file comments on them; keys that it does not know are refused when they are composed."""

    model_config = ConfigDict(frozen=True, strict=True)

    run: Text
    checkpoint: Checkpoint | None
    base_model: Text | None
    dry_run: bool
    seed: int | None = Field(ge=0, lt=2**63)
    language: Literal["zh", "en"]
    system: Text | None
    prefix: Text | None
    temperature: float = Field(ge=0, le=2)
    top_p: float = Field(ge=0.001, le=1)
    top_k: int | None = Field(ge=0)
    repetition_penalty: float | None = Field(gt=0, le=2)
    max_new_tokens: int = Field(ge=1, le=10**6)
    thoughts: Literal["shown", "hidden"]
    keep_thoughts: bool
    think_prefilled: bool
    chat_template_kwargs: dict[str, Any]
    once: bool
    message: Text | None
    country: Text
    helplines: Any  # data_pipeline/safety/helplines.py checks them
    endpoint: dict[str, Any]
    guard: dict[str, Any]

    @model_validator(mode="after")
    def _fits(self) -> "Conversation":
        if self.message is not None and not self.once:
            raise BadInput("message= goes with once=true; without it, messages come from standard input")
        for key in ("system", "prefix"):
            prompt_text(getattr(self, key), key)
        for key in ("endpoint", "guard"):
            self.server(key)
        return self

    def server(self, key: Literal["endpoint", "guard"]) -> Server | None:
        """Returns the server, called "?" while its model is not known, None without a base_url; or raises BadInput."""
        settings = getattr(self, key)
        if isinstance(settings["base_url"], list):
            raise BadInput(f"{key}.base_url={settings['base_url']}: who talks in turns talks to one server; name one")
        return server_from({**settings, "model": settings["model"] or "?"}, key) if settings["base_url"] else None

    def sampling(self) -> Sampling:
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, self.top_k, self.repetition_penalty)
