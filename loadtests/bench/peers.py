"""The peers that the benchmark compares: how to start and query each of them.

All use the same weights, adapters, machine, arithmetic and prompts. Plain vLLM is started with our
engine's command line and environment, without our additions: the drafter, the Outlines backend with
our constraint, and our LoRA and batching on CPU.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.service import free_port, own_ports, served
from serving.engine.command import arguments, environment
from serving.engine.machine import choose, has_gpu, look
from serving.engine.preflight import check_model
from serving.engine.settings import EngineSettings
from serving.language.fields import OutputError, encode
from serving.lock import Lock
from serving.tasks.base import Task

WORDS = {
    "transformers": "Hugging Face generate + PEFT",
    "vllm": "vLLM, JSON schema",
    "vllm-lora": "vLLM, JSON schema, our LoRA and batches",
    "ngram": "vLLM, JSON schema, n-gram speculation",
    "ours": "ours",
    "engine": "our engine, without the gateway",
    "base": "our engine, without an adapter",
    "bfloat16": "ours, bfloat16",
    "float32": "ours, float32",
}
"""Peers and their descriptions, in table order."""
SERVICES: Mapping[str, Mapping[str, str]] = {
    "ours": {},
    "bfloat16": {"ENGINE_DTYPE": "bfloat16"},
    "float32": {"ENGINE_DTYPE": "float32"},
}
"""Variants of our full service, with the variables set for each."""
ENGINES = ("engine", "base")
"""Peers that query the engine of ``ours`` directly."""
NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": 5,
    "prompt_lookup_min": 1,
    "prompt_lookup_max": 4,
}
"""The fastest of five configurations tried: 5, 8 and 16 tokens, minimum match of 1 to 3 tokens."""
WHOLE_TOKENS = 1536
"""Token limit, larger than any whole answer."""

Ask = Callable[[Task[Any], Any], tuple[str, bytes]]
"""Map a task and a request to a path and a body."""
Correct = Callable[[Task[Any], Any, Mapping[str, Any]], bool]
"""Check that an answer to the request is complete and breaks no rule."""


@dataclass(frozen=True)
class Peer:
    """One service to measure."""

    name: str
    """A key of ``WORDS``."""
    url: str
    metrics: str | None
    """URL of the engine that has the counters; None if the answers themselves report tokens."""
    ask: Ask
    correct: Correct
    pid: int
    """Root process."""


def whole(schema: bool) -> Ask:
    """Request the whole answer from the adapter, with its JSON schema or unconstrained."""

    def ask(task: Task[Any], request: Any) -> tuple[str, bytes]:
        asked: dict[str, Any] = {
            "model": task.name,
            "prompt": task.question(request).prompt,
            "max_tokens": WHOLE_TOKENS,
            "temperature": 0,
        }
        if schema:
            model = task.question(request).output.model
            asked["structured_outputs"] = {"json": model.model_json_schema()}
        return "/v1/completions", json.dumps(asked).encode()

    return ask


def decided(model: str | None) -> Ask:
    """Request the decided part from our engine, like the gateway; None uses the task's adapter."""

    def ask(task: Task[Any], request: Any) -> tuple[str, bytes]:
        question = task.question(request)
        asked = {
            "model": model or task.name,
            "prompt": question.prefilled,
            "max_tokens": question.output.max_new_tokens,
            "temperature": 0,
            "structured_outputs": {"regex": question.output.decided_regex},
        }
        return "/v1/completions", json.dumps(asked).encode()

    return ask


def routed(task: Task[Any], request: Any) -> tuple[str, bytes]:
    """Request an answer from the gateway's task route."""
    return f"/gen/routine/{task.name}", request.model_dump_json().encode()


def whole_correct(task: Task[Any], request: Any, answer: Mapping[str, Any]) -> bool:
    """Check that the text a model generated is a whole answer that breaks no rule."""
    output = task.question(request).output
    try:
        values = output.parse(encode(json.loads(answer["choices"][0]["text"])))
    except (ValueError, OutputError):
        return False
    return not task.check(request, json.loads(task.render(request, values)))


def decided_correct(task: Task[Any], request: Any, answer: Mapping[str, Any]) -> bool:
    """Check that a decided part completes to an answer that breaks no rule."""
    try:
        written = answer["choices"][0]["text"]
        return not task.answer(task.question(request), written).broken
    except OutputError:
        return False


def routed_correct(task: Task[Any], request: Any, answer: Mapping[str, Any]) -> bool:
    """Check that the gateway's answer breaks no rule."""
    return "error" not in answer and not task.check(request, answer)


class Starter:
    """Starts peers with this process's environment; ``running`` stops them.

    Args:
        folder: folder with ``base`` and ``adapters``.
        logs: folder for server logs.
        running: exit stack that owns the started servers.
    """

    def __init__(self, folder: Path, logs: Path, running: ExitStack) -> None:
        self._base, self._adapters = folder / "base", folder / "adapters"
        self._logs, self._running = logs, running

    def start(self, names: Sequence[str]) -> list[Peer]:
        """Start the named peers; ``ENGINES`` must come after ``ours``."""
        found: dict[str, Peer] = {}
        for name in names:
            if name in SERVICES:
                found[name] = self._service(name)
            elif name in ENGINES:
                model = Lock.load(self._adapters).base.name if name == "base" else None
                ours = found["ours"]
                assert ours.metrics
                found[name] = Peer(
                    name, ours.metrics, ours.metrics, decided(model), decided_correct, ours.pid
                )
            elif name == "transformers":
                found[name] = self._first_version()
            else:
                found[name] = self._plain_vllm(name)
        return list(found.values())

    def _service(self, name: str) -> Peer:
        environment, url, engine = own_ports()
        environment |= {"MODEL": str(self._base), "ADAPTERS": str(self._adapters), **SERVICES[name]}
        command = [sys.executable, "-m", "serving"]
        pid = self._served(name, command, f"{url}/readyz", environment)
        return Peer(name, url, engine, routed, routed_correct, pid)

    def _first_version(self) -> Peer:
        port, dtype = free_port(), choose(self._settings(0), has_gpu(), threads=1).dtype
        command = [sys.executable, "-W", "ignore", "-m", "loadtests.bench.first_version"]
        command += ["--base", str(self._base), "--adapters", str(self._adapters)]
        command += ["--dtype", dtype, "--port", str(port)]
        url = f"http://127.0.0.1:{port}"
        variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
        pid = self._served("transformers", command, f"{url}/health", variables)
        return Peer("transformers", url, None, whole(schema=False), whole_correct, pid)

    def _plain_vllm(self, name: str) -> Peer:
        settings = self._settings(port := free_port())
        checked = check_model(settings)
        machine = look(settings, checked.hidden_size)
        command = arguments(settings, checked, machine, None)
        at = command.index("--structured-outputs-config.backend")
        del command[at : at + 2]
        if name == "ngram":
            command += ["--speculative-config", json.dumps(NGRAM)]
        plugins = {"VLLM_PLUGINS": "routine" if name == "vllm-lora" else ""}
        variables = {**os.environ, **environment(settings, machine, None), **plugins}
        url = f"http://127.0.0.1:{port}"
        pid = self._served(name, command, f"{url}/health", variables)
        return Peer(name, url, url, whole(schema=True), whole_correct, pid)

    def _settings(self, port: int) -> EngineSettings:
        return EngineSettings(
            model=str(self._base),
            adapters=str(self._adapters),
            engine_port=port or free_port(),
            engine_drafter="off",
        )

    def _served(
        self, name: str, command: list[str], ready: str, variables: Mapping[str, str]
    ) -> int:
        log = self._logs / f"{name}.log"
        return self._running.enter_context(served(command, ready, log, variables)).pid
