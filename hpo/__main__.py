"""`python -m hpo` is the command `hpo`."""

if __name__ == "__main__":
    from hpo.cli import main

    main()
