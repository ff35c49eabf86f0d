"""From files as distributed to prepared data."""
