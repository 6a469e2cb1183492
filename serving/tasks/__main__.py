"""Print the fingerprints that this version's adapters must match: ``python -m serving.tasks``.

The result has the prompt and output fingerprint of each task, as in ``lock.json``.
"""

import json

from serving.tasks.registry import TASKS

if __name__ == "__main__":
    found = {
        name: {"prompt": task.prompt_fingerprint(), "output": task.output_fingerprint()}
        for name, task in sorted(TASKS.items())
    }
    print(json.dumps(found, indent=2))
