def handler(event, context):
    return "shadow"
