"""Ordinary and unfortunate handlers; which one is said by the function's `handler`."""

import os


def length(event, context):
    return len(event)


def large(event, context):
    return "x" * event["bytes"]


def raises(event, context):
    raise ValueError("as the test asked")


def leaves(event, context):
    os._exit(3)


def unprintable(event, context):
    return {1, 2, 3}


not_callable = 7
