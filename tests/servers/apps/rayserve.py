"""A Ray Serve application on Serve's own HTTP proxy."""

from __future__ import annotations

from typing import Any

from ray import serve


@serve.deployment
class Sums:
    """The sum of each row."""

    async def __call__(self, request: Any) -> dict[str, list[float]]:
        """JSON in and out."""
        body = await request.json()
        return {"predictions": [sum(row) for row in body["inputs"]]}


app = Sums.bind()
