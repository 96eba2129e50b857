"""`sponge run` in front of model servers that are not ours: every line of docs/servers.md."""
