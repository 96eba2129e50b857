"""A Flask model server: KServe's V1 protocol on one path."""

from __future__ import annotations

from flask import Flask, request

app = Flask(__name__)


@app.post("/v1/models/sums:predict")
def predict() -> dict[str, list[float]]:
    """The sum of each row."""
    return {"predictions": [sum(row) for row in request.get_json()["instances"]]}
