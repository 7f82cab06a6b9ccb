"""Many portraits: a table of speakers becomes captures, runs, videos and evaluations, on one machine or a cluster."""
