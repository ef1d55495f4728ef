import subprocess

CHILD = subprocess.Popen(["sleep", "300"])


def handler(event, context):
    return event
