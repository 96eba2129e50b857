"""The fuzzer's own parts: notation, mutation, and the bounds that its findings rest on."""
