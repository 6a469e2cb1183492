"""The prompt's form: the one place that turns facts into the text a model is asked with.

Training reads the same function, so the prompt a model was trained on and the prompt it is served
with cannot differ. A change here changes the fingerprint, and adapters trained before it no longer
start (serving.engine.preflight).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

ANSWER = "\n## 답변\n"
"""What stands between question and answer."""

QUESTION = "## 질문\n-"
Fact = str | int
Facts = Mapping[str, Fact | Mapping[str, Fact]]
_FACT = re.compile(r"^- \*\*(.+?)\*\*: (.+)$", re.MULTILINE)


def question(title: str, facts: Facts) -> str:
    """A question, up to where the answer's first byte follows.

    Args:
        title: the first line of the question; it names the task.
        facts: what the model must know, one line each; a mapping becomes a list below its name.
    """
    lines = [QUESTION + title]
    for name, fact in facts.items():
        if isinstance(fact, Mapping):
            lines.append(f"- **{name}**:")
            lines += [f"  - {part}: {value}" for part, value in fact.items()]
        else:
            lines.append(f"- **{name}**: {fact}")
    return "\n".join(lines) + "\n" + ANSWER


def read_question(text: str) -> tuple[str, dict[str, str], str] | None:
    """Title, facts (those of one line) and the answer so far in a text that begins with a question,
    or None if it does not."""
    asked, found, answer = text.partition(ANSWER)
    if not found or not asked.startswith(QUESTION):
        return None
    title, _, facts = asked.removeprefix(QUESTION).partition("\n")
    return title, dict(_FACT.findall(facts)), answer
