"""End to end. A package, so that its installation ends with the last of these tests."""
