from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("shared machine", deadline=None)  # others' load is no failure of ours
settings.load_profile("shared machine")

# A shell ignores Ctrl-C for what it starts in the background, tests included; children inherit that,
# and tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
