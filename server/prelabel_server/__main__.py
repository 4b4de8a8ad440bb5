"""`python -m prelabel_server` is `prelabel`."""

from prelabel_server.cli import main

if __name__ == "__main__":
    main()
