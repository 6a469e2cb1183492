"""Run the engine and the gateway together: ``python -m serving``."""

from serving.together import together

if __name__ == "__main__":
    together({"engine": "serving.engine", "gateway": "serving.gateway"})
