"""What gpu_check.py checks and measures, a file for each kind; checks are generators of rows."""
