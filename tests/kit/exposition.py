"""Prometheus metrics of a running server."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and sorted labels."""


def samples(text: str) -> Samples:
    """Parse the Prometheus text format."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(url: str) -> Samples:
    """Read the metrics of the server at ``url``."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        return samples(response.read().decode())
