"""A day of requests by rule, driven through the real cache levels on a clock of its own."""
