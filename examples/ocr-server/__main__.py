"""Start the server: options, then uvicorn. Nothing of the service itself."""

from __future__ import annotations

import argparse
import os
import sys

import uvicorn
from ocr_server.app import create_app
from ocr_server.detector import ModelError, find_model


def main() -> int:
    """Serve until stopped; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ocr-server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    parser.add_argument("--pixels", type=int, default=256, help="side of the square an image is squeezed to, 32·k")
    parser.add_argument("--cores", type=float, default=float(os.cpu_count() or 1), help="threads, until POST /cpu")
    options = parser.parse_args()
    try:
        app = create_app(find_model(), options.pixels, options.cores)
    except (ModelError, ValueError) as error:
        print(f"ocr-server: {error}", file=sys.stderr)
        return 2
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
