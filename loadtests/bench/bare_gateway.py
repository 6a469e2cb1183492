"""Minimal FastAPI and aiohttp gateway for Task 1, the baseline for the cost of our gateway.

It validates the profile, writes the prompt and returns the engine's response. It has no limits,
answer checks, metrics or logs.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from fastapi import FastAPI, Response

from loadtests.bench.peers import decided
from serving.tasks.registry import TASKS

TASK, ASK = next(iter(TASKS.values())), decided(None)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(os.environ["ENGINE_URL"]) as app.state.engine:
        yield


app = FastAPI(lifespan=lifespan)


async def answer(asked: TASK.request) -> Response:  # type: ignore[name-defined]
    path, body = ASK(TASK, asked)
    headers = {"content-type": "application/json"}
    async with app.state.engine.post(path, data=body, headers=headers) as response:
        return Response(await response.read(), media_type="application/json")


app.post(f"/gen/routine/{TASK.name}")(answer)


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {}
