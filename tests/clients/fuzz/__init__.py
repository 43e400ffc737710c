"""Requests made up from the description of the Docker Engine API, and an engine that has to stand them."""
