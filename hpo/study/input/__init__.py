"""Input files of a study: study files, configuration files, templates."""
