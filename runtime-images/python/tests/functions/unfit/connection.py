import socket

CONNECTION = socket.socket()


def handler(event, context):
    return event
