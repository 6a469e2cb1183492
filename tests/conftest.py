from __future__ import annotations

from hypothesis import settings

settings.register_profile("shared machine", deadline=None)  # others' load is no failure of ours
settings.load_profile("shared machine")
