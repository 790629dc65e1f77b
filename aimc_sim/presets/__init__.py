"""Published chips, one TOML each."""
