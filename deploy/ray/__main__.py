"""Run the gateway and the engine on a single-machine Ray cluster: ``make serve-cluster``."""

from serving.together import together

if __name__ == "__main__":
    together({"cluster": "deploy.ray.cluster", "gateway": "serving.gateway"})
