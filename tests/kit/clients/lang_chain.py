"""LangChain's OpenAI clients: argv[1] is the service, argv[2] a rate request as JSON."""

import json
import sys

from langchain_openai import ChatOpenAI, OpenAI

url, request = sys.argv[1:]
chat = ChatOpenAI(base_url=f"{url}/v1", api_key="none", model="rate")
whole = chat.invoke(request)
assert json.loads(whole.content)["program"], whole
assert whole.usage_metadata["total_tokens"] > 0, whole
assert "".join(chunk.content for chunk in chat.stream(request)) == whole.content

completions = OpenAI(
    base_url=f"{url}/v1", api_key="none", model="rate", temperature=0, max_tokens=8
)
text = completions.invoke("## 질문\n")
assert text, text
assert "".join(completions.stream("## 질문\n")) == text
