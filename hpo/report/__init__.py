"""Reports of studies: what they read, compute, say and render. No torch."""
