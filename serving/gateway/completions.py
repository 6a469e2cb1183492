"""What ``/v1/completions`` takes: OpenAI's fields, and vLLM's that concern one request only.

Requests are checked here and forwarded unchanged. A field that vLLM would ignore in silence, or
that would let one caller use what others need, is refused. What a request may cost is limited by
the tokens and sequences it can generate.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from serving.gateway.errors import InvalidRequest
from serving.gateway.settings import GatewaySettings

MAX_LOGPROBS = 5
"""As OpenAI's. Each costs a sort of the whole vocabulary."""
UNCHECKED = (
    "echo", "frequency_penalty", "logit_bias", "presence_penalty", "response_format", "seed",
    "stop", "stream", "stream_options", "structured_outputs", "suffix", "temperature", "top_p",
    "user",
    # vLLM's
    "add_special_tokens", "allowed_token_ids", "bad_words", "ignore_eos",
    "include_stop_str_in_output", "min_p", "min_tokens", "repetition_penalty", "return_token_ids",
    "return_tokens_as_token_ids", "skip_special_tokens", "spaces_between_special_tokens",
    "stop_token_ids", "top_k", "truncate_prompt_tokens", "truncation_side",
)  # fmt: skip
"""Fields of vLLM 0.32 (vllm/entrypoints/openai/completion/protocol.py) that the engine checks."""


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="베이스 모델이나 어댑터의 이름")
    prompt: Any = Field(description="텍스트, 토큰, 또는 그 목록")
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    n: Annotated[int, Field(ge=1)] = 1
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None


_unchecked: dict[str, Any] = dict.fromkeys(UNCHECKED, (Any, None))
CompletionRequest: type[_Checked] = create_model(
    "CompletionRequest", __base__=_Checked, **_unchecked
)


def sequences(request: _Checked) -> int:
    """Return how many sequences ``request`` generates: its prompts times ``n``."""
    prompt = request.prompt
    is_several = isinstance(prompt, list) and not (prompt and isinstance(prompt[0], int))
    return request.n * (len(prompt) if is_several else 1)


def check_cost(request: _Checked, settings: GatewaySettings) -> None:
    """Check what ``request`` may cost.

    Raises:
        InvalidRequest: it may generate more tokens or sequences than a request is allowed to.
    """
    number, most = sequences(request), settings.max_completion_sequences
    if not 0 < number <= most:
        raise InvalidRequest(f"prompts times n is {number}; it must be from 1 to {most}", "n")
    most = settings.max_completion_tokens
    tokens = number * (most if request.max_tokens is None else request.max_tokens)
    if tokens > most:
        raise InvalidRequest(
            f"prompts times n times max_tokens is {tokens}; it must be at most {most}", "max_tokens"
        )
