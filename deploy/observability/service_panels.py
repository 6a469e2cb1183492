"""The dashboard's rows that tell of the service: overview, adapters, gateway."""

from __future__ import annotations

from deploy.observability.panels import (
    HTTP,
    A,
    E,
    G,
    Panel,
    mean,
    number,
    quantile,
    quantiles,
    rate,
    ratio,
)

ANSWERS = f'{G}, route=~"/gen/.+", status="200"'

OVERVIEW = (
    number(
        "Ready",
        "Every gateway has shown that the engine, each adapter and the constraint work.",
        "none",
        f'min(routine_ready{{{G}}} or on (instance) up{{job="gateway"}}) or vector(0)',
        base="red",
        limits=((1, "green"),),
        names=(("0", "not ready"), ("1", "ready")),
    ),
    number(
        "Availability, 3 days",
        "Share of requests for an answer that got one; 5xx and 429 did not. Objective: 99.9 %.",
        "percentunit",
        "1 - routine:unavailable:ratio_rate3d",
        base="red",
        limits=((0.999, "green"),),
    ),
    number(
        "Within 1 s, 3 days",
        "Share of rate and month answers that took at most a second. Objective: 99 %.",
        "percentunit",
        "1 - routine:slow:ratio_rate3d",
        base="red",
        limits=((0.99, "green"),),
    ),
    number(
        "Answers a second", "Rate and month answers given.", "reqps", rate(f"{HTTP}_count", ANSWERS)
    ),
    number(
        "p99 latency",
        "99 of 100 rate and month answers take less.",
        "s",
        quantile(0.99, HTTP, ANSWERS),
        limits=((0.7, "orange"), (1, "red")),
    ),
    number(
        "Wrong, held back, 24 h",
        "Answers that broke a rule and did not leave. Anything but 0 is a fault: see the runbook.",
        "short",
        f"sum(increase(routine_semantic_violations_total{{{G}}}[1d]))",
        limits=((0.5, "red"),),
    ),
    number(
        "Places in use",
        "Requests at the engine, of those that may be there at once.",
        "percentunit",
        f"sum(routine_in_flight_requests{{{G}}}) / sum(routine_in_flight_limit_requests{{{G}}})",
        limits=((0.7, "orange"), (0.9, "red")),
    ),
    number(
        "Passes saved",
        "Tokens for which the model needed no forward pass of their own, thanks to the drafter.",
        "percentunit",
        f"1 - {ratio('routine_drafter_passes_total', 'routine_drafter_tokens_total', E)}",
        base="red",
        limits=((0.3, "orange"), (0.5, "green")),
    ),
    Panel(
        "Requests by status",
        "All routes but health checks and scrapes. 429: the queue is full. 499: the client left.",
        "reqps",
        {"{{status}}": rate(f"{HTTP}_count", f'{G}, route!~"/healthz|/readyz|/metrics"', "status")},
        kind="stacked",
    ),
    Panel(
        "Latency of answers",
        "From a request's first byte to its answer's last; rate and month.",
        "s",
        quantiles(HTTP, ANSWERS),
        limits=((1, "red"),),
    ),
    Panel(
        "Where the time goes",
        "Mean time a request waits for a place, is at the engine, and is derived and checked.",
        "s",
        {
            stage: mean(f"routine_{stage}_duration_seconds", f"{G}, {A}")
            for stage in ("queue", "engine", "check")
        },
        limits=((1, "red"),),
        kind="stacked",
    ),
    Panel(
        "Budget burn, 1 h",
        "How many times faster than allowed the error budget is spent. 1 spends it in 30 days; "
        "14.4 for an hour pages.",
        "short",
        {
            "availability": "routine:unavailable:ratio_rate1h / 0.001",
            "latency": "routine:slow:ratio_rate1h / 0.01",
        },
        limits=((1, "orange"), (14.4, "red")),
    ),
    Panel(
        "Engine errors",
        "Requests that failed at the engine. Unavailable: down. Fault: it answered what it should "
        "not. Refused: its 4xx to a completion. Sent again: no client has seen these yet.",
        "reqps",
        {
            "{{kind}}": rate("routine_engine_errors_total", f"{G}, {A}", "kind"),
            "sent again": rate("routine_engine_retries_total", f"{G}, {A}"),
        },
        limits=((0.01, "red"),),
    ),
    Panel(
        "Queue and places",
        "Share of the places at the engine that are taken, and of the queue behind them.",
        "percentunit",
        {
            "queue": f"sum(routine_queued_requests{{{G}}}) / "
            f"sum(routine_queue_limit_requests{{{G}}})",
            "places": f"sum(routine_in_flight_requests{{{G}}}) / "
            f"sum(routine_in_flight_limit_requests{{{G}}})",
        },
        limits=((0.5, "orange"), (0.9, "red")),
        most=1,
    ),
)

ADAPTERS = (
    Panel(
        "Requests by adapter",
        "What the engine was asked, by adapter; the base under its name.",
        "reqps",
        {"{{adapter}}": rate("routine_engine_duration_seconds_count", f"{G}, {A}", "adapter")},
        kind="stacked",
    ),
    Panel(
        "Engine time by adapter, p95",
        "95 of 100 requests to the adapter take less at the engine.",
        "s",
        {"{{adapter}}": quantile(0.95, "routine_engine_duration_seconds", f"{G}, {A}", "adapter")},
        limits=((1, "red"),),
    ),
    Panel(
        "First token by adapter, p95",
        "Streaming completions, from the request to the first token sent.",
        "s",
        {
            "{{adapter}}": quantile(
                0.95, "routine_time_to_first_token_seconds", f"{G}, {A}", "adapter"
            )
        },
        limits=((0.5, "orange"), (1, "red")),
    ),
    Panel(
        "Errors by adapter",
        "Requests that failed at the engine.",
        "reqps",
        {"{{adapter}}": rate("routine_engine_errors_total", f"{G}, {A}", "adapter")},
        limits=((0.01, "red"),),
    ),
    Panel(
        "Violations by adapter and rule",
        "Answers held back because they broke a rule, in an hour; the five most frequent.",
        "short",
        {
            "{{adapter}} {{rule}}": "topk(5, sum by (adapter, rule) "
            f"(increase(routine_semantic_violations_total{{{G}, {A}}}[1h])))"
        },
        limits=((0.5, "red"),),
    ),
    Panel(
        "Fit to answer",
        "1 while the adapter is proven: it changes the output, in its form.",
        "none",
        {"{{adapter}}": f"min by (adapter) (routine_adapter_ready{{{G}, {A}}})"},
        base="red",
        limits=((1, "green"),),
        most=1,
    ),
    Panel(
        "Admission",
        "Requests admitted to the engine, rejected with 429, or left by their client.",
        "reqps",
        {
            "{{adapter}} {{outcome}}": rate(
                "routine_admissions_total", f"{G}, {A}", "adapter, outcome"
            )
        },
    ),
    Panel(
        "Tokens a second",
        "Of prompts (in) and generated (out), as the engine counts them.",
        "short",
        {
            "{{adapter}} {{direction}}": rate(
                "routine_tokens_total", f"{G}, {A}", "adapter, direction"
            )
        },
    ),
    Panel(
        "Decisions a second",
        "What the model decided in answers: rates, and assistance exercises.",
        "short",
        {"{{adapter}}": rate("routine_decisions_total", f"{G}, {A}", "adapter")},
    ),
)

GATEWAY = (
    number(
        "Gateways",
        "Gateways that answer Prometheus.",
        "short",
        f'sum(up{{job="gateway", {G}}})',
        base="red",
        limits=((1, "green"),),
        width=4,
    ),
    Panel(
        "Version",
        "What runs: the gateways' versions.",
        "none",
        {"{{version}}": f"sum by (version) (routine_build_info{{{G}}})"},
        kind="number",
        width=4,
    ),
    Panel(
        "Event-loop lag",
        "By how much timers are late. Above 10 ms the gateway's core is full: add a gateway.",
        "s",
        quantiles("routine_event_loop_lag_seconds", G),
        limits=((0.01, "orange"), (0.1, "red")),
    ),
    Panel(
        "Memory",
        "Resident memory of a gateway.",
        "bytes",
        {"{{instance}}": f"routine_resident_memory_bytes{{{G}}}"},
        limits=((2000000000.0, "orange"), (4000000000.0, "red")),
    ),
    Panel(
        "Processor",
        "Cores that a gateway uses.",
        "short",
        {"{{instance}}": rate("routine_cpu_seconds_total", G, "instance")},
        limits=((1, "orange"),),
    ),
    Panel(
        "Check, p99",
        "Reading, deriving and checking an answer, inside the gateway.",
        "s",
        {"{{adapter}}": quantile(0.99, "routine_check_duration_seconds", f"{G}, {A}", "adapter")},
        limits=((0.005, "orange"), (0.02, "red")),
    ),
    Panel(
        "Latency by route, p95",
        "95 of 100 requests to the route take less.",
        "s",
        {"{{route}}": quantile(0.95, HTTP, G, "route")},
        limits=((1, "red"),),
    ),
)
