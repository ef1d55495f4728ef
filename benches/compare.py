"""Compares instruction counts with those that are committed: see .ci/instructions.

Reads what gungraun prints as JSON, one object a bench, from standard input.
"""

import json
import platform
import sys

MOST = 1.10  # of the baseline; what is above fails


def counted(stream):
    """Instructions of each bench, by `function.id`."""
    counts = {}
    decoder, text = json.JSONDecoder(), stream.read().strip()
    while text:
        bench, end = decoder.raw_decode(text)
        text = text[end:].strip()
        counts[f"{bench['function_name']}.{bench['id']}"] = instructions(bench)
    return counts


def instructions(bench):
    """Those of the whole run of a bench under callgrind."""
    for profile in bench["profiles"]:
        if profile["tool"] == "Callgrind":
            metrics = profile["summaries"]["total"]["summary"]["Callgrind"]["Ir"]["metrics"]
            value = metrics["Left"] if "Left" in metrics else metrics["Both"][0]
            return int(value["Int"] if isinstance(value, dict) else value)
    raise SystemExit(f"{bench['id']}: nothing was counted")


def read(path):
    """The baseline: the architecture it was made on, and the counts."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
    except FileNotFoundError:
        return None, {}
    machine = next((words[1] for words in lines if words[0] == "machine"), None)
    return machine, {words[0]: int(words[1]) for words in lines if words[0] != "machine"}


def write(path, counts):
    with open(path, "w", encoding="utf-8") as file:
        file.write("# Instructions of each bench of benches/benches/instructions.rs: .ci/instructions --update\n")
        file.write(f"machine {platform.machine()}\n")
        for name, count in sorted(counts.items()):
            file.write(f"{name} {count}\n")


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
    machine, before = read(path)
    if machine not in (None, platform.machine()):
        print(f"the baseline is of {machine}, this is {platform.machine()}: nothing is compared")
        return None
    return "\n".join(compare(before, counts)) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
