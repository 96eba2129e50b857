"""A BentoML service."""

from __future__ import annotations

import bentoml


@bentoml.service(workers=1)
class Sums:
    """The sum of each row."""

    @bentoml.api(route="/predict")
    def predict(self, inputs: list[list[float]]) -> list[float]:
        """The sums."""
        return [sum(row) for row in inputs]
