"""Says which trace it is in, and which one what it invokes is in."""


def handler(event, context):
    said = {"traceparent": context.getTraceparent(), "tracestate": context.getTracestate(),
            "request": context.getRequestID()}
    if event.get("child"):
        said["child"] = context.invoke(context.getFunctionName(), {})
    if event.get("fail"):
        raise ValueError("as asked")
    return said
