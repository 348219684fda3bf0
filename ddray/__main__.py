"""``python -m ddray``."""

from ddray.cli import main

if __name__ == "__main__":
    main()
