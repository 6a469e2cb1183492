"""The Dockerfile as text: its linter, and what every image must have. What its steps do is seen in
``tests/e2e/test_images.py``."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from loadtests.service import ROOT

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
IMAGES = ("gateway", "engine-cpu", "engine-gpu", "ray-gpu", "load")


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """By name: what a stage starts from, and its steps."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for step in DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes())).structure:
        if step["instruction"] == "FROM":
            start, _, name = step["value"].partition(" AS ")
            found[name] = (start, [])
        elif name:
            found[name][1].append((step["instruction"], step["value"]))
    return found


def steps(name: str) -> list[tuple[str, str]]:
    """A stage's, and before them those of the stages it starts from."""
    start, own = stages()[name]
    return [*(steps(start) if start in stages() else []), *own]


def test_hadolint_passes() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_labelled_healthy_and_not_root_s(image: str) -> None:
    last = dict(steps(image))  # of each instruction the last
    assert last["USER"] == "10001:10001"
    assert last["VOLUME"] == "/cache"
    assert last["ENTRYPOINT"].startswith('["dumb-init", ')
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in last["LABEL"]
    assert f'title="routine-{image}"' in last["LABEL"]
    if image != "load":  # which ends by itself
        assert "HEALTHCHECK" in last


@pytest.mark.parametrize("image", IMAGES)
def test_packages_come_before_source_and_weights_not_at_all(image: str) -> None:
    copied = [value for kind, value in steps(image) if kind == "COPY"]
    assert copied
    assert not any(re.search("finetune|models|safetensors", value) for value in copied)
    if image != "load":
        assert all("--from=" in value for value in copied)


def test_bases_have_versions() -> None:
    text = DOCKERFILE.read_text()
    arguments = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", text, re.MULTILINE))
    bases = {start for start, _ in stages().values()} - set(stages())
    assert bases == {f"${{{name}}}" for name in arguments}
    for image in arguments.values():
        assert re.search(r":v?\d+\.\d+\.\d+", image), image
