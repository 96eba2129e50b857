"""What all targets share: how an input is written, mutated, paid for and reported. Knows no target and no product code.

Only `session` needs atheris, so that tests can replay what was found without it.
"""
