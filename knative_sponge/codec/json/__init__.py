"""JSON as bytes: structure is read, rows are cut and joined, values stay the bytes that came.

No protocol is known here, and no number is decoded.
Imports no other room of the codec.
"""
