"""What the Makefile runs: set-up, the demo, the check that nothing is left behind."""
