"""What must belong together, and the one message when it does not."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from safetensors.torch import load_file, save_file
from torch import Tensor

from loadtests.service import free_port
from serving.engine.command import arguments, environment
from serving.engine.machine import Machine
from serving.engine.preflight import (
    Checked,
    PreflightError,
    check_model,
    locate_base,
    preflight,
)
from serving.engine.settings import DEMO, EngineSettings
from serving.lock import Lock, LockError, sha256
from serving.process import StartError, check_port
from serving.tasks.registry import TASKS
from serving.tracing import TraceTarget

Break = Callable[[Path], object]
CPU = Machine(gpu=False, dtype="float32", reason="", warning="", threads=3)
GPU = Machine(gpu=True, dtype="auto", reason="", warning="", threads=3)


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of the demo model that a test may damage."""
    return Path(shutil.copytree(DEMO, tmp_path / "demo"))


def check(demo: Path) -> int:
    lock = Lock.load(demo / "adapters")
    return preflight(locate_base(str(demo / "base"), lock.base), demo / "adapters", lock)


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def relock(demo: Path) -> None:
    """Make the lock file agree with the damaged weights, so that the next check is reached."""
    lock = json.loads((demo / "adapters" / "lock.json").read_text())
    for name in lock["adapters"]["rate"]["files"]:
        lock["adapters"]["rate"]["files"][name] = sha256(demo / "adapters/rate" / name)
    (demo / "adapters" / "lock.json").write_text(json.dumps(lock))


def set_lock(demo: Path, *keys: str, value: object) -> None:
    lock = json.loads((demo / "adapters" / "lock.json").read_text())
    place = lock
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (demo / "adapters" / "lock.json").write_text(json.dumps(lock))


def widen_adapter(demo: Path) -> None:
    path = demo / "adapters/rate/adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_A" in name)
    save_file({**tensors, name: tensors[name][:, :-1].contiguous()}, path)
    relock(demo)


def rename_module(demo: Path) -> None:
    path = demo / "adapters/rate/adapter_model.safetensors"
    save_file({n.replace("query_key_value", "q_proj"): t for n, t in load_file(path).items()}, path)
    relock(demo)


def raise_layer(demo: Path) -> None:
    path = demo / "adapters/rate/adapter_model.safetensors"
    save_file({n.replace("layers.3.", "layers.30."): t for n, t in load_file(path).items()}, path)
    relock(demo)


def change_rank(rank: int) -> Break:
    def damage(demo: Path) -> None:
        edit(demo / "adapters/rate/adapter_config.json", r=rank)
        relock(demo)

    return damage


def configured(**fields: object) -> Break:
    """Another configuration of the adapter, which the lock file agrees with."""

    def damage(demo: Path) -> None:
        edit(demo / "adapters/rate/adapter_config.json", **fields)
        relock(demo)

    return damage


def written(text: str) -> Break:
    def damage(demo: Path) -> None:
        (demo / "adapters/rate/adapter_config.json").write_text(text)
        relock(demo)

    return damage


def weighted(change: Callable[[str, Tensor], Tensor | None]) -> Break:
    """Other weights, which the lock file agrees with; None is left out."""

    def damage(demo: Path) -> None:
        path = demo / "adapters/rate/adapter_model.safetensors"
        changed = {name: change(name, tensor) for name, tensor in load_file(path).items()}
        save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, path)
        relock(demo)

    return damage


def in_b(value: float) -> Break:
    return weighted(lambda name, one: torch.full_like(one, value) if "lora_B" in name else one)


def one_number(value: float, matrix: str) -> Break:
    """One number of one matrix."""

    def change(name: str, tensor: Tensor) -> Tensor:
        if "layers.2.mlp.dense_h_to_4h." + matrix in name:
            tensor = tensor.clone()
            tensor[3, 5] = value
        return tensor

    return weighted(change)


def without(words: str) -> Break:
    return weighted(lambda name, tensor: None if words in name else tensor)


def of_type(kind: torch.dtype) -> Break:
    return weighted(lambda name, tensor: tensor.to(kind))


def garble(demo: Path) -> None:
    (demo / "adapters/rate/adapter_model.safetensors").write_bytes(b"garbage")
    relock(demo)


def test_the_demo_model_passes() -> None:
    assert check(DEMO) == 32


BROKEN: dict[str, tuple[Break, str]] = {
    "base weights": (
        lambda d: (d / "base/model.safetensors").write_bytes(b"x"),
        "model.safetensors is not the file",
    ),
    "base tokenizer": (lambda d: edit(d / "base/tokenizer.json", x=1), "tokenizer.json is not"),
    "base file gone": (lambda d: (d / "base/model.safetensors").unlink(), "is missing"),
    "no base": (lambda d: shutil.rmtree(d / "base"), "unset MODEL"),
    "adapter weights": (
        lambda d: (d / "adapters/rate/adapter_model.safetensors").write_bytes(b"x"),
        "not the file in the lock file",
    ),
    "adapter garbled": (garble, "is no safetensors file"),
    "NaN in every lora_B": (in_b(float("nan")), "not finite"),
    "infinity in every lora_B": (in_b(float("inf")), "not finite"),
    "one NaN": (one_number(float("nan"), "lora_A"), "2.mlp.dense_h_to_4h.lora_A.weight has num"),
    "one infinity": (one_number(float("-inf"), "lora_B"), "lora_B.weight has numbers that are"),
    "every lora_B zero": (in_b(0), "every lora_B is zero"),
    "no tensors": (without(""), "is missing"),
    "no lora_B": (without("lora_B"), "lora_B.weight is missing"),
    "one lora_B missing": (
        without("1.attention.dense.lora_B"),
        "1.attention.dense.lora_B.*missing",
    ),
    "one lora_A missing": (without("0.mlp.dense_4h_to_h.lora_A"), "lora_A.weight is missing"),
    "a layer missing": (without("layers.3."), r"layers\.3\..* is missing"),
    "int8": (of_type(torch.int8), "is I8; save it as one of BF16, F16, F32"),
    "float64": (of_type(torch.float64), "is F64; save it as"),
    "lora_alpha null": (configured(lora_alpha=None), "lora_alpha is None"),
    "lora_alpha 0": (configured(lora_alpha=0), "lora_alpha is 0 .*greater than 0"),
    "lora_alpha text": (configured(lora_alpha="64"), "lora_alpha is '64'"),
    "r null": (configured(r=None), "r is None"),
    "r 0": (configured(r=0), "r is 0 .*greater than or equal to 1"),
    "r half": (configured(r=8.5), "r is 8.5"),
    "a list": (written("[]"), "it is no LoRA configuration"),
    "cut short": (written('{"r": 32, "lora'), "it is no LoRA configuration"),
    "not text": (written("\0"), "it is no LoRA configuration"),
    "no peft_type": (written('{"r": 32, "lora_alpha": 64}'), "peft_type is missing"),
    "prefix tuning": (configured(peft_type="PREFIX_TUNING"), "peft_type is 'PREFIX_TUNING'"),
    "DoRA": (configured(use_dora=True), "use_dora is True"),
    "QALoRA": (configured(use_qalora=True), "use_qalora is True"),
    "modules to save": (configured(modules_to_save=["embed_in"]), "modules_to_save is"),
    "bias": (configured(bias="all"), "bias is 'all'"),
    "lora_bias": (configured(lora_bias=True), "lora_bias is True"),
    "PiSSA": (configured(init_lora_weights="pissa"), "init_lora_weights"),
    "ranks by module": (configured(rank_pattern={"dense": 4}), "rank_pattern is"),
    "scales by module": (configured(alpha_pattern={"dense": 4}), "alpha_pattern is"),
    "some layers": (configured(layers_to_transform=[0]), "layers_to_transform is"),
    "layers twice": (configured(layer_replication=[[0, 4]]), "layer_replication is"),
    "tokens": (configured(trainable_token_indices=[1]), "trainable_token_indices is"),
    "no modules": (configured(target_modules=[]), "target_modules is"),
    "modules as a pattern": (configured(target_modules="all-linear"), "target_modules is 'all"),
    "another model's modules": (configured(target_modules=["q_proj"]), "target_modules has 'q_pr"),
    "fewer modules than weights": (configured(target_modules=["dense"]), "for no target module"),
    "adapter gone": (lambda d: shutil.rmtree(d / "adapters/rate"), "is missing or not"),
    "adapter configuration gone": (
        lambda d: (d / "adapters/rate/adapter_config.json").unlink(),
        "adapter_config.json is missing or not",
    ),
    "adapter's scaling": (
        lambda d: edit(d / "adapters/rate/adapter_config.json", lora_alpha=1),
        "adapter_config.json is missing or not",
    ),
    "adapter's rank": (change_rank(8), "has shape"),
    "adapter's rank too large": (change_rank(1024), "r is 1024 .*less than or equal to 512"),
    "adapter for a deeper base": (raise_layer, "is missing"),
    "adapter for a wider base": (widen_adapter, "trained on another base"),
    "adapter for other modules": (rename_module, "no target module"),
    "prompt changed": (
        lambda d: set_lock(d, "adapters", "rate", "prompt", value="0"),
        "another prompt or output",
    ),
    "output changed": (
        lambda d: set_lock(d, "adapters", "rate", "output", value="0"),
        "another prompt or output",
    ),
    "weights beside those of the lock": (
        lambda d: shutil.copy(d / "base/model.safetensors", d / "base/more.safetensors"),
        "more.safetensors is not in the adapters' lock file",
    ),
    "no adapter for a task": (lambda d: set_lock(d, "adapters", value={}), "no adapter for task"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_belong_together_is_named(case: str, demo: Path) -> None:
    damage, words = BROKEN[case]
    damage(demo)
    with pytest.raises(PreflightError, match=words) as caught:
        check(demo)
    assert "\n" not in str(caught.value)


@pytest.fixture
def signed(demo: Path) -> EngineSettings:
    """Settings of a demo whose lock file is signed, and want it to be."""
    key, adapters = Ed25519PrivateKey.generate(), demo / "adapters"
    (demo / "key.pub").write_bytes(pem(key.public_key()))
    (adapters / "lock.json.sig").write_bytes(key.sign((adapters / "lock.json").read_bytes()))
    return EngineSettings(
        model=str(demo / "base"), adapters=str(adapters), lock_key=demo / "key.pub"
    )


def pem(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_a_signed_lock_file_is_accepted(signed: EngineSettings) -> None:
    assert check_model(signed).rank == 32


OTHER = Ed25519PrivateKey.generate()
FORGED: dict[str, tuple[str, bytes | None, str]] = {
    "no signature": ("adapters/lock.json.sig", None, "lock.json.sig cannot be read"),
    "empty": ("adapters/lock.json.sig", b"", "is no signature of"),
    "zeros": ("adapters/lock.json.sig", bytes(64), "is no signature of"),
    "longer": ("adapters/lock.json.sig", bytes(65), "is no signature of"),
    "another's key": ("key.pub", pem(OTHER.public_key()), "is no signature of"),
    "no key": ("key.pub", None, "LOCK_KEY=.*No such file"),
    "no PEM": ("key.pub", b"key", "no Ed25519 public key as PEM"),
    "a kind that nobody knows": (
        "key.pub",
        b"-----BEGIN PUBLIC KEY-----\n"
        b"MCowBQYDK2V4AyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
        b"-----END PUBLIC KEY-----\n",
        "no Ed25519 public key as PEM",
    ),
    "another kind": (
        "key.pub",
        pem(ec.generate_private_key(ec.SECP256R1()).public_key()),
        "no Ed25519 public key as PEM",
    ),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_lock_file_that_is_not_signed_is_refused(
    case: str, signed: EngineSettings, demo: Path
) -> None:
    name, content, words = FORGED[case]
    if content is None:
        (demo / name).unlink()
    else:
        (demo / name).write_bytes(content)
    with pytest.raises(PreflightError, match=words) as caught:
        check_model(signed)
    assert "\n" not in str(caught.value)


def test_a_lock_file_that_was_changed_is_refused(signed: EngineSettings, demo: Path) -> None:
    set_lock(demo, "adapters", "rate", "golden", value=[])
    with pytest.raises(PreflightError, match="is no signature of"):
        check_model(signed)


def test_an_adapter_without_a_task_is_named(demo: Path) -> None:
    lock = json.loads((demo / "adapters/lock.json").read_text())
    set_lock(demo, "adapters", "other", value=lock["adapters"]["rate"])
    with pytest.raises(PreflightError, match="adapter other is not for a task"):
        check(demo)


def test_another_architecture_is_refused(demo: Path) -> None:
    edit(demo / "base/config.json", model_type="llama")
    set_lock(demo, "base", "files", "config.json", value=sha256(demo / "base/config.json"))
    with pytest.raises(PreflightError, match="serves gpt_neox"):
        check(demo)


@pytest.mark.parametrize("text", [None, "{", '{"base": 1}'])
def test_a_lock_file_that_cannot_be_read_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "lock.json").write_text(text)
    with pytest.raises(LockError, match=r"lock\.json"):
        Lock.load(tmp_path)


def start(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving.engine"],
        env={
            **os.environ,
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "ENGINE_PORT": str(free_port()),  # the default one may be in use
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_network_the_hub_s_model_is_named_with_the_way_out(tmp_path: Path) -> None:
    done = start(MODEL="EleutherAI/polyglot-ko-1.3b", HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().split("\n")
    assert "EleutherAI/polyglot-ko-1.3b is not in the Hugging Face cache" in line
    assert "unset MODEL" in line


def test_a_cached_tokenizer_alone_is_not_taken_for_the_model(tmp_path: Path) -> None:
    cache = tmp_path / "hub" / "models--EleutherAI--polyglot-ko-1.3b"
    snapshot = cache / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(snapshot.name)
    (snapshot / "config.json").write_text("{}")
    done = start(MODEL="EleutherAI/polyglot-ko-1.3b", HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "not in the Hugging Face cache" in done.stderr


@pytest.mark.parametrize("model", ["~/polyglot", "models/x--y", "./nowhere", "polyglot"])
def test_a_name_that_is_no_model_is_one_line(model: str, tmp_path: Path) -> None:
    done = start(MODEL=model, HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"MODEL={model}" in done.stderr


def test_a_port_that_is_taken_stops_the_start_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = start(ENGINE_PORT=str(port))
        with pytest.raises(StartError, match="set PORT"):
            check_port("127.0.0.1", port, "PORT")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "set ENGINE_PORT" in done.stderr


def test_the_command_line_names_base_adapters_and_backend() -> None:
    settings = EngineSettings(engine_port=9)
    lock = Lock.load(DEMO / "adapters")
    model = Checked(lock, DEMO / "base", DEMO / "adapters", rank=12)
    command = arguments(settings, model, machine=CPU, traces=None)
    options = dict(itertools.pairwise(command))
    assert options["--load-format"] == "safetensors"
    assert not any("trust" in word for word in command), "models are data"
    first = command.index("--lora-modules") + 1
    adapters = [f"{name}={DEMO / 'adapters' / name}" for name in TASKS]
    assert sorted(command[first : first + len(adapters)]) == sorted(adapters)
    assert options["--max-lora-rank"] == "16"
    assert int(options["--max-loras"]) == len(lock.adapters) + 1
    assert options["--structured-outputs-config.backend"] == "guidance"
    assert options["--served-model-name"] == "demo"
    assert options["--dtype"] == "float32"
    assert "--gpu-memory-utilization" not in command
    assert "--otlp-traces-endpoint" not in command
    target = TraceTarget("http://collector:4318/v1/traces", "http/protobuf")
    on_gpu = arguments(settings, model, machine=GPU, traces=target)
    assert "--gpu-memory-utilization" in on_gpu
    assert dict(itertools.pairwise(on_gpu))["--otlp-traces-endpoint"] == target.endpoint
    traced = environment(settings, GPU, target)
    assert traced["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    assert traced["OTEL_SERVICE_NAME"] == "routine-engine"
    assert "VLLM_CPU_KVCACHE_SPACE" in environment(settings, CPU, None)
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment(settings, GPU, None)
    assert environment(settings, CPU, None)["OMP_NUM_THREADS"] == "3"
