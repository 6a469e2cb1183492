"""API keys: ``python -m serving.keys create NAME``, ``list`` and ``revoke NAME``.

They lie in a JSON file, by default the one that ``GATEWAY_KEYS`` names. It has the keys' SHA-256
only: a key has 256 random bits, which no dictionary has and no slow hash need protect. A key is
found by its hash, so the time that this takes tells nothing of a key that was guessed in part. The
gateway reads the file again when it changes.
"""

import argparse
import fcntl
import hashlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from serving.process import StartError
from serving.tasks.registry import CALCULATIONS, TASKS

VARIABLE = "GATEWAY_KEYS"
PREFIX = "routine-"
"""Beginning of a key, by which scanners for secrets may know it."""
KEY_BYTES = 32
ROUTES = (*TASKS, *CALCULATIONS)
_Limit = Annotated[int, Field(ge=1)] | None


class KeysError(StartError):
    """The file of keys cannot be read or written; the message says why, in one line."""


class Key(BaseModel):
    """A key, as it lies in the file. What is null is not limited."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """Who has it; in metrics and logs."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tasks: list[str] | None = None
    """Tasks it may ask."""
    models: list[str] | None = None
    """Models it may have complete a text."""
    requests_per_second: _Limit = None
    requests_at_once: _Limit = None
    tokens_per_minute: _Limit = None
    """Tokens of prompts and answers."""
    expires: AwareDatetime | None = None

    @field_validator("tasks")
    @classmethod
    def _are_served(cls, tasks: list[str] | None) -> list[str] | None:
        if unknown := set(tasks or ()) - set(ROUTES):
            raise ValueError(f"there is no {min(unknown)!r}; there are {', '.join(ROUTES)}")
        return tasks

    @property
    def has_expired(self) -> bool:
        return self.expires is not None and self.expires <= datetime.now(UTC)


class Keys(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    keys: list[Key]

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        for field in ("name", "sha256"):
            found = [getattr(key, field) for key in self.keys]
            if len(set(found)) < len(found):
                raise ValueError(f"two keys have one {field}")
        return self


def digest(secret: bytes) -> str:
    """Return what the file has of a key."""
    return hashlib.sha256(secret).hexdigest()


def read(path: Path) -> Keys:
    """Read a file of keys.

    Raises:
        KeysError: it cannot be read, or is not as it should be.
    """
    try:
        return Keys.model_validate_json(path.read_bytes())
    except OSError as error:
        raise KeysError(f"{path} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise KeysError(f"{path}: {_said(error)}") from error


def _said(error: ValidationError) -> str:
    """Return the first mistake and where it is, without what was given: it may be a key."""
    first = error.errors(include_url=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


@contextmanager
def _changed(path: Path) -> Iterator[list[Key]]:
    """Yield the keys to be changed, and write them when the context ends: nobody else changes
    them meanwhile, and nobody reads half a file."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            keys = list(read(path).keys) if path.exists() else []
            yield keys
            text = Keys(keys=keys).model_dump_json(indent=2, exclude_none=True) + "\n"
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                file.write(text)
            # All may read a new file: it has hashes alone, and containers run as someone else.
            Path(file.name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            Path(file.name).replace(path)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeysError(f"{path} cannot be written ({error.strerror})") from error


def create(path: Path, name: str, fields: dict[str, Any]) -> str:
    """Add a key; return it. It is nowhere else.

    Args:
        path: the file, made if there is none.
        name: of who is to have it.
        fields: other fields of ``Key``.

    Raises:
        KeysError: there is one of this name, or a field is wrong.
    """
    secret = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    with _changed(path) as keys:
        if any(key.name == name for key in keys):
            raise KeysError(f"{path} has a key for {name}: revoke it first, or take another name")
        try:
            keys.append(Key(name=name, sha256=digest(secret.encode()), **fields))
        except ValidationError as error:
            raise KeysError(_said(error)) from error
    return secret


def revoke(path: Path, name: str) -> None:
    """Take a key out of the file.

    Raises:
        KeysError: there is none of this name.
    """
    with _changed(path) as keys:
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            raise KeysError(f"{path} has no key for {name}")
        keys[:] = left


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.keys", description="API keys")
    parser.add_argument(
        "--file", type=Path, default=os.environ.get(VARIABLE), help=f"${VARIABLE} if not given"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("create", help="add a key, and show it this once")
    making.add_argument("name", help="who is to have it; shown in metrics and logs")
    making.add_argument("--task", action="append", dest="tasks", help=f"of {', '.join(ROUTES)}")
    making.add_argument("--model", action="append", dest="models", help="for /v1/completions")
    for limit in ("requests-per-second", "requests-at-once", "tokens-per-minute"):
        making.add_argument(f"--{limit}", type=int, metavar="N")
    making.add_argument("--days", type=float, help="until it expires")
    commands.add_parser("list", help="show all keys' names and limits")
    commands.add_parser("revoke", help="end a key").add_argument("name")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    arguments = vars(_parser().parse_args(words))
    path, command = arguments.pop("file"), arguments.pop("command")
    if path is None:
        sys.exit(f"keys: name the file: --file keys.json, or set {VARIABLE}")
    try:
        if command == "create":
            name, days = arguments.pop("name"), arguments.pop("days")
            if days is not None:
                if not 0 < days < 36_500:
                    raise KeysError("--days must be above 0, and less than a hundred years")
                arguments["expires"] = datetime.now(UTC) + timedelta(days=days)
            print(create(path, name, arguments))
            print("This is all that will ever be seen of it: keep it safe.", file=sys.stderr)
        elif command == "list":
            for key in read(path).keys:
                fields = key.model_dump(mode="json", exclude={"name", "sha256"}, exclude_none=True)
                print(key.name, "expired" if key.has_expired else "", json.dumps(fields))
        else:
            revoke(path, arguments["name"])
    except KeysError as error:
        sys.exit(f"keys: {error}")


if __name__ == "__main__":
    main()
