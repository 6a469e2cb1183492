"""HTTP routes. Handlers only parse, call and return."""

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import Receive, Scope, Send

from serving.gateway.batch import JSON_LINES, Batches, described
from serving.gateway.chat import EXAMPLE, Chat, ChatRequest
from serving.gateway.completions import CompletionRequest
from serving.gateway.deadline import TIMEOUT
from serving.gateway.engine import Engine, Model
from serving.gateway.errors import InvalidRequest, ModelNotFound
from serving.gateway.exchange import exchange_of
from serving.gateway.formats import JSON, choose, forms_of
from serving.gateway.generate import Generator
from serving.gateway.metrics import Metrics
from serving.gateway.page import add_page
from serving.gateway.readiness import Readiness
from serving.gateway.relay import STREAM, Relay
from serving.gateway.validation import validated
from serving.tasks.base import Calculation, Task
from serving.tasks.registry import CALCULATIONS, TASKS

PATH = "/gen/routine/{task}"
TOKENS, PASSES = "x-completion-tokens", "x-forward-passes"
"""Headers of an answer: how many tokens the model wrote, in how many passes."""
REFERENCE = "#/components/schemas/{model}"
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": REFERENCE.format(model="Error")}}},
    }
    for status, text in {
        400: "JSON이 아님",
        401: "API 키가 없거나 틀림",
        403: "이 API 키로는 쓸 수 없음",
        404: "그런 모델이 없음: `message`가 있는 모델을 알려 줌",
        406: "accept의 형식으로는 답할 수 없음",
        413: "본문이 너무 큼",
        415: "content-type이 다름: `message`가 무엇을 보낼지 알려 줌",
        422: "값이 범위를 벗어남: `param`이 필드, `message`가 허용 값을 알려 줌",
        429: "제때 답할 수 없을 만큼 밀려 있거나, API 키의 한도에 이름: `retry-after` 후 다시 시도",
        502: "모델의 답이 검사를 통과하지 못함",
        503: "엔진이 꺼져 있음: `retry-after` 후 다시 시도",
        504: "엔진이 제때 답하지 않음",
    }.items()
}


_ERROR_FIELDS = {
    "message": {"type": "string"},
    "type": {"type": "string"},
    "param": {"type": ["string", "null"]},
    "code": {"type": "string"},
}
REQUESTS: list[type[BaseModel]] = [
    CompletionRequest,
    ChatRequest,
    *(task.request for task in TASKS.values()),
    *(calculation.request for calculation in CALCULATIONS.values()),
]
_, _requests = models_json_schema(
    [(request, "validation") for request in REQUESTS], ref_template=REFERENCE
)
SCHEMAS = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "example": InvalidRequest(
            "experience cannot be 9; it must be an integer from 1 to 5", "experience"
        ).body(),
        "properties": {
            "error": {
                "type": "object",
                "required": list(_ERROR_FIELDS),
                "properties": _ERROR_FIELDS,
            }
        },
    },
    **_requests["$defs"],
}
"""OpenAPI components that FastAPI cannot discover, because ``validated`` parses the bodies."""


def routes(
    engine: Engine,
    generator: Generator,
    batches: Batches,
    relay: Relay,
    readiness: Readiness,
    metrics: Metrics,
    has_pages: bool,
) -> APIRouter:
    """Create all routes, bound to their dependencies."""
    router = APIRouter(route_class=PlainRoute, generate_unique_id_function=lambda route: route.name)
    for task in TASKS.values():
        _add_task(router, task, generator)
        _add_batch(router, task, batches)
    for calculation in CALCULATIONS.values():
        _add_calculation(router, calculation)
    _add_openai(router, engine, relay, Chat(generator))
    _add_operations(router, readiness, metrics)
    if has_pages:
        add_page(router)
    return router


class PlainRoute(APIRoute):
    """A route whose handler takes a request and returns a response. FastAPI only documents it. Its
    dependency resolution, unused here, would take longer than all of the gateway's own code."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response = await self.endpoint(Request(scope))
        await response(scope, receive, send)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route that needs a key."""
    return {status: ERRORS[status] for status in sorted({401, 403, 429, *statuses})}


def _add_task(router: APIRouter, task: Task[Any], generator: Generator) -> None:
    forms = forms_of(task)
    examples = [(task.describe(example), example) for example in task.examples]

    async def generate(request: Request) -> Response:
        exchange = exchange_of(request)
        deadline = generator.deadline(exchange.head)
        asked = validated(task.request, await exchange.body())
        render = choose(request, forms)
        generated = await generator.answer(task, asked, exchange.headers, deadline, exchange.caller)
        response = render(generated.text)
        response.headers[TOKENS] = str(generated.usage.completion_tokens)
        response.headers[PASSES] = str(generated.usage.passes)
        return response

    parameters = [p for form in forms.values() if form for p in form.parameters]
    _add_routine(
        router,
        task,
        generate,
        responses={
            200: _example_answer(task, forms),
            **_errors(400, 406, 413, 415, 422, 429, 502, 503, 504),
        },
        openapi_extra={
            "parameters": [_TIMEOUT_PARAMETER, *parameters],
            "requestBody": _body(task.request, examples),
        },
    )


def _add_batch(router: APIRouter, task: Task[Any], batches: Batches) -> None:
    url = PATH.format(task=task.name)

    async def answer_lines(request: Request) -> Response:
        choose(request, {JSON_LINES: None})
        return await batches.answer(task, url, exchange_of(request))

    answered, extra = described(task, url)
    router.add_api_route(
        f"{url}/batch",
        answer_lines,
        methods=["POST"],
        tags=["routine"],
        summary=f"{task.name} 여럿: 요청을 한 줄에 하나씩; 답은 되는 대로 한 줄씩",
        name=f"{task.name}_batch",
        response_class=Response,
        responses={200: answered, **_errors(406, 413, 415, 422, 429, 503)},
        openapi_extra=extra,
    )


def _add_calculation(router: APIRouter, calculation: Calculation[Any]) -> None:
    async def calculate(request: Request) -> Response:
        exchange = exchange_of(request)
        exchange.caller.require("tasks", calculation.name)
        asked = validated(calculation.request, await exchange.body())
        render = choose(request, {JSON: None})
        return render(calculation.compute(asked).model_dump_json())

    example = calculation.examples[0]
    answer = calculation.compute(example).model_dump(mode="json")
    _add_routine(
        router,
        calculation,
        calculate,
        responses={
            200: {"content": {JSON: {"example": answer}}},
            **_errors(400, 406, 413, 415, 422),
        },
        openapi_extra={"requestBody": _body(calculation.request, [("", example)])},
    )


def _add_routine(
    router: APIRouter,
    served: Task[Any] | Calculation[Any],
    answer: Callable[[Request], Awaitable[Response]],
    **described: Any,
) -> None:
    """Add the route of a task or calculation.

    Args:
        router: where to.
        served: what the route answers.
        answer: its handler.
        described: options of ``add_api_route`` for the API page.
    """
    router.add_api_route(
        PATH.format(task=served.name),
        answer,
        methods=["POST"],
        tags=["routine"],
        summary=served.summary,
        response_model=served.response,
        name=served.name,
        **described,
    )


def _body(request: type[BaseModel], examples: list[tuple[str, BaseModel]]) -> dict[str, Any]:
    """Describe a request body, with worked examples and their summaries."""
    shown = {
        str(number): {"summary": summary, "value": example.model_dump(mode="json")}
        for number, (summary, example) in enumerate(examples, 1)
    }
    reference = {"$ref": REFERENCE.format(model=request.__name__)}
    return {"required": True, "content": {JSON: {"schema": reference, "examples": shown}}}


def _example_answer(task: Task[Any], media_types: Iterable[str]) -> dict[str, Any]:
    content: dict[str, Any] = {media_type: {} for media_type in media_types}
    example = json.loads(task.render(task.examples[0], task.example_answer))
    content["application/json"] = {"example": example}
    return {"description": "완성된 답", "content": content}


class ModelCard(BaseModel):
    """OpenAI's description of a model. vLLM's exposes local paths."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "vllm"


class ModelList(BaseModel):
    """The base model and its adapters."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(BaseModel):
    """How the service is."""

    status: Literal["alive", "ready"]


def _card(model: Model) -> ModelCard:
    return ModelCard(id=model.name, created=model.created)


def _add_openai(router: APIRouter, engine: Engine, relay: Relay, chat: Chat) -> None:
    @router.get(
        "/v1/models",
        tags=["openai"],
        summary="베이스 모델과 어댑터 목록",
        response_model=ModelList,
        responses=_errors(503),
    )
    async def models(request: Request) -> JSONResponse:
        cards = [_card(model) for model in await engine.models()]
        return JSONResponse(ModelList(data=cards).model_dump())

    @router.get(
        "/v1/models/{model:path}",
        tags=["openai"],
        summary="모델 하나",
        response_model=ModelCard,
        responses=_errors(404, 503),
        openapi_extra={
            "parameters": [
                {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        },
    )
    async def model(request: Request) -> JSONResponse:
        name, served = request.path_params["model"], await engine.models()
        for found in served:
            if found.name == name:
                return JSONResponse(_card(found).model_dump())
        raise ModelNotFound(name, [found.name for found in served])

    @router.post(
        "/v1/completions",
        tags=["openai"],
        summary="OpenAI 호환 텍스트 완성 (스트리밍 가능)",
        responses=_STREAMED | _errors(400, 404, 413, 415, 422, 429, 502, 503, 504),
        openapi_extra={"parameters": [_TIMEOUT_PARAMETER], "requestBody": _COMPLETION_BODY},
    )
    async def completions(request: Request) -> Response:
        return await relay.answer(exchange_of(request))

    @router.post(
        "/v1/chat/completions",
        tags=["openai"],
        summary="작업을 채팅으로: 마지막 user 메시지에 요청(JSON), 답은 JSON",
        name="chat",
        responses=_STREAMED | _errors(400, 404, 413, 415, 422, 429, 502, 503, 504),
        openapi_extra={"parameters": [_TIMEOUT_PARAMETER], "requestBody": _CHAT_BODY},
    )
    async def chat_completions(request: Request) -> Response:
        return await chat.answer(exchange_of(request))


_STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {JSON: {}, STREAM: {}}}}
_TIMEOUT_PARAMETER = {
    "name": TIMEOUT,
    "in": "header",
    "schema": {"type": "integer", "minimum": 1},
    "description": "답을 기다리는 시간(밀리초). 지나면 504; 제때 답할 수 없으면 바로 429",
}
_CHAT_BODY = {
    "required": True,
    "content": {
        JSON: {"schema": {"$ref": REFERENCE.format(model=ChatRequest.__name__)}, "example": EXAMPLE}
    },
}
_COMPLETION_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": REFERENCE.format(model=CompletionRequest.__name__)},
            "example": {
                "model": next(iter(TASKS)),
                "prompt": "## 질문\n",
                "max_tokens": 16,
                "stream": False,
            },
        }
    },
}


def _add_operations(router: APIRouter, readiness: Readiness, metrics: Metrics) -> None:
    @router.get(
        "/healthz",
        tags=["operations"],
        summary="프로세스가 살아 있는가",
        response_model=Status,
    )
    async def healthz(request: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @router.get(
        "/readyz",
        tags=["operations"],
        summary="요청을 받을 준비가 되었는가",
        response_model=Status,
        responses={503: ERRORS[503]},
    )
    async def readyz(request: Request) -> JSONResponse:
        readiness.check()
        return JSONResponse({"status": "ready"})

    @router.get(
        "/metrics",
        tags=["operations"],
        summary="Prometheus 지표",
        response_class=PlainTextResponse,
    )
    async def prometheus(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
