"""What the end-to-end tests are written with: kubectl, kn, a client of the ingress, the report. Asserts nothing itself."""
