"""A KServe model on the SDK's own server, which takes its port by a flag."""

from __future__ import annotations

import argparse
from typing import Any

from kserve import Model, ModelServer, model_server


class Sums(Model):
    """The sum of each row."""

    def load(self) -> bool:
        """Nothing to load."""
        self.ready = True
        return self.ready

    def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
        """V1 in, V1 out."""
        return {"predictions": [sum(row) for row in payload["instances"]]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.parse_known_args()
    model = Sums("sums")
    model.load()
    ModelServer(enable_grpc=False).start([model])
