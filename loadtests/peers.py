"""What the benchmark compares, how each is started, and how it is asked.

Every peer has the same weights, adapters, machine and prompts. The vLLM peers are started with our
own engine's command line and environment, less what is ours: the drafter, the Outlines backend with
our constraint, our LoRA and batches on CPU.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from loadtests.stack import MARK, ROOT, Stack, free_port, served
from serving.contract.lock import Lock
from serving.contract.output import OutputError
from serving.contract.pieces import encode
from serving.contract.tasks import Task

ENGINE = "-m serving.engine.serve"
"""What the command line of our engine's API server has."""
NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": 5,
    "prompt_lookup_min": 1,
    "prompt_lookup_max": 4,
}
"""The fastest of five that were tried: 5, 8 and 16 tokens, matches of 1 to 3 tokens at least."""


WHOLE_TOKENS = 1536
"""More than a whole answer takes."""


@dataclass(frozen=True)
class Peer:
    """One way to answer."""

    name: str
    """A key of ``WORDS``."""
    url: str
    metrics: str | None
    """Where the engine's counters are; None where the answer itself counts tokens."""
    body: Callable[[Task, Any], tuple[str, bytes]]
    """From task and request to path and body."""
    correct: Callable[[Task, Any, Mapping[str, Any]], bool]
    """Whether an answer to the request is complete and breaks no rule."""
    memory: Callable[[], int] | None = None
    """Bytes that all its processes take now; None where nobody asks."""


def whole(schema: bool) -> Callable[[Task, Any], tuple[str, bytes]]:
    """Ask the adapter for the whole answer, constrained to its JSON schema or not at all."""

    def body(task: Task, request: Any) -> tuple[str, bytes]:
        output = task.output(request)
        asked: dict[str, Any] = {
            "model": task.name,
            "prompt": task.prompt(request),
            "max_tokens": WHOLE_TOKENS,
            "temperature": 0,
        }
        if schema:
            asked["structured_outputs"] = {"json": output.model.model_json_schema()}
        return "/v1/completions", json.dumps(asked).encode()

    return body


def decided(model: str | None) -> Callable[[Task, Any], tuple[str, bytes]]:
    """Ask our engine for the decided part, as the gateway does; None asks the task's adapter."""

    def body(task: Task, request: Any) -> tuple[str, bytes]:
        output = task.output(request)
        asked = {
            "model": model or task.name,
            "prompt": task.prompt(request) + output.head,
            "max_tokens": output.max_new_tokens,
            "temperature": 0,
            "structured_outputs": {"regex": output.decided_regex},
        }
        return "/v1/completions", json.dumps(asked).encode()

    return body


def routed(task: Task, request: Any) -> tuple[str, bytes]:
    """Ask the gateway."""
    return f"/gen/routine/{task.name}", request.model_dump_json().encode()


def whole_correct(task: Task, request: Any, answer: Mapping[str, Any]) -> bool:
    """Whether the text that a model wrote makes an answer that breaks no rule."""
    output = task.output(request)
    try:
        values = output.parse(encode(json.loads(answer["choices"][0]["text"])))
    except (ValueError, OutputError):
        return False
    return not task.check(request, json.loads(task.render(request, values)))


def decided_correct(task: Task, request: Any, answer: Mapping[str, Any]) -> bool:
    """The same for the decided part."""
    try:
        values = task.output(request).read(answer["choices"][0]["text"])
    except OutputError:
        return False
    return not task.check(request, json.loads(task.render(request, values)))


def routed_correct(task: Task, request: Any, answer: Mapping[str, Any]) -> bool:
    """Whether the gateway's answer breaks no rule."""
    return "error" not in answer and not task.check(request, answer)


@dataclass(frozen=True)
class Model:
    """What is served."""

    base: Path
    adapters: Path
    variables: Mapping[str, str]
    """For our stack's environment, and so for every vLLM peer's."""


@contextmanager
def ours(model: Model, log: Path, variables: Mapping[str, str]) -> Iterator[Stack]:
    """Our whole service."""
    folders = {"MODEL": str(model.base), "ADAPTERS": str(model.adapters)}
    stack = Stack.start(log, ROOT, **folders, **model.variables, **variables)
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.kill()


@contextmanager
def healthy(
    command: list[str], environment: Mapping[str, str], port: int, log: Path
) -> Iterator[str]:
    """A server's address once it is healthy, until the block ends."""
    url = f"http://127.0.0.1:{port}"
    with served(command, f"{url}/health", log, environment):
        yield url


@contextmanager
def plain_vllm(stack: Stack, log: Path, options: list[str], plugins: str) -> Iterator[str]:
    """vLLM as our engine starts it, less drafter and Outlines, with ``options``.

    Args:
        stack: the running service whose engine's command line and environment are taken.
        log: file for its output.
        options: further ones.
        plugins: VLLM_PLUGINS; empty for none.
    """
    engine, port = psutil.Process(stack.pid_of(ENGINE)), free_port()
    command, left_out = [], iter(engine.cmdline())
    for word in left_out:
        if word in ("--speculative-config", "--structured-outputs-config.backend", "--port"):
            next(left_out)
        else:
            command.append(word)
    environment = {**engine.environ(), "VLLM_PLUGINS": plugins}
    del environment[MARK]  # it is no part of that service
    with healthy([*command, "--port", str(port), *options], environment, port, log) as url:
        yield url


def dtype_of(stack: Stack) -> str:
    """The arithmetic that its engine has chosen for this machine."""
    command = psutil.Process(stack.pid_of(ENGINE)).cmdline()
    return command[command.index("--dtype") + 1]


@contextmanager
def first_version(model: Model, log: Path, precision: str) -> Iterator[str]:
    """Hugging Face generate and PEFT behind FastAPI."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "loadtests.first_version"]
    command += ["--base", str(model.base), "--adapters", str(model.adapters)]
    command += ["--dtype", precision, "--port", str(port)]
    with healthy(command, {**os.environ, "HF_HUB_OFFLINE": "1"}, port, log) as url:
        yield url


WORDS = {
    "transformers": "Hugging Face generate + PEFT",
    "vllm": "vLLM, JSON schema",
    "vllm-lora": "vLLM, JSON schema, our LoRA and batches",
    "ngram": "vLLM, JSON schema, n-gram speculation",
    "ngram-lora": "vLLM, JSON schema, n-gram speculation, our LoRA and batches",
    "ours": "ours",
    "engine": "our engine, without the gateway",
    "adapter": "our engine, adapter",
    "base": "our engine, no adapter",
    "bfloat16": "ours, bfloat16",
    "float32": "ours, float32",
}
"""The peers, in the order of tables."""
STACKS: Mapping[str, Mapping[str, str]] = {
    "ours": {},
    "bfloat16": {"ENGINE_DTYPE": "bfloat16"},
    "float32": {"ENGINE_DTYPE": "float32"},
}
"""Our whole services, and what is set for each."""
ENGINES = {"engine": "ours", "adapter": "ours", "base": "ours"}
"""Their engines asked directly."""


def start(names: Sequence[str], model: Model, logs: Path, running: ExitStack) -> list[Peer]:
    """Start what ``names`` of ``WORDS`` need; ``running`` stops it."""
    needed = {ENGINES.get(name, name) for name in names}
    if needed - STACKS.keys():  # others are started like ours
        needed.add("ours")
    stacks = {
        name: running.enter_context(ours(model, logs / f"{name}.log", variables))
        for name, variables in STACKS.items()
        if name in needed
    }
    base = Lock.load(model.adapters).base.name
    peers = []
    for name in names:
        log = logs / f"{name}.log"
        if name in STACKS:
            url, engine = stacks[name].url, stacks[name].engine_url
            peers.append(Peer(name, url, engine, routed, routed_correct, stacks[name].memory))
        elif name in ENGINES:
            url = stacks[ENGINES[name]].engine_url
            body = decided(base if name == "base" else None)
            peers.append(Peer(name, url, url, body, decided_correct))
        elif name == "transformers":
            url = running.enter_context(first_version(model, log, dtype_of(stacks["ours"])))
            peers.append(Peer(name, url, None, whole(schema=False), whole_correct))
        else:
            options = ["--speculative-config", json.dumps(NGRAM)] if "ngram" in name else []
            plugins = "routine" if name.endswith("-lora") else ""
            url = running.enter_context(plain_vllm(stacks["ours"], log, options, plugins))
            peers.append(Peer(name, url, url, whole(schema=True), whole_correct))
    return peers
