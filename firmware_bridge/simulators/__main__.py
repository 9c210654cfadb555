"""`python -m beingh0_edge.firmware_bridge.simulators inspire_rh56?fault=echo`: prints its port, serves it
until stdin ends.

Lines on stdin change it while it runs: `fault drop:0.5`, `unplug`, `replug`, `reset`, `set object=400`;
each is answered by `ok` or `error: ...`.
"""

from __future__ import annotations

import sys

from beingh0_edge.firmware_bridge.simulators.launch import SIMULATORS, parse_spec


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(f"usage: simulators NAME[?options]; known: {', '.join(sorted(SIMULATORS))}", file=sys.stderr)
        return 2
    try:
        server = parse_spec(arguments[0]).server()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(server.port, flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
