"""The smallest function: an event in, a value out."""


def handler(event, context):
    name = event.get("name", "world") if isinstance(event, dict) else "world"
    context.getLogger().info("greeting %s" % name)
    return {"greeting": "Hello, %s!" % name, "request_id": context.getRequestID()}
