"""What this version's adapters must have been trained for: ``python -m serving.tasks``.

Prints, by task, the fingerprints of prompt and output as ``lock.json`` has them.
"""

from __future__ import annotations

import json

from serving.tasks.registry import TASKS

if __name__ == "__main__":
    found = {
        name: {"prompt": task.prompt_fingerprint(), "output": task.output_fingerprint()}
        for name, task in sorted(TASKS.items())
    }
    print(json.dumps(found, indent=2))
