"""The memory cells in C: one source file, and the loader that finds or builds its library."""
