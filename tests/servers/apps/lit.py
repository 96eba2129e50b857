"""A LitServe server on LitServe's own default port: nothing tells it another."""

from __future__ import annotations

from typing import Any

import litserve as ls


class Sums(ls.LitAPI):
    """The sum of each row."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def decode_request(self, request: dict[str, Any]) -> Any:
        """The rows."""
        return request["inputs"]

    def predict(self, x: list[list[float]]) -> list[float]:
        """The sums."""
        return [sum(row) for row in x]

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        """As JSON."""
        return {"predictions": output}


if __name__ == "__main__":
    ls.LitServer(Sums(api_path="/predict"), accelerator="cpu").run(generate_client_file=False)
