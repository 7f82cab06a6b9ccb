"""Live sessions under the names that frameworks for voice agents give to their events. Each needs its framework."""
