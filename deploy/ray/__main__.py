"""The engine on a Ray cluster of this machine alone, and the gateway: ``make serve-cluster``."""

from __future__ import annotations

from serving.together import together

if __name__ == "__main__":
    together({"cluster": "deploy.ray.cluster", "gateway": "serving.gateway"})
