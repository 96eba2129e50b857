"""A model server whose answers can be checked with pen and paper and whose cost is what a test sets."""
