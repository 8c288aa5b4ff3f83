"""`python -m livery_cli` is the `livery` command; `livery up` starts its roles this way, with its own interpreter."""

from livery_cli.main import main

if __name__ == "__main__":
    main()
