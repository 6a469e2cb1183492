"""The prompt's bytes: the one place that turns a profile into the text a model is asked with.

Training reads the same function, so the prompt a model was trained on and the prompt it is served
with cannot differ. A change here changes the fingerprint, and adapters trained before it no longer
start (serving.engine.preflight).
"""

from __future__ import annotations

from serving.contract.profile import LIFTS, Profile, on_grid

ANSWER = "\n## 답변\n"
"""What stands between question and answer."""


def question(title: str, profile: Profile) -> str:
    """The prompt for ``profile``, up to where the answer's first byte follows.

    Args:
        title: the first line of the question; it names the task.
        profile: validated; weights are stated on the 2.5 kg grid.
    """
    lines = [
        "## 질문",
        f"-{title}",
        f"- **운동경험**: {profile.experience}",
        f"- **성별**: {profile.gender}",
        f"- **운동목표**: {profile.purpose}",
        "- **1RM**:",
    ]
    for field, name in LIFTS.items():
        lines.append(f"  - {name}: {on_grid(getattr(profile.rm_weight, field)):g}kg")
    return "\n".join(lines) + "\n" + ANSWER
