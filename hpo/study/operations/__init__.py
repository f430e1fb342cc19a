"""Operations on whole studies: list, copy, fork, evaluate, progress."""
