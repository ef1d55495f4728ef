from quell_runtime import SubInvocationError


def sync(event, context):
    return context.invoke(event["function"], {"n": 1})


def detached(event, context):
    return context.invoke_async("child", {"n": 1}, detached=True)


def refused(event, context):
    try:
        context.invoke("child")
    except SubInvocationError as error:
        return [error.status, error.error_code, error.error_msg, error.canceled, error.refused]
