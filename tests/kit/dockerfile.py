"""Executes a Dockerfile's steps without Docker, in a folder, as the current user.

One folder replaces the file systems of all stages, because they write to different places. A
virtual environment replaces the base image's Python. Steps that need root (Debian packages, users)
are skipped and listed.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from dockerfile_parse import DockerfileParser

from loadtests.service import ROOT

OURS = re.compile(r"(?<![\w/.])/(opt/venv|opt/routine|opt/ray|requirements|wheel|src|cache|app)\b")
"""Folders that this project creates in the images."""
OF_ROOT = re.compile(r"\b(apt-get|useradd)\b")
MOUNT = re.compile(r"--mount=(\S+)\s*")
WITHOUT_EFFECT_HERE = {"LABEL", "USER", "EXPOSE", "VOLUME", "STOPSIGNAL", "COMMENT"}


@dataclass
class Stage:
    """State of a stage."""

    environment: dict[str, str]
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


class Build:
    """Builds a Dockerfile's stages under ``root``.

    Args:
        path: path of the Dockerfile; the build context is the repository.
        root: an empty folder.
        vllm: environment that replaces vLLM's image, with the same Python version.
    """

    def __init__(self, path: Path, root: Path, vllm: Path | None = None) -> None:
        self.root, self.of_root = root, list[str]()
        self._arguments = {"VLLM_PYTHON": "{}.{}".format(*sys.version_info)}
        # Copying and bytecode compilation help image layers; here they take most of the time.
        self._uv = {"UV_LINK_MODE": "hardlink", "UV_COMPILE_BYTECODE": "0"}
        if links := os.environ.get("PIP_FIND_LINKS"):  # torch may be available only there
            self._uv["UV_FIND_LINKS"] = links
            self._arguments["TORCH_INDEX"] = root.as_uri()
        self._bases = {"${PYTHON_IMAGE}": root / "python", "${VLLM_IMAGE}": vllm}
        subprocess.run([sys.executable, "-m", "venv", root / "python"], check=True)
        self._built: dict[str, Stage] = {}
        self._steps: dict[str, list[tuple[str, str]]] = {}
        name = ""
        for step in DockerfileParser(fileobj=io.BytesIO(path.read_bytes())).structure:
            if step["instruction"] == "FROM":
                name = step["value"].split(" AS ")[1]
            self._steps.setdefault(name, []).append((step["instruction"], step["value"]))

    def stage(self, name: str) -> Stage:
        """Build a stage once, after the stages it depends on."""
        if name not in self._built:
            (_, start), *steps = self._steps[name]
            parent = start.split(" AS ")[0]
            if parent in self._steps:
                old = self.stage(parent)
                stage = Stage({**old.environment}, old.folder)
            else:
                stage = Stage({"PATH": f"{self._bases[parent]}/bin:/usr/bin:/bin"})
            for kind, value in steps:
                self._take(stage, kind, value)
            self._built[name] = stage
        return self._built[name]

    def here(self, text: str) -> str:
        """Replace the images' folders in ``text`` with their paths on this machine."""
        return OURS.sub(lambda found: f"{self.root}{found[0]}", text)

    def _take(self, stage: Stage, kind: str, value: str) -> None:
        match kind:
            case "ENV" | "ARG":
                for assignment in value.split():
                    key, _, text = assignment.partition("=")
                    text = Template(self._arguments.get(key, text)).substitute(stage.environment)
                    stage.environment[key] = self.here(text)
            case "WORKDIR":
                stage.folder = self.here(value)
                Path(stage.folder).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(stage, value.split())
            case "RUN":
                self._run(stage, value)
            case "ENTRYPOINT":
                stage.entrypoint = json.loads(value)
            case "CMD":
                stage.command = json.loads(value)
            case "HEALTHCHECK":
                stage.health = json.loads(value.partition("CMD ")[2])
            case _:
                assert kind in WITHOUT_EFFECT_HERE, kind

    def _copy(self, stage: Stage, words: list[str]) -> None:
        *sources, target = words
        if sources[0].startswith("--from="):
            self.stage(sources.pop(0).removeprefix("--from="))
            assert sources == [target]  # already there: stages share the folder
            assert Path(self.here(target)).is_dir()
            return
        let_in = {
            line[1:] for line in (ROOT / ".dockerignore").read_text().split("\n") if line[:1] == "!"
        }
        place = Path(stage.folder, target)
        for pattern in sources:
            assert pattern.split("/")[0] in let_in, f"{pattern} is not in the context"
            found = list(ROOT.glob(pattern))
            assert found, pattern
            for source in found:
                if source.is_dir():
                    shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, place)

    def _run(self, stage: Stage, value: str) -> None:
        for mount in MOUNT.findall(value):
            fields = dict(part.split("=", 1) for part in mount.split(","))
            if fields["type"] == "bind":
                assert fields["source"] == fields["target"]
                self.stage(fields["from"])
        script = MOUNT.sub("", value).strip()
        if OF_ROOT.search(script):
            self.of_root.append(" ".join(script.split()))
            return
        subprocess.run(
            ["bash", "-euc", self.here(script)],
            cwd=stage.folder,
            env={**os.environ, **stage.environment, **self._uv},
            check=True,
        )
