"""Numbers about predictions and maps. numpy only."""
