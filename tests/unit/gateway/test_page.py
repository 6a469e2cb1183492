"""The page at /: what is served, and what it may do. tests/e2e/test_page.py uses it."""

import re

from starlette.testclient import TestClient

from serving.gateway.page import FOLDER


def test_the_page_and_its_files_are_served_under_a_strict_policy(client: TestClient) -> None:
    html = client.get("/").text
    files = re.findall(r'(?:href|src)="(static/[^"]+)"', html)
    assert len(files) == 3
    for path in ("", *files):
        response = client.get(f"/{path}")
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        again = client.get(f"/{path}", headers={"if-none-match": response.headers["etag"]})
        assert again.status_code == 304


def test_a_file_that_is_not_there_is_told_in_the_common_shape(client: TestClient) -> None:
    for path in ("/static/none.js", "/static/../page.py", "/static/%2e%2e/page.py", "/static/"):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"
    refused = client.post("/")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET"


def test_nothing_of_it_comes_from_elsewhere_or_is_written_into_the_html() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(?:https?:)?//\w+\.\w", text), path
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
