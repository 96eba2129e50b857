"""`make mutants`: changes one token of the product at a time and sees whether a test of its room notices.

Our own, because mutmut changes nothing outside functions and wants a copied tree, and cosmic-ray edits the sources in place
and runs one fixed command for every mutant: neither takes a sample or runs only a room's tests that execute the token.

mutation.py says what may be changed, rooms.py which tests answer for which module, measure.py which test executes which
line, trial.py runs tests against one mutant, left.toml lists the mutants that are left alive on purpose.
"""
