"""`raynas leaderboard` as the entry point of a Ray job: `ray job submit ... -- python jobs/leaderboard.py ...`."""

from raynas.cli import main

if __name__ == "__main__":
    main("leaderboard")
