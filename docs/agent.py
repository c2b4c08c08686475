"""An agent behind an OpenAI-compatible address, evaluated like a model. Put your own into `reply`.

AGENT_BASE_URL=http://127.0.0.1:8000/v1 AGENT_MODEL=NAME .venv/bin/uvicorn --app-dir docs agent:app --port 8100

AGENT_BASE_URL is the server of the model that the agent asks, by default the one that `python -m launch.serve` starts.
"""

# ruff: noqa: INP001 - a script, no package
import os
from typing import Any

import openai
from fastapi import FastAPI

app = FastAPI()
model = openai.AsyncOpenAI(
    base_url=os.environ.get("AGENT_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("AGENT_API_KEY", "none"),
    max_retries=0,
)


async def ask(system: str, messages: list[Any]) -> str:
    told: list[Any] = [{"role": "system", "content": system}, *(m for m in messages if m["role"] != "system")]
    answer = await model.chat.completions.create(model=os.environ["AGENT_MODEL"], messages=told)
    return answer.choices[0].message.content or ""


async def reply(messages: list[Any]) -> str:
    """Returns what the agent says to the conversation so far, the client's words last: it plans first, then speaks."""
    plan = await ask("你是咨询督导。用一句话写出：来访者现在怎样，下一步咨询师该做什么。", messages)
    return await ask(f"你是心理咨询师。督导的提示：{plan}。只说你要对来访者说的话。", messages)


@app.post("/v1/chat/completions")
async def complete(body: dict) -> dict:
    message = {"role": "assistant", "content": await reply(body["messages"])}
    return {"model": body["model"], "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
