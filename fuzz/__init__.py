"""Coverage-guided fuzzing, large inputs included: one module per target, `python -m fuzz.<target>`; `make fuzz` runs them all.

The oracle of every target has three parts: only documented errors are raised, an input costs no more CPU time and memory
than is proportional to its length, and what was read means the same when it is read in another way.
"""
