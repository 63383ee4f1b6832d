"""`python -m p2pfed` is `p2pfed`."""

from p2pfed.cli.main import main

if __name__ == "__main__":
    main()
