"""A FastAPI model server that most people have: one path, JSON in and out; it starts nothing itself."""

from __future__ import annotations

import os
import time

from fastapi import FastAPI

time.sleep(float(os.environ.get("LOAD_S", "0")))
app = FastAPI()


@app.post("/predict")
def predict(body: dict[str, list[list[float]]]) -> dict[str, list[float]]:
    """The sum of each row."""
    return {"predictions": [sum(row) for row in body["inputs"]]}
