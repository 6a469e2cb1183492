"""Constraints that callers send harm only themselves, and those of tasks are compiled once.

vLLM 0.32 checks a constraint in the API server and compiles it in a thread of the engine core, both
without a limit on time or memory (vllm-project/vllm#51660 and #54003 are about other backends).
Here a new constraint is first tried in a process with limits (``trial``), and what it came to is
remembered.

vLLM's guidance backend also compiles a constraint anew for each request, which then discovers the
states of its automaton again: 5 ms of a request. Copies of a compiled one share its states. Tasks'
requests, which have priority, get copies.
"""

import asyncio
import hashlib
import itertools
import json
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import llguidance
from cachetools import LRUCache
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager, backend_guidance
from vllm.v1.structured_output.backend_guidance import GuidanceBackend, GuidanceGrammar
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.request import StructuredOutputRequest

from serving.vllm_plugin import trial

MAX_CHARACTERS = 2**16
"""Maximum size of a constraint, serialized."""
MAX_KNOWN = 8192
"""Maximum constraints whose trial is remembered."""
MAX_COMPILED = 64
"""Maximum compiled constraints that are kept; each may take some megabytes."""
AT_ONCE = 4
"""Trials at a time."""

vllm_add_request = AsyncLLM.add_request
vllm_validate = backend_guidance.validate_guidance_grammar
vllm_serialize = backend_guidance.serialize_guidance_grammar
vllm_grammar_init = StructuredOutputManager.grammar_init


class Trials:
    """Client of the process that tries constraints; it is started with the first one.

    Args:
        tokenizer: path of the engine's tokenizer.json.
    """

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = tokenizer
        self._known: LRUCache[bytes, str] = LRUCache(MAX_KNOWN)
        self._numbers, self._turn = itertools.count(), asyncio.Semaphore(AT_ONCE)
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._process: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def problem(self, kind: StructuredOutputOptions, text: str) -> str:
        """Return why the engine should not use a constraint; empty if it may."""
        key = hashlib.sha256(f"{kind.name}:{text}".encode(errors="replace")).digest()
        if key not in self._known:
            self._known[key] = await self._tried(kind, text)
        known: str = self._known[key]
        return known

    async def _tried(self, kind: StructuredOutputOptions, text: str) -> str:
        try:
            grammar = serialize(kind, text)
        except (ValueError, KeyError, TypeError) as error:
            return str(error)
        if len(grammar) > MAX_CHARACTERS:
            return f"it has {len(grammar)} characters; at most {MAX_CHARACTERS} are allowed"
        async with self._turn:
            return await self._ask(grammar)

    async def _ask(self, grammar: str) -> str:
        self._process = self._process or asyncio.create_task(self._start())
        pipe = (await self._process).stdin
        assert pipe
        number = next(self._numbers)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            pipe.write(json.dumps({"id": number, "grammar": grammar}).encode() + b"\n")
            await pipe.drain()
            return await answer
        finally:
            del self._waiting[number]

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", trial.__name__, self._tokenizer,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(process))
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            answer = json.loads(line)
            waiting = self._waiting.get(answer["id"])
            if waiting and not waiting.done():
                waiting.set_result(answer["error"])
        self._process = None  # it was killed; the next constraint starts another
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(RuntimeError("the process that tries constraints has ended"))


_trials: dict[AsyncLLM, Trials] = {}


async def add_request(
    self: AsyncLLM, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any
) -> Any:
    """Replace vLLM's ``AsyncLLM.add_request``: try the request's constraint before.

    Raises:
        VLLMValidationError: the constraint cannot be used.
    """
    is_sampling = isinstance(params, SamplingParams)
    if is_sampling and (structured := StructuredOutputRequest.from_sampling_params(params)):
        if self not in _trials:
            _trials[self] = Trials(Path(self.vllm_config.model_config.tokenizer) / "tokenizer.json")
        if problem := await _trials[self].problem(*structured.structured_output_key):
            raise VLLMValidationError(f"the output's constraint cannot be used: {problem}")
    added: Awaitable[Any] = vllm_add_request(self, request_id, prompt, params, *args, **kwargs)
    return await added


def validate_guidance_grammar(params: SamplingParams, tokenizer: Any = None) -> None:
    """Replace vLLM's ``validate_guidance_grammar``: nothing is left to do after a trial."""
    if not _trials:  # vLLM is used without its server
        vllm_validate(params, tokenizer)


def serialize(
    kind: StructuredOutputOptions,
    text: str,
    disable_any_whitespace: bool = False,
    disable_additional_properties: bool = False,
) -> str:
    """Replace vLLM's ``serialize_guidance_grammar``: take a schema's ``oneOf`` for ``anyOf``, as
    Outlines does, rather than refuse it."""
    if kind != StructuredOutputOptions.JSON:
        return vllm_serialize(kind, text, disable_any_whitespace, disable_additional_properties)
    return llguidance.LLMatcher.grammar_from_json_schema(
        text, defaults={"whitespace_flexible": not disable_any_whitespace, "coerce_one_of": True}
    )


def compile_grammar(
    self: GuidanceBackend,
    kind: StructuredOutputOptions,
    text: str,
    stop_token_ids: set[int] | None = None,
) -> GuidanceGrammar:
    """Replace vLLM's ``GuidanceBackend.compile_grammar``: with the limits of the trial."""
    grammar = serialize(kind, text, self.disable_any_whitespace, self.disable_additional_properties)
    matcher = llguidance.LLMatcher(self.ll_tokenizer, grammar, log_level=0, limits=trial.LIMITS)
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    return GuidanceGrammar(matcher, self.ll_tokenizer, self.vocab_size)


_compiled: LRUCache[tuple[StructuredOutputOptions, str], GuidanceGrammar] = LRUCache(MAX_COMPILED)


def grammar_init(self: StructuredOutputManager, request: Request) -> None:
    """Replace vLLM's ``StructuredOutputManager.grammar_init``: a request with priority gets a copy
    of a compiled constraint, at once. vLLM calls this in one thread."""
    structured = request.structured_output_request
    backend = self.backend
    if structured is None or request.priority >= 0 or not isinstance(backend, GuidanceBackend):
        vllm_grammar_init(self, request)
        return
    key = structured.structured_output_key
    if key not in _compiled:
        _compiled[key] = compile_grammar(backend, *key)
    found = _compiled[key]
    structured.grammar = GuidanceGrammar(
        found.ll_matcher.deep_copy(), found.ll_tokenizer, found.vocab_size
    )
