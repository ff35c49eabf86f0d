"""What is asked of finished runs, each file named after the question."""
