"""`raynas search` as the entry point of a Ray job: `ray job submit --working-dir . -- python jobs/search.py ...`."""

from raynas.cli import main

if __name__ == "__main__":
    main("search")
