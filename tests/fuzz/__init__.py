"""Damaged and hostile files for every reader, which must give a value or one line, soon and in little memory."""
