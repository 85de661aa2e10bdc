"""`python -m favor_lab` is the same as `favor-lab`."""

from favor_lab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
