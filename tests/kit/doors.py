"""What an engine's port serves, and to whom."""

import urllib.error
import urllib.request

GUARDED = ("/v1/completions", "/v1/models")
OTHERS = ["/version", "/load", "/ping", "/tokenize", "/invocations", "/pause", "/server_info"]
OTHERS += ["/v1/chat/completions", "/v1/load_lora_adapter", "/reset_prefix_cache", "/docs"]
BODY = b'{"model": "demo", "prompt": "a", "max_tokens": 1}'


def statuses(url: str, key: str, *paths: str) -> list[int]:
    """Ask with ``key`` for each path; return the statuses."""
    found = []
    for path in paths:
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        body = BODY if "completions" in path else None
        try:
            request = urllib.request.Request(url + path, body, headers)
            with urllib.request.urlopen(request, timeout=10) as response:
                found.append(int(response.status))
        except urllib.error.HTTPError as error:
            error.close()
            found.append(error.code)
    return found


def open_doors(url: str, key: str) -> list[str]:
    """Return what should not be open, or should be."""
    wrong = [path for path in GUARDED if statuses(url, key, path) != [200]]
    wrong += [path for path in GUARDED if statuses(url, "another", path) != [401]]
    return wrong + [path for path in OTHERS if statuses(url, key, path) != [404]]
