"""Stand-ins for the world outside, owned by the tests. Nothing here imports the product."""
