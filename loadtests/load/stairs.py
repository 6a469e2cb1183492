"""Locust load shape: ramps up to ``--users`` in eight equal steps over ``--run-time``."""

from locust import LoadTestShape

STEPS = 8


class Stairs(LoadTestShape):
    """Stepped load, to find the point beyond which more users add no throughput."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        assert self.runner
        options = self.runner.environment.parsed_options
        assert options
        users, seconds = options.num_users or STEPS, options.run_time or 60 * STEPS
        step = int(self.get_run_time() / seconds * STEPS) + 1
        return (max(1, users * step // STEPS), users) if step <= STEPS else None
