"""The images: the Dockerfile's steps are taken in folders, and what comes of them is started."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from deploy.ray.versions import TESTED_RAY
from loadtests.service import ROOT, free_port, served
from serving.engine.settings import DEMO
from tests.kit.bad_requests import GOOD
from tests.kit.dockerfile import Build, Stage
from tests.kit.oracle import faults

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
SECRET = {"VLLM_API_KEY": "secret"}
MODEL = {"MODEL": f"{DEMO}/base", "ADAPTERS": f"{DEMO}/adapters"}
USER = "useradd --uid 10001 --user-group --home-dir /cache --create-home routine"


@dataclass
class Image:
    """A target of the Dockerfile, built."""

    build: Build
    stage: Stage

    @classmethod
    def make(cls, target: str, root: Path, vllm: Path | None = None) -> Self:
        build = Build(DOCKERFILE, root, vllm)
        return cls(build, build.stage(target))

    def environment(self, variables: dict[str, str]) -> dict[str, str]:
        return {**self.stage.environment, **variables}

    def served(
        self, ready: str, log: Path, **variables: str
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A container that answers at ``ready``."""
        return served(
            self.stage.entrypoint,
            ready,
            log,
            self.environment(variables),
            Path(self.stage.folder),
        )

    def run(self, command: list[str], **variables: str) -> tuple[int, str]:
        """Exit code and output of a command in a container."""
        done = subprocess.run(
            command,
            cwd=self.stage.folder,
            env=self.environment(variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image.make("engine-cpu", tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image.make("gateway", tmp_path_factory.mktemp("gateway"))


@pytest.fixture(scope="module")
def ports(
    engine: Image, gateway: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """The gateway's and the engine's, running; at SIGTERM both end by themselves."""
    port, engine_port = str(free_port()), str(free_port())
    of_engine = {"ENGINE_PORT": engine_port, **MODEL, **SECRET}
    of_gateway = {"PORT": port, "ENGINE_URL": f"http://127.0.0.1:{engine_port}", **SECRET}
    of_gateway["ALLOW_ANONYMOUS"] = "yes"
    logs = tmp_path_factory.mktemp("logs")
    with (
        engine.served(f"http://127.0.0.1:{engine_port}/health", logs / "e", **of_engine) as one,
        gateway.served(f"http://127.0.0.1:{port}/readyz", logs / "g", **of_gateway) as other,
    ):
        yield port, engine_port
        for process, name in ((other, "g"), (one, "e")):
            process.terminate()
            assert process.wait(20) == 0, (logs / name).read_text()


def test_engine_and_gateway_answer(ports: tuple[str, str]) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{ports[0]}/gen/routine/rate",
        json.dumps(GOOD).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        assert not faults(json.load(response))
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/static/page.js", timeout=20) as file:
        assert file.status == 200


def test_health_checks_tell_well_from_not_there(
    ports: tuple[str, str], engine: Image, gateway: Image
) -> None:
    for image, name, port in ((gateway, "PORT", ports[0]), (engine, "ENGINE_PORT", ports[1])):
        assert image.run(image.stage.health, **{name: port}, **SECRET) == (0, "")
        assert image.run(image.stage.health, **{name: str(free_port())}, **SECRET)[0] == 1


def test_the_load_test_s_image_loads(ports: tuple[str, str], tmp_path: Path) -> None:
    image = Image.make("load", tmp_path)
    options = [*image.stage.command, "--host", f"http://127.0.0.1:{ports[0]}"]
    options += ["-u", "2", "-t", "5s", "--deadline", "10"]
    code, said = image.run(image.stage.entrypoint + options)
    assert code == 0, said
    assert "/gen/routine/rate" in said


def test_an_image_asks_for_its_secrets(engine: Image, gateway: Image) -> None:
    code, said = engine.run(engine.stage.entrypoint)
    assert (code, said.count("\n")) == (1, 1)
    assert "set VLLM_API_KEY to a secret" in said
    code, said = gateway.run(gateway.stage.entrypoint)
    assert (code, said.count("\n")) == (1, 1)
    assert "set GATEWAY_KEYS" in said


def test_a_model_that_is_not_there_is_one_line(engine: Image) -> None:
    code, said = engine.run(engine.stage.entrypoint, **SECRET)
    assert (code, said) == (1, "engine: /models/adapters/lock.json is missing. ADAPTERS must name "
                               "a folder that finetune.export wrote\n")  # fmt: skip


def test_the_gpu_s_image_without_a_gpu_is_one_line(engine: Image, tmp_path: Path) -> None:
    """Here the CPU image's packages stand for those of vLLM's image."""
    image = Image.make("engine-gpu", tmp_path, Path(engine.build.root / "opt" / "venv"))
    code, said = image.run(image.stage.entrypoint, **MODEL, **SECRET)
    assert code == 1
    assert said.startswith("engine: ENGINE_DEVICE=gpu, but no NVIDIA GPU was found")
    assert said.count("\n") == 1


def test_a_ray_node_has_all_that_the_application_imports(engine: Image, tmp_path: Path) -> None:
    """And its commands run."""
    image = Image.make("ray-gpu", tmp_path, Path(engine.build.root / "opt" / "venv"))
    code, said = image.run(["ray", "--version"])
    assert (code, said) == (0, f"ray, version {TESTED_RAY}\n")
    code, said = image.run(["python3", "-c", "import deploy.ray.app as app; print(app.__file__)"])
    assert (code, said.splitlines()[-1]) == (0, f"{tmp_path}/opt/ray/deploy/ray/app.py"), said
    node = [*image.stage.entrypoint, *image.stage.command]
    assert node[:5] == ["dumb-init", "--", "ray", "start", "--block"]


def test_nothing_else_takes_root(engine: Image, gateway: Image) -> None:
    """And is not seen to work here."""
    assert gateway.build.of_root == [USER]
    assert engine.build.of_root == [
        USER,
        "apt-get update && apt-get install --yes --no-install-recommends libnuma1 "
        "libtcmalloc-minimal4 && rm -rf /var/lib/apt/lists/*",
    ]
