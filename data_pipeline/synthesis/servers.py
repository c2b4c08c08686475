"""Whom the steps ask: a server each, several for the selectors, or recorded replies."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import recorded

ASKING = ("generate_questions", "filter_quality", "write_rationales", "rewrite_empathy", "select_challenging",
          "plan_dialogue", "write_dialogue", "reason_reply", "validate_dialogue")  # fmt: skip


def askers(config: DictConfig, ledger: Path, wanted: set[str]) -> dict:
    """Returns {"main": Ask or None, "selectors": {name: Ask}, "models": {step: Ask}, "servers": {step: Server}}, whom
    the steps ask that ask one server; raises BadInput for wrong settings of a server. Those of a selector, and of a
    step under `models`, stand over those of `llm`.
    """
    base = llm_settings(config)
    if base is None or not config.selectors:
        if "select_challenging" in wanted:
            missing = "selectors is empty: name one" if base else "llm is not named: say llm=openai, vllm or deepseek"
            raise BadInput(f"select_challenging asks selector models, but {missing} (recipes/llm/)")
    if base is None:
        return {"main": None, "selectors": {}, "models": {}, "servers": {}}
    if "replies" in base:
        ask = recorded.asker(Path(base["replies"]))
        return {"main": ask, "selectors": dict.fromkeys(config.selectors or (), ask), "models": {}, "servers": {}}

    def servers(key: str) -> dict[str, llm.Server]:
        own = plain(config[key]) if config[key] else {}
        return {name: llm.server_from({**base, **(more or {})}, f"{key}.{name}") for name, more in own.items()}

    def asks(named: dict[str, llm.Server]) -> dict:
        return {name: llm.asker(server, ledger, name, config.budget) for name, server in named.items()}

    main, own = llm.server_from(base, "llm"), servers("models")
    return {
        "main": asks({"data": main})["data"],
        "selectors": asks(servers("selectors")),
        "models": asks(own),
        "servers": {step: own.get(step, main) for step in ASKING if step != "select_challenging"},
    }


def plain(config: DictConfig) -> dict[str, Any]:
    """Returns a part of the configuration that is a mapping, resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def llm_settings(config: DictConfig) -> dict | None:
    """Returns who is asked: {"replies": folder}, or a server's settings; None when nobody is named.

    A server named on the command line takes the place of the recorded replies that a recipe names.
    """
    base = plain(config.llm) if config.llm else None
    if base and base.get("base_url"):
        base.pop("replies", None)
    return base
