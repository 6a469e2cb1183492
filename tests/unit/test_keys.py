"""The file of keys, and the commands that write it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.keys import KeysError, create, digest, main, read

HASH = digest(b"routine-a")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def run(file: Path, *words: str) -> None:
    main(["--file", str(file), *words])


def test_a_key_is_shown_once_and_its_hash_is_kept(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["--requests-per-second", "5", "--requests-at-once", "2", "--tokens-per-minute", "900"]
    run(file, "create", "app", "--task", "rate", "--model", "demo", *limits, "--days", "1")
    secret = capsys.readouterr().out.strip()
    assert len(secret) > 43
    assert secret not in file.read_text()
    (key,) = read(file).keys
    assert (key.name, key.sha256, key.has_expired) == ("app", digest(secret.encode()), False)
    assert (key.tasks, key.models) == (["rate"], ["demo"])
    assert (key.requests_per_second, key.requests_at_once, key.tokens_per_minute) == (5, 2, 900)
    assert file.stat().st_mode & 0o777 == 0o644
    run(file, "list")
    listed = capsys.readouterr().out
    assert "app" in listed
    assert key.sha256 not in listed
    run(file, "revoke", "app")
    assert read(file).keys == []


def test_a_file_keeps_who_may_read_it(file: Path) -> None:
    create(file, "a", {})
    file.chmod(0o640)
    create(file, "b", {})
    assert file.stat().st_mode & 0o777 == 0o640


def test_of_keys_that_are_made_at_once_none_is_lost(file: Path) -> None:
    def one(number: int) -> None:
        command = [
            sys.executable,
            "-m",
            "serving.keys",
            "--file",
            str(file),
            "create",
            f"k{number}",
        ]
        subprocess.run(command, check=True, capture_output=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(8)))
    assert sorted(key.name for key in read(file).keys) == [f"k{n}" for n in range(8)]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


ONE = {"name": "app", "sha256": HASH}
WRONG = {
    "not JSON": ("{", "Invalid JSON"),
    "empty": ("", "Invalid JSON"),
    "no object": ("[]", "Input should be an object"),
    "no keys": ("{}", "keys: Field required"),
    "another field": ({**ONE, "role": "admin"}, "keys.0.role: Extra inputs"),
    "no name": ({"sha256": HASH}, "keys.0.name: Field required"),
    "a name with a space": ({**ONE, "name": "a b"}, "keys.0.name: "),
    "a name with a line": ({**ONE, "name": "a\n"}, "keys.0.name: "),
    "a key itself": ({**ONE, "sha256": "routine-a"}, "keys.0.sha256: "),
    "a limit of zero": ({**ONE, "requests_per_second": 0}, "keys.0.requests_per_second: "),
    "a negative limit": ({**ONE, "tokens_per_minute": -1}, "keys.0.tokens_per_minute: "),
    "a limit as text": ({**ONE, "requests_at_once": "2"}, "keys.0.requests_at_once: "),
    "half a request": ({**ONE, "requests_per_second": 0.5}, "keys.0.requests_per_second: "),
    "an unknown task": ({**ONE, "tasks": ["year"]}, "there is no 'year'; there are rate, month"),
    "no date": ({**ONE, "expires": "soon"}, "keys.0.expires: "),
    "a date without a zone": ({**ONE, "expires": "2030-01-01T00:00:00"}, "keys.0.expires: "),
}


@pytest.mark.parametrize(("content", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_told_in_one_line(file: Path, content: object, words: str) -> None:
    text = content if isinstance(content, str) else json.dumps({"keys": [content]})
    file.write_text(text)
    with pytest.raises(KeysError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "routine-a" not in str(caught.value), "a key that was put there by mistake"


@pytest.mark.parametrize("field", ["name", "sha256"])
def test_two_keys_are_not_one(file: Path, field: str) -> None:
    other = {"name": "b", "sha256": digest(b"b"), field: ONE[field]}
    file.write_text(json.dumps({"keys": [ONE, other]}))
    with pytest.raises(KeysError, match=f"two keys have one {field}"):
        read(file)


MISTAKES = [
    (["create", "app"], "has a key for app"),
    (["create", "a/b"], "name: "),
    (["create", "b", "--requests-at-once", "0"], "requests_at_once: "),
    (["create", "b", "--task", "year"], "there is no 'year'"),
    (["create", "b", "--days", "0"], "--days must be above 0"),
    (["create", "b", "--days", "-1"], "--days must be above 0"),
    (["create", "b", "--days", "nan"], "--days must be above 0"),
    (["create", "b", "--days", "1e9"], "--days must be above 0"),
    (["revoke", "nobody"], "has no key for nobody"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES)
def test_a_mistake_changes_nothing(file: Path, words: list[str], said: str) -> None:
    create(file, "app", {})
    before = file.read_text()
    with pytest.raises(SystemExit) as caught:
        run(file, *words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot be written"):
        run(tmp_path / "no" / "keys.json", "create", "app")
    with pytest.raises(SystemExit, match="cannot be read"):
        run(tmp_path / "keys.json", "list")


def test_the_file_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_KEYS", raising=False)
    with pytest.raises(SystemExit, match="set GATEWAY_KEYS"):
        main(["list"])
