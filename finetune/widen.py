"""Widen the demo model and its adapters to polyglot-ko-1.3b's size, with the same answers.

``python -m finetune.widen --source finetune/demo --out finetune/runs/full-size``. Speed and memory
must be measured at the real size; this avoids downloading the real weights.

Each hidden unit is repeated ``times`` times. Every matrix is divided by ``times``, because it sums
over that many copies of its input. LayerNorm of a repeated vector equals the repeated LayerNorm.
Attention heads are repeated whole. Layers beyond the demo's add nothing: their output projections
are zero. Rows beyond the demo's vocabulary repeat its last token, which occurs in no text, so a new
token is never the most likely. In exact arithmetic the logits equal the demo's.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.export import name_base
from finetune.record import base_files
from serving.lock import CONFIG, WEIGHTS, Lock, LockError

OUTPUT_PROJECTIONS = ("attention.dense", "mlp.dense_4h_to_h")
"""The only modules through which a layer adds to the residual stream."""
COPIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


class Size(NamedTuple):
    """Target size."""

    times: int = 8
    """Multiplier for hidden size, heads and feed-forward size."""
    layers: int = 24
    vocabulary: int = 30_080
    """Number of embedding rows."""


def widen(tensors: dict[str, Tensor], layers: int, size: Size) -> dict[str, Tensor]:
    """Widen the tensors of a GPT-NeoX, or of a LoRA adapter for one.

    Args:
        tensors: tensors by name, as in the safetensors file.
        layers: the model's number of layers.
        size: target size.
    """
    found = {}
    for name, tensor in tensors.items():
        if ".layers." not in name:
            found[name] = _rows(_repeat(name, tensor, size.times), name, size.vocabulary)
            continue
        before, _, after = name.partition(".layers.")
        number, _, module = after.partition(".")
        wide = _repeat(name, tensor, size.times)
        adds = module.startswith(OUTPUT_PROJECTIONS) and ".lora_A." not in module
        for layer in range(int(number), size.layers, layers):
            silent = adds and layer >= layers
            found[f"{before}.layers.{layer}.{module}"] = (
                torch.zeros_like(wide) if silent else wide.clone()
            )
    return found


def _repeat(name: str, tensor: Tensor, times: int) -> Tensor:
    """Repeat one tensor along its output dimension, its input dimension, or both."""
    if tensor.ndim == 1:  # a bias or a LayerNorm weight
        return tensor.repeat(times)
    if ".lora_B." in name:
        return tensor.repeat(times, 1)
    if "embed_in" in name:
        return tensor.repeat(1, times)
    if ".lora_A." in name or "embed_out" in name:
        return tensor.repeat(1, times) / times
    return tensor.repeat(times, times) / times


def _rows(tensor: Tensor, name: str, vocabulary: int) -> Tensor:
    if "embed" not in name:
        return tensor
    return torch.cat([tensor, tensor[-1:].expand(vocabulary - len(tensor), -1)])


def widen_export(source: Path, out: Path, size: Size) -> Lock:
    """Widen an export of ``finetune.export`` in ``source``; write ``out`` in the same layout.

    Args:
        source: folder with ``base`` and ``adapters``.
        out: folder to write; its name becomes the base's name.
        size: target size.

    Raises:
        LockError: ``source`` has no lock file.
        OSError: a file is missing or cannot be written.
        ValueError: ``size`` is smaller than the source.
    """
    lock = Lock.load(source / "adapters")
    config = json.loads((source / "base" / "config.json").read_text(encoding="utf-8"))
    layers = config["num_hidden_layers"]
    if size.times < 1 or size.layers < layers or size.vocabulary < config["vocab_size"]:
        raise ValueError(f"{size} is smaller than the model in {source}")
    config |= {"num_hidden_layers": size.layers, "vocab_size": size.vocabulary}
    for name in ("hidden_size", "intermediate_size", "num_attention_heads"):
        config[name] *= size.times

    base, adapters = out / "base", out / "adapters"
    base.mkdir(parents=True, exist_ok=True)
    (base / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in COPIED:
        shutil.copyfile(source / "base" / name, base / name)
    _widen_file(source / "base" / "model.safetensors", base / "model.safetensors", layers, size)
    entries = {}
    for name, entry in lock.adapters.items():
        folder = adapters / name
        folder.mkdir(parents=True, exist_ok=True)
        _widen_file(source / "adapters" / name / WEIGHTS, folder / WEIGHTS, layers, size)
        shutil.copyfile(source / "adapters" / name / CONFIG, folder / CONFIG)
        hashes = name_base(folder, out.name)
        entries[name] = entry.model_copy(update={"files": hashes, "scores": None})
    written = Lock(
        base=lock.base.model_copy(update={"name": out.name, "files": base_files(base)}),
        adapters=entries,
    )
    written.save(adapters)
    return written


def _widen_file(source: Path, target: Path, layers: int, size: Size) -> None:
    save_file(widen(load_file(source), layers, size), target, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--source", type=Path, required=True, help="what finetune.export wrote")
    parser.add_argument("--out", type=Path, required=True)
    for name, value in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    arguments = parser.parse_args()
    size = Size(arguments.times, arguments.layers, arguments.vocabulary)
    try:
        widen_export(arguments.source, arguments.out, size)
    except (LockError, OSError, ValueError) as error:
        sys.exit(f"widen: {error}")
    out = arguments.out
    print(f"serve it: MODEL={out}/base ADAPTERS={out}/adapters make serve")


if __name__ == "__main__":
    main()
