"""Answers at once."""


def handler(event, context):
    if isinstance(event, dict) and "raise" in event:
        raise ValueError(event["raise"])
    return {"event": event, "request": context.getRequestID()}


def text(event, context):
    return "plain text, no JSON: \u00e9\u4e2d"


def nothing(event, context):
    return None
