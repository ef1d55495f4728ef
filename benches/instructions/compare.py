"""Compares instruction counts with those that are committed: see .ci/instructions.

Reads what gungraun prints as JSON, one object a bench, from standard input. Of a bench that was run several times the
lowest count is taken: maps of the engine are seeded at random, and that moves a count by some percent.
"""

import json
import platform
import subprocess
import sys

MOST = 1.10  # of the baseline; what is above fails


def counted(stream):
    """Instructions of each bench, by `function.id`; of several runs the lowest."""
    counts = {}
    decoder, text = json.JSONDecoder(), stream.read().strip()
    while text:
        bench, end = decoder.raw_decode(text)
        text = text[end:].strip()
        name, count = f"{bench['function_name']}.{bench['id']}", instructions(bench)
        counts[name] = min(count, counts.get(name, count))
    return counts


def instructions(bench):
    """Those of a bench under callgrind; those of an earlier run stand beside them if there was one."""
    for profile in bench["profiles"]:
        if profile["tool"] == "Callgrind":
            return int(profile["data"]["total"]["metrics"]["Ir"]["values"]["new"])
    raise SystemExit(f"{bench['id']}: nothing was counted")


def here():
    """What counts depend on."""
    compiler = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True)
    return {"machine": platform.machine(), "compiler": compiler.stdout.strip()}


def read(path):
    """The baseline: what it depends on, and the counts."""
    made_on, counts = {}, {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, _, value = line.strip().partition(" ")
            if name in ("machine", "compiler"):
                made_on[name] = value
            elif name and not name.startswith("#"):
                counts[name] = int(value)
    return made_on, counts


def write(path, counts):
    with open(path, "w", encoding="utf-8") as file:
        file.write("# Instructions of each bench of benches/instructions: .ci/instructions --update\n")
        for name, value in [*here().items(), *sorted(counts.items())]:
            file.write(f"{name} {value}\n")


def compare(before, counts):
    """Prints every bench; returns what is wrong, one line each."""
    wrong = [f"{name} is in the baseline and was not counted" for name in sorted(before.keys() - counts.keys())]
    for name, count in sorted(counts.items()):
        if name not in before:
            wrong.append(f"{name} has no baseline: .ci/instructions --update")
            continue
        ratio = count / before[name]
        print(f"{name:<34} {count:>12} {ratio:>7.3f}")
        if ratio > MOST:
            wrong.append(f"{name}: {count} instructions, {ratio:.2f} times the baseline's {before[name]}")
    return wrong


def main(words):
    update = "--update" in words
    path = [word for word in words if word != "--update"][0]
    counts = counted(sys.stdin)
    if not counts:
        return "nothing was counted"
    if update:
        write(path, counts)
        print(f"{path} is written: {len(counts)} benches")
        return None
    (made_on, before), now = read(path), here()
    if made_on["machine"] != now["machine"]:
        print(f"the baseline is of {made_on['machine']}, this is {now['machine']}: nothing is compared")
        return None
    if made_on["compiler"] != now["compiler"]:
        print(f"the baseline is of {made_on['compiler']}, this is {now['compiler']}")
    return "\n".join(compare(before, counts)) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
