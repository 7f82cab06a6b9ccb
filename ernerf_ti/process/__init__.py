"""The process: device, CPU threads, interruption, prefetching."""
