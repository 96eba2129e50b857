"""A LitServe server on LitServe's own default port: nothing tells it another."""

import litserve as ls


class Sums(ls.LitAPI):
    """The sum of each row."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def decode_request(self, request):  # LitServe takes an annotation here for FastAPI's
        """The rows."""
        return request["inputs"]

    def predict(self, x: list[list[float]]) -> list[float]:
        """The sums."""
        return [sum(row) for row in x]

    def encode_response(self, output):
        """As JSON."""
        return {"predictions": output}


if __name__ == "__main__":
    ls.LitServer(Sums(api_path="/predict"), accelerator="cpu").run(generate_client_file=False)
