"""Reports of studies. They read a study and train nothing: no torch."""
