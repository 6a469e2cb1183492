"""What an adapter's two files say: a LoRA that vLLM serves as PEFT trained it, of finite numbers.

This module does not import torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, deserialize

from serving.lock import CONFIG, WEIGHTS

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM 0.32 accepts for --max-lora-rank."""

NAME = "base_model.model.gpt_neox.layers.{}.{}.weight"
"""PEFT's name of a matrix, by "layer.part.module" and "lora_A" or "lora_B"."""
KINDS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
"""NumPy's types of the kinds of numbers that weights may have."""
Shapes = Mapping[str, tuple[int, int]]
"""Output and input size of the base's linear layers, by "layer.part.module"."""


class AdapterError(ValueError):
    """An adapter, or any adapter of a base, cannot be served; the message says why."""


class LoraConfiguration(BaseModel):
    """PEFT's LoRA configuration, as far as it matters to what is served. Features that vLLM lacks
    (vllm/lora/peft_helper.py), or that would make an adapter depend on more than its matrices, must
    be off."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    peft_type: Literal["LORA"]
    r: int = Field(ge=1, le=LORA_RANKS[-1])
    lora_alpha: float = Field(gt=0)
    target_modules: list[str] = Field(min_length=1)
    bias: Literal["none"] = "none"
    fan_in_fan_out: Literal[False] = False
    use_rslora: bool = False
    use_dora: Literal[False] = False
    use_qalora: Literal[False] = False
    lora_bias: Literal[False] = False
    init_lora_weights: bool | Literal["gaussian", "eva", "orthogonal", "mica", "lora_ga"] = True
    modules_to_save: None = None
    layers_to_transform: None = None
    layer_replication: None = None
    target_parameters: None = None
    trainable_token_indices: None = None
    alora_invocation_tokens: None = None
    use_bdlora: None = None
    rank_pattern: dict[str, int] | None = Field(default=None, max_length=0)
    alpha_pattern: dict[str, float] | None = Field(default=None, max_length=0)


def linear_shapes(base: Path) -> Shapes:
    """Return the shapes of a GPT-NeoX base's linear layers.

    Args:
        base: folder of the base model.

    Raises:
        AdapterError: the model is not GPT-NeoX.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "gpt_neox":
        raise AdapterError(
            f"the base is a {config.get('model_type')} model; this deployment serves gpt_neox "
            "(polyglot-ko)"
        )
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    modules = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (inner, hidden),
        "mlp.dense_4h_to_h": (hidden, inner),
    }
    return {
        f"{layer}.{module}": shape
        for layer in range(config["num_hidden_layers"])
        for module, shape in modules.items()
    }


def check_files(folder: Path, shapes: Shapes) -> int:
    """Check an adapter's configuration and weights.

    Args:
        folder: the adapter's.
        shapes: of the base it is for.

    Returns:
        The adapter's rank.

    Raises:
        AdapterError: vLLM could not serve it, or not as it was trained.
    """
    configuration = _configuration(folder / CONFIG)
    _check_weights(folder / WEIGHTS, configuration, shapes)
    return configuration.r


def _configuration(path: Path) -> LoraConfiguration:
    try:
        return LoraConfiguration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, given = ".".join(map(str, first["loc"])), f"{first['input']!r:.80}"
        if not field or first["type"] == "missing":
            given = "missing" if field else "no LoRA configuration"
        words = first["msg"].partition("\n")[0]
        raise AdapterError(f"{path}: {field or 'it'} is {given} ({words})") from error


def _check_weights(path: Path, configuration: LoraConfiguration, shapes: Shapes) -> None:
    try:
        tensors = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        found: dict[str, dict[str, Any]] = dict(tensors)
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise AdapterError(f"{path} is no safetensors file: {error}") from error
    wanted = _matrices(path.parent / CONFIG, configuration, shapes)
    for name in sorted(wanted.keys() ^ found.keys()):
        problem = "is missing" if name in wanted else "is for no target module of the base"
        raise AdapterError(f"{path}: {name} {problem}")
    is_trained = False
    for name, shape in wanted.items():
        place, given = f"{path}: {name}", found[name]["shape"]
        if given != shape:
            raise AdapterError(
                f"{place} has shape {given}, the base needs {shape}: it was trained on another "
                "base, or with another rank"
            )
        numbers = _numbers(found[name], place)
        if not np.isfinite(numbers).all():
            raise AdapterError(f"{place} has numbers that are not finite")
        is_trained = is_trained or ("lora_B" in name and bool(numbers.any()))
    if not is_trained:
        raise AdapterError(f"{path}: every lora_B is zero, so it changes nothing: train it")


def _matrices(path: Path, configuration: LoraConfiguration, shapes: Shapes) -> dict[str, list[int]]:
    """Return the shape of each matrix that the adapter must have, by name."""
    targets, modules = configuration.target_modules, {name.split(".")[-1] for name in shapes}
    for target in targets:
        if target not in modules:
            raise AdapterError(
                f"{path}: target_modules has {target!r}; the base has {', '.join(sorted(modules))}"
            )
    return {
        NAME.format(place, matrix): [configuration.r, into] if is_a else [out, configuration.r]
        for place, (out, into) in shapes.items()
        if place.split(".")[-1] in targets
        for matrix, is_a in (("lora_A", True), ("lora_B", False))
    }


def _numbers(tensor: Mapping[str, Any], place: str) -> NDArray[Any]:
    """Return a tensor's numbers; NumPy has no bfloat16, which is the upper half of a float32."""
    kind = tensor["dtype"]
    if kind not in KINDS:
        raise AdapterError(f"{place} is {kind}; save it as one of {', '.join(KINDS)}")
    numbers = np.frombuffer(tensor["data"], KINDS[kind])
    return (numbers.astype("<u4") << 16).view("<f4") if kind == "BF16" else numbers
