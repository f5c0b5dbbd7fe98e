"""What runs in the pane of every system: prints stamps, waits for keys, or prints a flood.

    python3 agent.py stamps|quiet

A line `flood N` on its terminal: N numbered lines of 15 digits between THE-BEGIN and THE-END.
"""

import select
import sys
import time


def flood(lines: int) -> None:
    """Made before it begins, so that only the terminal is slow."""
    text = "".join(f"{n:015d}\n" for n in range(lines))
    print("\nTHE-BEGIN", flush=True)
    time.sleep(0.5)  # or a screen that only shows how it stands would skip it
    for start in range(0, len(text), 65_536):
        sys.stdout.write(text[start : start + 65_536])
    print("THE-END", flush=True)


def main() -> None:
    """Until it is killed."""
    stamps = sys.argv[1] == "stamps"
    print("ready", flush=True)
    while True:
        if select.select([sys.stdin], [], [], 0.05 if stamps else None)[0]:
            words = sys.stdin.readline().split()
            if words[:1] and words[0].endswith("flood"):
                flood(int(words[1]))
            continue
        print(f"@{time.monotonic_ns()}@", flush=True)


if __name__ == "__main__":
    main()
