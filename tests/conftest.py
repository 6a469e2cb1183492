import signal

from hypothesis import settings

settings.register_profile("shared machine", deadline=None)  # others' load is no failure of ours
settings.register_profile("fuzz", deadline=None, max_examples=2000)
settings.load_profile("shared machine")

# Tests press Ctrl-C, and a shell has what it starts in the background ignore that, for good.
signal.signal(signal.SIGINT, signal.default_int_handler)
