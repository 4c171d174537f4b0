"""A device profile: SoC, memory, runtimes, sensors, alignment, measurement policy, default budget."""
