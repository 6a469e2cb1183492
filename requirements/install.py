"""Install locked lists into an environment: ``python3 -m requirements.install .venv LIST ...``

The lists are complete and installed without dependency resolution. With resolution, installers add
CUDA builds of torchvision, torchaudio and torchcodec on a CPU machine, which break
``import transformers``. uv takes a quarter of pip's time; pip is the fallback if uv fails (uv sees
only the pip settings passed on by this module). Both refuse files whose hashes the lists lack.
Their output goes to a log file.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from serving.terminal import Terminal

UV = Path(__file__).with_name("uv.txt")
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Hosts the +cpu builds, which PyPI lacks."""
PIP_PLACES = ("global", "user", "site", "install", ":env:")
"""Sources of pip's settings; later ones override earlier ones."""
OLDEST_PYTHON = (3, 11)


class InstallError(Exception):
    """Installation failed; the message says what to do."""


class Installer:
    """Installs packages into the folder ``environment``."""

    def __init__(self, environment: Path, terminal: Terminal) -> None:
        self._environment, self._terminal = environment, terminal
        self._python = str(environment / "bin" / "python")
        self.log = environment / "install.log"

    def create(self) -> None:
        """Create the virtual environment if it does not exist."""
        self._environment.mkdir(parents=True, exist_ok=True)
        if not Path(self._python).exists():
            self._run(
                "making a virtual environment", sys.executable, "-m", "venv", self._environment
            )

    def install(self, lists: Sequence[Path]) -> None:
        """Install all packages in ``lists``, then this project.

        Raises:
            InstallError: both uv and pip failed.
        """
        files = [word for path in lists for word in ("-r", str(path))]
        torch = _torch(lists)
        try:
            self._pip("fetching uv", "-r", str(UV))
            given = _given_to_uv(self._pip_settings())
            if torch.endswith("+cpu") and not _is_at_hand(torch, given):
                self._uv("installing torch", "--default-index", TORCH_CPU_INDEX, torch)
            self._uv("installing packages", *given, *files)
        except InstallError:
            self._terminal.step(f"uv cannot install here (see {self.log}): pip does, more slowly")
            if torch.endswith("+cpu"):
                try:
                    self._pip("installing torch", torch)
                except InstallError:
                    self._pip("installing torch", "--extra-index-url", TORCH_CPU_INDEX, torch)
            self._pip("installing packages", *files)
        self._pip("installing this project", "--no-build-isolation", "--editable", ".")

    def _pip(self, what: str, *arguments: str) -> None:
        self._run(what, self._python, "-m", "pip", "install", "--no-deps", *arguments)

    def _uv(self, what: str, *arguments: str) -> None:
        uv = self._environment / "bin" / "uv"
        self._run(what, uv, "pip", "install", "--python", self._python, "--no-deps", *arguments)

    def _pip_settings(self) -> dict[str, str]:
        """Return pip's settings by long option name, from its files and the environment."""
        command = [self._python, "-m", "pip", "config", "list"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for line in done.stdout.splitlines():
            place, _, rest = line.partition(".")
            name, _, value = rest.partition("=")
            found[place][name] = ast.literal_eval(value)
        return {n: v for place in PIP_PLACES for n, v in found[place].items()}

    def _run(self, what: str, *command: str | Path) -> None:
        """Run ``command`` and append its output to the log.

        Raises:
            InstallError: the command failed.
        """
        done = threading.Event()

        def show() -> None:
            while not done.wait(0.2):
                self._terminal.tick(what)

        clock = threading.Thread(target=show)
        clock.start()
        try:
            with self.log.open("ab") as log:
                log.write(f"$ {' '.join(map(str, command))}\n".encode())
                log.flush()
                code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        finally:
            done.set()
            clock.join()
        if code:
            raise InstallError(
                f"{what} failed: connect to the package registry, or name a mirror in pip's "
                f"settings, and try again. Its output is in {self.log}"
            )


def _torch(lists: Sequence[Path]) -> str:
    lines = (line for path in lists for line in path.read_text(encoding="utf-8").splitlines())
    return next(line.split()[0] for line in lines if line.startswith("torch=="))


def _given_to_uv(settings: dict[str, str]) -> list[str]:
    """Convert the pip settings that uv supports to uv options."""
    if "cert" in settings:
        os.environ.setdefault("SSL_CERT_FILE", settings["cert"])
    given = [f"--find-links={place}" for place in settings.get("find-links", "").split()]
    if "index-url" in settings:
        given.append(f"--default-index={settings['index-url']}")
    return given


def _is_at_hand(torch: str, given: Sequence[str]) -> bool:
    """Return whether a ``--find-links`` folder contains a wheel of ``torch``."""
    pattern = f"{torch.replace('==', '-')}-*.whl"
    folders = (Path(word.partition("=")[2]) for word in given if word.startswith("--find-links"))
    return any(any(folder.glob(pattern)) for folder in folders if folder.is_dir())


def main() -> None:
    if sys.version_info < OLDEST_PYTHON:
        oldest, own = (".".join(map(str, v[:2])) for v in (OLDEST_PYTHON, sys.version_info))
        sys.exit(
            f"install: Python {oldest} or newer is needed, {sys.executable} is {own}: set PYTHON"
        )
    environment, *lists = map(Path, sys.argv[1:])
    terminal = Terminal(sys.stdout)
    installer = Installer(environment, terminal)
    lines = {line for path in lists for line in path.read_text(encoding="utf-8").splitlines()}
    terminal.step(f"installing {len(lines)} packages into {environment}; log: {installer.log}")
    try:
        installer.create()
        installer.install(lists)
    except InstallError as error:
        sys.exit(f"install: {error}")
    terminal.step("installed")


if __name__ == "__main__":
    main()
