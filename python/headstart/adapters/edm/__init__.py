"""Networks of EDM and EDM2."""
