"""A model for MLServer: doubles each number, sums each row, echoes the labels. Runs in MLServer's own environment."""

import time

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse


class Affine(MLModel):
    """Takes `x` FP32 [n, k] and `label` BYTES [n, 1]."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One call; slow enough that requests pile up behind it."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        labels = StringCodec.decode_input(payload.inputs[1])
        if "poison" in labels:
            raise InferenceError("one of the labels is poison")
        time.sleep(0.03)  # noqa: ASYNC251 (it occupies the server, as computing would)
        total = np.zeros(len(x), dtype=np.float64)
        for column in range(x.shape[1]):  # a fixed order of additions: batched sums are equal to the last bit
            total += x[:, column]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                NumpyCodec.encode_output("doubled", x * 2),
                NumpyCodec.encode_output("total", total.reshape(-1, 1)),
                StringCodec.encode_output("label", [text.upper() for text in labels], use_bytes=False),
            ],
        )
