"""What the scenarios of `make bench` share: parties as real processes, their models and users, loads and meters."""
