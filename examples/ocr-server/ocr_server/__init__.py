"""An example model server: where is the text in a photograph? Knows nothing of deadlines, queues or batch timing."""

__version__ = "1.0"
