"""What ``/v1/completions`` takes: OpenAI's fields, and vLLM's that concern one request only.

Requests are checked here and forwarded unchanged. A field that vLLM would ignore in silence, or
that would let one caller use what others need, is refused. What a request may cost is limited by
the tokens and sequences it can generate.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from serving.gateway.errors import InvalidRequest
from serving.gateway.settings import GatewaySettings

MAX_LOGPROBS = 5
"""As OpenAI's. Each costs a sort of the whole vocabulary."""
CONTEXT = 2048
"""Tokens of polyglot-ko's context: no prompt and no answer is longer."""
TOKENS_PER_PLACE = 512
"""Tokens of a prompt that count as one more sequence."""
_NotEmpty = Field(min_length=1)
Text = Annotated[str, _NotEmpty]
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], _NotEmpty]
Prompt = Text | Annotated[list[Text], _NotEmpty] | Tokens | Annotated[list[Tokens], _NotEmpty]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(_Fields):
    """What a stream tells beside the text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class NamedSchema(_Fields):
    """A JSON schema as OpenAI wraps it."""

    name: Text
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(_Fields):
    """OpenAI's way to ask for JSON."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = Field(
        default=None, description="`type`이 `json_schema`일 때만, 그때는 반드시"
    )

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and only with it")
        return self


class StructuredOutputs(_Fields):
    """vLLM's way to constrain the text: one constraint, and how JSON is laid out."""

    json_: dict[str, Any] | Text | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Annotated[list[str], _NotEmpty] | None = None
    grammar: Text | None = None
    json_object: Literal[True] | None = None
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        kinds = (self.json_, self.regex, self.choice, self.grammar, self.json_object)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("give one of json, regex, choice, grammar and json_object")
        return self


class CompletionRequest(_Fields):
    """OpenAI's fields, then vLLM's (vllm/entrypoints/openai/completion/protocol.py, 0.32). The
    engine checks those that depend on the model."""

    model: str = Field(description="베이스 모델이나 어댑터의 이름")
    prompt: Prompt = Field(description="텍스트, 토큰, 또는 그 목록")
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    n: Annotated[int, Field(ge=1)] = 1
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Text | list[Text] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    logit_bias: dict[str, float] | None = None
    echo: bool | None = None
    suffix: None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    user: str | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = Field(
        default=None, description="`json`, `regex`, `choice`, `grammar`, `json_object` 가운데 하나"
    )
    add_special_tokens: bool = True
    allowed_token_ids: list[int] | None = None
    bad_words: list[Text] = []
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] = 0
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    stop_token_ids: list[int] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    truncation_side: Literal["left", "right"] | None = None

    @field_validator("logit_bias")
    @classmethod
    def _is_by_token(cls, given: dict[str, float] | None) -> dict[str, float] | None:
        if any(not (key.isascii() and key.isdecimal()) for key in given or ()):
            raise ValueError('its keys must be token ids, as in {"5": -100}')
        return given

    @field_validator("stream_options")
    @classmethod
    def _streams(cls, given: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if given and not info.data.get("stream"):
            raise ValueError("it goes with stream true, and only with it")
        return given


class Cost(NamedTuple):
    """What a request may take."""

    places: int
    """At the engine: one a sequence, and more for long prompts, since a prompt is many rows of the
    engine's step."""
    tokens: int
    """Of prompts and answers, at most."""


def cost(request: CompletionRequest, settings: GatewaySettings) -> Cost:
    """Return what ``request`` may take.

    Raises:
        InvalidRequest: it is more than a request may.
    """
    if request.echo and request.logprobs is not None:
        raise InvalidRequest(
            "echo with logprobs ranks the vocabulary for each token of the prompt; send one",
            "echo",
        )
    sizes = [_size(prompt) for prompt in _prompts(request.prompt)]
    sequences, most = request.n * len(sizes), settings.max_completion_sequences
    if sequences > most:
        raise InvalidRequest(f"prompts times n is {sequences}; it must be from 1 to {most}", "n")
    written = sequences * (CONTEXT if request.max_tokens is None else request.max_tokens)
    tokens, most = sum(sizes) + written, settings.max_completion_tokens
    if tokens > most:
        raise InvalidRequest(
            f"the request may take {tokens} tokens (a prompt's bytes, {CONTEXT} at most, and "
            f"prompts times n times max_tokens); it must be at most {most}",
            "max_tokens",
        )
    places = sequences + sum(sizes) // TOKENS_PER_PLACE
    return Cost(min(places, settings.max_completions_in_flight), tokens)


def _prompts(prompt: Prompt) -> Sequence[str | list[int]]:
    """Return the prompts of a request, each a text or a list of tokens."""
    is_one = isinstance(prompt, str) or isinstance(prompt[0], int)
    return [prompt] if is_one else prompt  # type: ignore[list-item, return-value]


def _size(prompt: str | list[int]) -> int:
    """Return the most tokens that ``prompt`` may have."""
    return min(len(prompt.encode() if isinstance(prompt, str) else prompt), CONTEXT)
