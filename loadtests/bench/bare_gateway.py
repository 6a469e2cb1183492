"""The least that FastAPI and aiohttp can do for Task 1.

It validates the profile, writes the prompt and passes on what the engine answers; it limits,
checks, counts and logs nothing. What our gateway costs is measured against it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from fastapi import FastAPI, Response

from loadtests.bench.peers import decided
from serving.contract.profile import Profile
from serving.contract.tasks import TASKS

RATE, ASK = TASKS["rate"], decided(None)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(os.environ["ENGINE_URL"]) as app.state.engine:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/gen/routine/rate")
async def rate(profile: Profile) -> Response:
    path, body = ASK(RATE, profile)
    headers = {"content-type": "application/json"}
    async with app.state.engine.post(path, data=body, headers=headers) as response:
        return Response(await response.read(), media_type="application/json")


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {}
