"""Responses of a model to a set of items: asked of whatever generates them, stored, and read back to score again.

One row per response: id, sample, cell, kind, subject, question, key, read, response, reasoning, finish, tokens,
prompt_tokens, error, and its scores.
"""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from data_pipeline import llm
from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.prompts import question_messages, render
from data_pipeline.records import Response, read_jsonl, write_jsonl
from eval import benchmarks, metrics
from eval.benchmarks import cpsyexam, heldout
from eval.items import Item, Loaded, match

# (conversations, ids of their items, samples of each, temperature, top_p) -> the samples of each, in order
Generate = Callable[[list[list[dict]], list[str], int, float, float], list[list[Response]]]
SETTINGS = {"file", "benchmark", "path", "options", "samples", "temperature", "top_p"}


def load_set(name: str, asked: DictConfig, data: Path) -> tuple[object, Loaded]:
    """Returns (module with `score`, what it loaded) of one set; raises BadInput for settings that fit no benchmark."""
    key = f"sets.{name}"
    if odd := sorted(set(asked) - SETTINGS):
        raise BadInput(f"{key}: unknown {', '.join(odd)}; known are {', '.join(sorted(SETTINGS))}")
    if not name.replace("_", "").replace("-", "").isalnum():
        raise BadInput(f"{key}: a set's name has letters, digits, '_' and '-'; it becomes part of a file's name")
    if ("file" in asked) == ("benchmark" in asked):
        raise BadInput(f"{key}: takes either file= (of the data stage) or benchmark= with path=")
    samples = asked.get("samples", 1)
    if not isinstance(samples, int) or samples < 1:
        raise BadInput(f"{key}.samples={samples}: must be a positive whole number")
    if "file" in asked:
        return heldout, heldout.load(data / asked.file)
    names = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name != "heldout"]
    if asked.benchmark not in names:
        hint = did_you_mean(asked.benchmark, names)
        raise BadInput(f"{key}.benchmark={asked.benchmark}: there is {', '.join(names)}{hint}")
    module = importlib.import_module(f"eval.benchmarks.{asked.benchmark}")
    try:
        return module, module.load(asked.path, **(_plain(asked.options) if asked.get("options") else {}))
    except TypeError as error:
        raise BadInput(
            f"{key}.options: {str(error).replace('load() ', '')} (eval/benchmarks/{asked.benchmark})"
        ) from None


def _plain(config: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config))


def server(settings: DictConfig, key: str) -> llm.Server | None:
    """Returns the server that `settings` describe, None without a base_url; raises BadInput for wrong settings."""
    return llm.server_from(_plain(settings), key) if settings.base_url else None


def ask(items: list[Item], asked: DictConfig, generate: Generate) -> list[list[Response]]:
    """Returns the samples of every item, as `generate` gives them."""
    conversations = [question_messages(item.question, item.shots) for item in items]
    samples, temperature, top_p = asked.get("samples", 1), asked.get("temperature", 0.0), asked.get("top_p", 1.0)
    return generate(conversations, [item.question.id for item in items], samples, temperature, top_p)


def judge(
    items: list[Item],
    responses: list[list[Response]],
    judge_server: llm.Server | None,
    ledger: Path,
    name: str,
    seed: int,
) -> list[list[float | None]] | None:
    """Returns the judge's scores (0..100, None where unreadable or failed) of open items, None without a judge."""
    if judge_server is None or not any(item.question.kind == "open" for item in items):
        return None
    requests, places = [], []
    for n, (item, samples) in enumerate(zip(items, responses, strict=True)):
        for k, response in enumerate(samples):
            q, answer = item.question, metrics.answer_part(response)
            if q.kind == "open" and answer:
                text = render("judge_exam_answer", subject=q.subject, family=q.meta.get("family"), question=q.stem,
                              reference=q.reference, answer=answer)  # fmt: skip
                params = {"temperature": 0, "max_tokens": 1024, "seed": seed}
                requests.append(llm.Request(f"judge/{name}", q.id, k, [{"role": "user", "content": text}], params))
                places.append((n, k))
    scores: list[list[float | None]] = [[None] * len(samples) for samples in responses]
    for (n, k), reply in zip(places, llm.run_all(judge_server, requests, ledger, f"judging {name}"), strict=True):
        scores[n][k] = cpsyexam.read_judgement(reply.text) if reply.finish != "failed" else None
    return scores


def store(path: Path, items: list[Item], responses: list[list[Response]], config: DictConfig) -> list[dict]:
    """Writes one row per response with its reading and scores, and returns the rows."""
    rows = []
    for item, samples in zip(items, responses, strict=True):
        q = item.question
        for number, r in enumerate(samples):
            scored = metrics.score_response(q, r, config.elastic_rule, config.think_prefilled)
            rows.append({"id": q.id, "sample": number, "cell": item.cell, "kind": q.kind, "subject": q.subject,
                         "question": question_messages(q)[-1]["content"], "key": q.answer or q.reference,
                         "response": r.text, "reasoning": r.reasoning, "finish": r.finish, "tokens": r.tokens,
                         "prompt_tokens": r.prompt_tokens, "error": r.error, **scored})  # fmt: skip
    write_jsonl(path, rows)
    return rows


def stored(path: Path, items: list[Item]) -> list[list[Response]]:
    """Returns the responses of a file that `store` wrote, in the order of the items.

    Raises BadInput for a row of another shape, an id that no item has, and an item without all its responses.
    """
    by_id: dict[str, list[Response]] = {}
    for number, row in read_jsonl(path):
        try:
            response = Response(
                row["response"], row["finish"], row["tokens"], row["reasoning"], row["prompt_tokens"], row["error"]
            )
            by_id.setdefault(row["id"], []).append(response)
        except KeyError as error:
            raise BadInput(f"{path} line {number}: no key {error}; not a response of this version") from None
    try:
        return match(items, by_id)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
