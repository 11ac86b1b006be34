"""Pure decisions: no clock, no randomness, no await. Each module is named for what it decides."""
