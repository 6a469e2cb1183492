"""LiteLLM's SDK: argv[1] is the service, argv[2] a rate request as JSON."""

import json
import sys

import litellm

url, request = sys.argv[1:]
asked = {
    "model": "openai/rate",
    "api_base": f"{url}/v1",
    "api_key": "none",
    "messages": [{"role": "user", "content": request}],
}
whole = litellm.completion(**asked)
assert json.loads(whole.choices[0].message.content)["program"], whole
assert whole.usage.total_tokens > 0, whole
parts = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True)]
assert "".join(parts) == whole.choices[0].message.content, parts

text = litellm.text_completion(
    model="text-completion-openai/rate", prompt="## 질문\n", max_tokens=8, temperature=0,
    api_base=f"{url}/v1", api_key="none",
)  # fmt: skip
assert text.choices[0].text, text
